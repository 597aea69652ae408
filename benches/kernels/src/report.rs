//! Results as JSON, as a table in Markdown and as a plot.

use std::fmt::Write as _;
use std::path::Path;

use aneforge_kernels::Isa;

use crate::Bench;
use crate::timing::{Cell, Row};

/// What the numbers were measured on.
pub struct About {
    machine: String,
    sets: String,
    peers: String,
    rounds: usize,
}

impl About {
    pub fn new(machine: String, bench: &Bench) -> About {
        let sets: Vec<String> = Isa::available().iter().map(|isa| format!("{isa:?}")).collect();
        let onnx = bench.peer.as_ref().map_or("not installed".into(), |peer| peer.version.clone());
        let torch = bench.pytorch.as_ref().map_or("not installed".into(), |peer| peer.version.clone());
        let peers =
            format!("gemm-f32 0.19 (AVX-512), gemm-f32 0.18 (AVX2), onnxruntime {onnx}, PyTorch {torch}");
        About { machine, sets: sets.join(", "), peers, rounds: bench.rounds }
    }
}

/// Writes `path` with the extensions `json`, `md` and `svg`.
pub fn write(path: &Path, about: &About, rows: &[Row]) -> std::io::Result<()> {
    std::fs::write(path.with_extension("json"), json(about, rows))?;
    std::fs::write(path.with_extension("md"), markdown(about, rows))?;
    std::fs::write(path.with_extension("svg"), plot(rows))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn json(about: &About, rows: &[Row]) -> String {
    let mut out = String::from("{\n");
    for (name, value) in
        [("machine", &about.machine), ("instruction sets", &about.sets), ("peers", &about.peers)]
    {
        let _ = writeln!(out, "  {}: {},", quoted(name), quoted(value));
    }
    let _ = writeln!(out, "  \"rounds\": {},\n  \"rows\": [", about.rounds);
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row.cells.iter().map(|cell| cell_json(row, cell)).collect();
        let marks: Vec<String> = row
            .marks
            .iter()
            .map(|mark| {
                let ratio = row.ratio(mark);
                format!(
                    "{{\"mark\": {}, \"ratio\": {ratio:.3}, \"wanted\": {:.3}, \"met\": {}}}",
                    quoted(&mark.text),
                    mark.least,
                    ratio >= mark.least
                )
            })
            .collect();
        let _ = write!(
            out,
            "    {{\"name\": {}, \"variants\": [\n      {}\n    ], \"marks\": [{}]}}{}\n",
            quoted(&row.name),
            cells.join(",\n      "),
            marks.join(", "),
            if index + 1 < rows.len() { "," } else { "" }
        );
    }
    out + "  ]\n}\n"
}

fn cell_json(row: &Row, cell: &Cell) -> String {
    let mut out = format!(
        "{{\"name\": {}, \"us\": {:.3}, \"best us\": {:.3}",
        quoted(&cell.name),
        cell.median * 1e6,
        cell.best * 1e6
    );
    if let Some(rate) = row.rate(cell) {
        let _ = write!(out, ", {}: {rate:.2}", quoted(row.unit()));
    }
    if let Some(share) = row.share(cell) {
        let _ = write!(out, ", \"of roof\": {share:.3}");
    }
    out + "}"
}

fn markdown(about: &About, rows: &[Row]) -> String {
    let mut out = format!(
        "# Kernels\n\nMachine: {}. Instruction sets: {}. Peers: {}. Medians of {} turns.\n\n## Marks\n\n\
         | row | mark | ratio | wanted | |\n|---|---|---:|---:|---|\n",
        about.machine, about.sets, about.peers, about.rounds
    );
    if !Isa::available().contains(&Isa::AmxFp16) {
        for text in [
            "GEMM 512x512x512: at least 1.5 TFLOP/s",
            "GEMM 128x384x1536: at least 2.2 TFLOP/s",
            "GEMM 197x768x3072: at least 1.9 TFLOP/s",
            "ResNet-18's 20 convolutions: under 2.3 ms",
        ] {
            let (row, mark) = text.split_once(": ").unwrap_or((text, ""));
            let _ = writeln!(out, "| {row} | AMX-FP16, {mark} | | | not available on this CPU |");
        }
    }
    for row in rows {
        for mark in &row.marks {
            let ratio = row.ratio(mark);
            let verdict = if ratio >= mark.least { "met" } else { "missed" };
            let _ = writeln!(
                out,
                "| {} | {} | {ratio:.2} | {:.2} | {verdict} |",
                row.name, mark.text, mark.least
            );
        }
    }
    out += "\n## Everything\n\n| row | variant | us | rate | of its roof |\n|---|---|---:|---:|---:|\n";
    for row in rows {
        for cell in &row.cells {
            let rate = row.rate(cell).map_or(String::new(), |rate| format!("{rate:.1} {}", row.unit()));
            let share = row.share(cell).map_or(String::new(), |share| format!("{:.0}%", share * 100.0));
            let _ = writeln!(
                out,
                "| {} | {} | {:.1} | {rate} | {share} |",
                row.name,
                cell.name,
                cell.median * 1e6
            );
        }
    }
    out
}

/// Bars of the share of the roof that each variant reaches.
fn plot(rows: &[Row]) -> String {
    const BAR: usize = 14;
    let mut bars = String::new();
    let mut y = 40;
    for row in rows {
        let shares: Vec<(&Cell, f64)> =
            row.cells.iter().filter_map(|cell| Some((cell, row.share(cell)?))).collect();
        if shares.is_empty() {
            continue;
        }
        let _ = writeln!(bars, "<text x=\"8\" y=\"{}\" font-weight=\"bold\">{}</text>", y + 11, row.name);
        y += BAR + 4;
        for (cell, share) in shares {
            let colour = if cell.name.starts_with("gemm") { "#b0b0b0" } else { "#2f6f9f" };
            let width = (share.min(1.2) * 400.0) as usize;
            let _ = writeln!(
                bars,
                "<text x=\"24\" y=\"{0}\">{1}</text><rect x=\"240\" y=\"{2}\" width=\"{width}\" height=\"11\" \
                 fill=\"{colour}\"/><text x=\"{3}\" y=\"{0}\">{4:.0}%</text>",
                y + 10,
                cell.name,
                y + 1,
                246 + width,
                share * 100.0
            );
            y += BAR;
        }
        y += 8;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"780\" height=\"{0}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"780\" height=\"{0}\" fill=\"white\"/>\n<text x=\"8\" y=\"20\" \
         font-size=\"14\">Share of the measured roof (register peak, plain read or copy)</text>\n\
         <line x1=\"640\" y1=\"30\" x2=\"640\" y2=\"{0}\" stroke=\"#c04040\" stroke-dasharray=\"4\"/>\n{bars}</svg>\n",
        y + 10
    )
}
