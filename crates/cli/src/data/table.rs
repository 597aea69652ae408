//! Tables of numbers as text with commas.

use super::{Data, Targets, classes};
use crate::exit::file;
use anyhow::Result;
use std::path::Path;

/// The largest finite half-precision number, in which programs are fed.
const LARGEST: f32 = 65504.0;

/// The most bytes that are read of a pipe.
const MOST: u64 = 1 << 32;

/// A row, and the line of the file on which it begins.
struct Row {
    line: usize,
    cells: Vec<String>,
}

/// Reads a table: the column called `label`, or the last one, is what is to be learned.
pub fn read(path: &Path, label: Option<&str>, regression: bool) -> Result<Data> {
    let name = path.display().to_string();
    let bytes = aneforge_formats::given(path, MOST)?;
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        file(format!("{name}:{line}: is no UTF-8 text; save the table as CSV in UTF-8"))
    })?;
    let rows = rows(&name, text.trim_start_matches('\u{feff}'))?;
    Table::new(name, rows, label)?.data(regression)
}

/// Rows of cells; a cell in quotes may have commas, line ends and doubled quotes in it. Empty lines are no rows.
fn rows(name: &str, text: &str) -> Result<Vec<Row>> {
    let (mut rows, mut row, mut cell) = (Vec::new(), Vec::new(), String::new());
    let (mut line, mut begin) = (1, 1);
    let mut quoted = None;
    let mut chars = text.chars().peekable();
    let mut was_quoted = false;
    while let Some(c) = chars.next() {
        match (c, quoted) {
            ('"', Some(_)) if chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            ('"', Some(_)) => quoted = None,
            ('"', None) if cell.trim().is_empty() => {
                (quoted, was_quoted) = (Some(line), true);
                cell.clear();
            }
            (',', None) => row.push(std::mem::take(&mut cell)),
            // As old programs end lines; before a line feed it is the end of a cell, which is trimmed.
            ('\r', None) if chars.peek().is_some_and(|next| *next != '\n') => {
                row.push(std::mem::take(&mut cell));
                finish(&mut rows, &mut row, line, was_quoted);
                (line, begin, was_quoted) = (line + 1, line + 1, false);
            }
            ('\n', None) => {
                row.push(std::mem::take(&mut cell));
                finish(&mut rows, &mut row, begin, was_quoted);
                (begin, was_quoted) = (line + 1, false);
            }
            (c, _) => cell.push(c),
        }
        line += usize::from(c == '\n');
    }
    if let Some(line) = quoted {
        return Err(file(format!("{name}:{line}: a quote is opened and not closed")));
    }
    row.push(cell);
    finish(&mut rows, &mut row, begin, was_quoted);
    Ok(rows)
}

fn finish(rows: &mut Vec<Row>, row: &mut Vec<String>, line: usize, quoted: bool) {
    let cells: Vec<String> = row.drain(..).map(|cell| cell.trim().to_owned()).collect();
    if quoted || cells.len() > 1 || !cells[0].is_empty() {
        rows.push(Row { line, cells });
    }
}

struct Table {
    name: String,
    columns: Vec<String>,
    /// The column to be learned.
    label: usize,
    rows: Vec<Row>,
}

impl Table {
    fn new(name: String, mut rows: Vec<Row>, label: Option<&str>) -> Result<Table> {
        let Some(first) = rows.first() else {
            return Err(file(format!("{name}: has no rows")));
        };
        let count = first.cells.len();
        if count < 2 {
            let line = first.line;
            return Err(file(format!(
                "{name}:{line}: has one column; a table needs features and a label, parted by commas"
            )));
        }
        let named = label.and_then(|label| first.cells.iter().position(|cell| cell == label));
        let guess = named.unwrap_or(count - 1);
        let is_number = |cell: &String| cell.parse::<f32>().is_ok();
        // Names of columns are no numbers, where features are.
        let words = |at: &(usize, &String)| at.0 != guess && !at.1.is_empty() && !is_number(at.1);
        let header = named.is_some() || first.cells.iter().enumerate().any(|at| words(&at));
        let columns: Vec<String> = match header {
            true => rows.remove(0).cells,
            false => (1..=count).map(|at| format!("column {at}")).collect(),
        };
        if let (Some(label), None) = (label, named) {
            let known = columns.join(", ");
            return Err(file(format!("{name}: has no column `{label}`; its columns are {known}")));
        }
        if rows.is_empty() {
            return Err(file(format!("{name}: has names of columns and no rows")));
        }
        if let Some(row) = rows.iter().find(|row| row.cells.len() != count) {
            let (line, got) = (row.line, row.cells.len());
            return Err(file(format!("{name}:{line}: has {got} cells, and the first row {count}")));
        }
        Ok(Table { name, columns, label: guess, rows })
    }

    /// The number in a cell.
    fn number(&self, row: &Row, column: usize) -> Result<f32> {
        let (name, line) = (&self.name, row.line);
        let (cell, title) = (&row.cells[column], &self.columns[column]);
        let fault = |what: &str| file(format!("{name}:{line}: `{title}` {what}"));
        match cell.parse::<f32>() {
            _ if cell.is_empty() => Err(fault("is empty; fill it, or leave the row out")),
            Err(_) => Err(fault(&format!("is `{cell}`, which is no number"))),
            Ok(value) if !value.is_finite() => {
                Err(fault(&format!("is {cell}; fill it, or leave the row out")))
            }
            Ok(value) if value.abs() > LARGEST => {
                Err(fault(&format!("is {cell}, beyond half precision ({LARGEST}); use a larger unit")))
            }
            Ok(value) => Ok(value),
        }
    }

    fn data(self, regression: bool) -> Result<Data> {
        let features: Vec<usize> = (0..self.columns.len()).filter(|at| *at != self.label).collect();
        let mut values = Vec::with_capacity(self.rows.len() * features.len());
        for row in &self.rows {
            for &column in &features {
                values.push(self.number(row, column)?);
            }
        }
        let targets = match regression {
            true => {
                let of = self.rows.iter().map(|row| self.number(row, self.label)).collect::<Result<_>>()?;
                Targets::Numbers { name: self.columns[self.label].clone(), of }
            }
            false => self.classes()?,
        };
        let features: Vec<String> = features.iter().map(|&at| self.columns[at].clone()).collect();
        Ok(Data { name: self.name, shape: vec![features.len()], features, values, targets })
    }

    fn classes(&self) -> Result<Targets> {
        let (name, title) = (&self.name, &self.columns[self.label]);
        if let Some(row) = self.rows.iter().find(|row| row.cells[self.label].is_empty()) {
            let line = row.line;
            return Err(file(format!("{name}:{line}: `{title}` is empty; fill it, or leave the row out")));
        }
        let labels: Vec<String> = self.rows.iter().map(|row| row.cells[self.label].clone()).collect();
        let count = labels.len();
        let targets = classes(labels);
        match &targets {
            Targets::Classes { names, .. } if names.len() < 2 => Err(file(format!(
                "{name}: `{title}` is always `{}`; there is nothing to tell apart",
                names[0]
            ))),
            Targets::Classes { names, .. }
                if names.len() > 1000 || names.len() * 2 > count && names.len() > 20 =>
            {
                Err(file(format!(
                    "{name}: `{title}` has {} different values in {count} rows; for a number, say `--regression`",
                    names.len()
                )))
            }
            _ => Ok(targets),
        }
    }
}
