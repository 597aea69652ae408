//! Weights of MIL programs, from the records of a weight file.

use crate::emit::encoded::{Part, SPELLINGS, Spelling};
use aneforge_mil::program::TensorValue;
use aneforge_mil::{self as mil, BlobDType, BlobFile, Literal, Stmt};
use aneforge_tensor::{Bytes, DType, Shape, Tensor, Weight};
use std::collections::HashMap;

/// What a program's constants are read from.
pub(super) struct Weights<'a> {
    pub(super) bytes: &'a Bytes,
    pub(super) file: BlobFile<'a>,
    /// The records that constants refer to, by name.
    pub(super) records: HashMap<&'a str, &'a Literal>,
}

/// The encoding that a statement decodes.
pub(super) fn encoded(stmt: &Stmt) -> Option<&'static Spelling> {
    SPELLINGS.iter().find(|spelling| spelling.op == stmt.op)
}

impl<'a> Weights<'a> {
    /// The array of a constant that is a record, if it is a value by itself.
    pub(super) fn constant(&mut self, name: &'a str, literal: &'a Literal) -> Result<Option<Tensor>, String> {
        self.records.insert(name, literal);
        match literal.ty().dtype() {
            mil::DType::Fp16 => {
                let shape = super::mil::shape_of(literal.ty().shape())?;
                self.record(literal, Some(shape)).map(Some)
            }
            mil::DType::Int8 | mil::DType::Uint4 | mil::DType::Uint1 => Ok(None),
            other => Err(format!("weights of type {other} are not read yet; export them as fp16")),
        }
    }

    /// The weight that a statement decodes.
    pub(super) fn decoded(&self, stmt: &Stmt, spelling: &Spelling) -> Result<Weight, String> {
        let declared = &stmt.results.first().ok_or("has no result")?.ty;
        if declared.dtype() != mil::DType::Fp16 {
            return Err(format!("makes a weight of type {declared}; weights are fp16"));
        }
        for name in ["axis", "zero_point"] {
            if !matches!(stmt.attr(name), None | Some(Literal::Int { value: 0, .. })) {
                return Err(format!("{} with another {name} than 0 is not read yet", stmt.op));
            }
        }
        let known = |name: &str| spelling.parts.iter().any(|part| part.argument == name);
        if let Some((name, _)) = stmt.args.iter().find(|(name, _)| !known(name)) {
            return Err(format!("{} takes no argument `{name}` that is read yet", stmt.op));
        }
        let parts = spelling.parts.iter().map(|part| self.part(stmt, part)).collect::<Result<_, _>>()?;
        let shape = super::mil::shape_of(declared.shape())?;
        Weight::assemble(spelling.encoding(), shape, parts).map_err(|e| e.to_string())
    }

    fn part(&self, stmt: &Stmt, part: &Part) -> Result<Tensor, String> {
        let (name, want) = (part.argument, part.dtype);
        let found = match stmt.arg(name) {
            Some(mil::Arg::Name(constant)) => self.records.get(constant.as_str()).copied(),
            Some(mil::Arg::Literal(literal)) => Some(literal),
            Some(mil::Arg::Tuple(_)) => None,
            None => stmt.attr(name),
        };
        match found {
            Some(literal) if literal.ty().dtype() == want => self.record(literal, None),
            Some(literal) => Err(format!("`{name}` of {} is {}, not {want}", stmt.op, literal.ty().dtype())),
            None => Err(format!("`{name}` of {} is no constant of the weight file", stmt.op)),
        }
    }

    /// The elements of a record, or its bytes where elements are smaller, in a shape or else in a line.
    fn record(&self, literal: &Literal, shape: Option<Shape>) -> Result<Tensor, String> {
        let Literal::Tensor { dtype, value: TensorValue::Blob { offset, .. }, .. } = literal else {
            return Err("a weight is written out instead of being in the weight file".into());
        };
        let record = self.file.at(*offset).map_err(|e| e.to_string())?;
        if BlobDType::of(*dtype) != Some(record.dtype) {
            return Err(format!("the record at {offset} is {}, not {dtype}", record.dtype.name()));
        }
        let end = record.data_offset.checked_add(record.len).ok_or("record lies outside the file")?;
        let range = usize::try_from(record.data_offset).ok().zip(usize::try_from(end).ok());
        let (start, end) = range.ok_or("record lies outside the file")?;
        let bytes = self.bytes.slice(start..end).ok_or("record lies outside the file")?;
        let dtype = match dtype {
            mil::DType::Fp16 => DType::F16,
            mil::DType::Int8 => DType::I8,
            _ => DType::U8,
        };
        let line = || Shape::new(&[bytes.len() / dtype.size()]).map_err(|e| e.to_string());
        Tensor::new(dtype, shape.map_or_else(line, Ok)?, bytes).map_err(|e| e.to_string())
    }
}
