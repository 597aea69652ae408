//! Published values: a row for each, as data, run on whatever device.

use super::{Bench, Outcome};
use crate::compile::compile;
use crate::device::host::{self, HostOptions};
use crate::device::{Device, STANDS_IN};
use crate::ir::ops::conv::Conv;
use crate::ir::var::Var;
use crate::passes::{CompileOptions, Routes};
use crate::session::Session;
use crate::target::{Family, Target};
use aneforge_tensor::{Int8Weight, Lut4Weight, Shape, Tensor, f16};
use serde::Deserialize;
use std::sync::{Arc, LazyLock};

/// The rows, as they are kept.
const TEXT: &str = include_str!("../../tests/silicon/probes.toml");

/// A published value.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Its name.
    pub id: String,
    /// Its number in the summary that we work from, 0 without one.
    pub row: u32,
    /// What is computed.
    pub op: String,
    /// Of what: lists of numbers.
    pub inputs: Vec<String>,
    /// What came out: a list of numbers, or more than one, of which any will do.
    pub expected: String,
    /// Families that it holds for.
    pub families: Vec<String>,
    /// The chip that was looked at.
    pub chip: String,
    /// How it is known.
    pub tag: String,
    /// Who says so.
    pub evidence: String,
    /// What of it the source does not print.
    pub derived: Option<String>,
    /// Why it is not reproduced, where it is not.
    pub open: Option<String>,
}

#[derive(Deserialize)]
struct File {
    probe: Vec<Row>,
}

/// Every row.
pub static ROWS: LazyLock<Vec<Row>> =
    LazyLock::new(|| toml::from_str::<File>(TEXT).expect("invariant: the file is read by a test").probe);

/// The numbers of a list: `1, -0, inf, nan, 0x7c00`, `v x16`, `(a, b) x16`, `bytes`, `bytes/255`.
fn numbers(list: &str) -> Result<Vec<f16>, String> {
    let (mut all, mut rest) = (Vec::new(), list.trim());
    while !rest.is_empty() {
        let end = match rest.strip_prefix('(') {
            Some(inside) => {
                inside.find(')').map(|at| at + 2).ok_or_else(|| format!("`{list}` has no `)`"))?
            }
            None => 0,
        };
        let comma = rest[end..].find(',').map_or(rest.len(), |at| end + at);
        let (item, next) = rest.split_at(comma);
        let (value, times) = match item.rsplit_once(" x") {
            Some((value, times)) => (value, times.parse().map_err(|e| format!("`{item}`: {e}"))?),
            None => (item, 1),
        };
        let one = match value.trim().strip_prefix('(') {
            Some(inside) => numbers(inside.trim_end().trim_end_matches(')'))?,
            None => number(value.trim())?,
        };
        all.extend(one.iter().copied().cycle().take(one.len() * times));
        rest = next.trim_start_matches(',').trim();
    }
    Ok(all)
}

fn number(text: &str) -> Result<Vec<f16>, String> {
    let bytes = || 0..=255u8;
    match text {
        "bytes" => return Ok(bytes().map(|b| f16::from_f64(f64::from(b))).collect()),
        "bytes/255" => return Ok(bytes().map(|b| f16::from_f64(f64::from(b) / 255.0)).collect()),
        _ => {}
    }
    if let Some(bits) = text.strip_prefix("0x") {
        return u16::from_str_radix(bits, 16)
            .map(|bits| vec![f16::from_bits(bits)])
            .map_err(|e| format!("{text}: {e}"));
    }
    text.parse::<f64>().map(|value| vec![f16::from_f64(value)]).map_err(|e| format!("`{text}`: {e}"))
}

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).expect("invariant: rows have valid shapes")
}

fn tensor(dims: &[usize], values: &[f16]) -> Tensor {
    Tensor::from_slice(shape(dims), values).expect("invariant: one value per element")
}

impl Row {
    /// The families that it holds for, of those that run programs.
    pub fn families(&self) -> Vec<Family> {
        let named = |name: &String| crate::target::family_of(name);
        self.families.iter().filter_map(named).filter(|family| family.runs_mil()).collect()
    }

    /// What it says, in a line.
    pub fn says(&self) -> String {
        format!(
            "{}({}) is {} ({}, {})",
            self.op,
            self.inputs.join("; "),
            self.expected,
            self.chip,
            self.evidence
        )
    }

    /// What may come out.
    pub fn expected(&self) -> Result<Vec<Vec<f16>>, String> {
        self.expected.split('|').map(numbers).collect()
    }

    /// The graph that asks for it, and what to feed.
    fn graph(&self) -> Result<(Var, Vec<Tensor>), String> {
        let inputs: Vec<Vec<f16>> = self.inputs.iter().map(|list| numbers(list)).collect::<Result<_, _>>()?;
        let first = inputs.first().ok_or("no input")?;
        let second = || inputs.get(1).ok_or("one input of two");
        let n = first.len();
        let vector = || (Var::input(shape(&[n])), vec![tensor(&[n], first)]);
        let of = |make: fn(&Var) -> Var| {
            let (x, feeds) = vector();
            (make(&x), feeds)
        };
        let pair = |make: fn(&Var, &Var) -> Var| -> Result<(Var, Vec<Tensor>), String> {
            let (y, other) = (Var::input(shape(&[n])), second()?);
            let (x, mut feeds) = vector();
            feeds.push(tensor(&[n], other));
            Ok((make(&x, &y), feeds))
        };
        Ok(match self.op.as_str() {
            "dot_ones" => linear(first, &vec![f16::ONE; n]),
            "linear" => linear(first, second()?),
            "conv" => {
                let weight = Var::constant(tensor(&[1, n, 1, 1], second()?));
                let op = Conv { strides: [1, 1], pad: [0; 4], dilations: [1, 1], groups: 1 };
                let x = Var::input(shape(&[1, n, 1, 1]));
                (x.conv(op, &weight, None), vec![tensor(&[1, n, 1, 1], first)])
            }
            "lut4" => lut4(first, second()?)?,
            "int8" => int8(first)?,
            "reduce_sum" => of(|x| x.sum(&[0])),
            "slice_n" => slice(0, 1, first),
            "slice_c" => slice(1, 1, first),
            "slice_h" => slice(2, 1, first),
            "slice_w" => slice(3, 1, first),
            "slice_w0" => slice(3, 0, first),
            "softmax" => of(|x| x.softmax(-1)),
            "add0" => of(|x| x.adds(0.0)),
            "mul1" => of(|x| x.muls(1.0)),
            "square" => of(Var::square),
            "exp" => of(Var::exp),
            "relu" => of(Var::relu),
            "sigmoid" => of(Var::sigmoid),
            "tanh" => of(Var::tanh),
            "erf" => of(Var::erf),
            "gelu" => of(Var::gelu),
            "silu" => of(Var::silu),
            "sqrt" => of(Var::sqrt),
            "softsign" => of(Var::softsign),
            "native_softplus" => of(Var::native_softplus),
            "native_round" => of(Var::native_round),
            "log" => of(|x| x.log(0.0)),
            "rsqrt" => of(|x| x.rsqrt(0.0)),
            "reciprocal" => of(|x| x.inverse(0.0)),
            "maximum" => pair(Var::maximum)?,
            "sub" => pair(|x, y| x - y)?,
            "mul" => pair(|x, y| x * y)?,
            other => return Err(format!("no graph asks for `{other}`")),
        })
    }

    /// What comes out on a device, of a program that is compiled for a chip.
    pub fn run(&self, device: &Arc<dyn Device>, target: Target) -> Result<Vec<f16>, String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let (output, feeds) = self.graph()?;
        let options = CompileOptions::target(target).routes(Routes::Native);
        let plan = compile(&[output], &options).map_err(|e| told(&e))?;
        let mut session = Session::new(plan, device).map_err(|e| told(&e))?;
        session.run(&feeds).map_err(|e| told(&e))?;
        Ok(session.output(0).to_vec())
    }

    /// Whether it is so on a device; of a family that it is not known of, what is.
    pub fn probe(&self, bench: &Bench) -> Result<Outcome, String> {
        if let Some(open) = &self.open {
            return Err(open.clone());
        }
        let bits = |values: &[f16]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let got = self.run(&bench.device, bench.target)?;
        let is = self.expected()?.iter().any(|want| bits(want) == bits(&got));
        let values: Vec<String> =
            got.iter().take(SHOWN).map(|v| format!("{v} ({:#06x})", v.to_bits())).collect();
        let found = format!("{}{}", values.join(", "), if got.len() > SHOWN { ", ..." } else { "" });
        if !self.families().contains(&bench.target.family()) {
            let same = if is { "as" } else { "other than" };
            return Ok(Outcome::measured(format!("{found}: {same} on {}, of which it is known", self.chip)));
        }
        if !is && bench.device.title() == STANDS_IN {
            let host: Arc<dyn Device> =
                host::shared_with(&HostOptions::default()).map_err(|error| error.to_string())?;
            if bits(&self.run(&host, bench.target)?) == bits(&got) {
                return Err(
                    "what stands in for the engine follows only what is free, as the host does".into()
                );
            }
        }
        Ok(Outcome::is(is, found))
    }
}

/// Values of a result that are shown.
const SHOWN: usize = 8;

/// `v @ w`.
fn linear(v: &[f16], w: &[f16]) -> (Var, Vec<Tensor>) {
    let x = Var::input(shape(&[1, v.len()]));
    let weight = Var::constant(tensor(&[1, w.len()], w));
    (x.linear(&weight, None), vec![tensor(&[1, v.len()], v)])
}

/// The values, behind a zero of which the slice begins `begin` elements further on.
fn slice(axis: usize, begin: usize, values: &[f16]) -> (Var, Vec<Tensor>) {
    let (mut dims, mut size, mut at) = ([1; 4], [1; 4], [0; 4]);
    (dims[axis], size[axis], at[axis]) = (values.len() + 1, values.len(), begin);
    let zero = [f16::ZERO];
    let fed = if begin == 0 { [values, &zero].concat() } else { [&zero[..], values].concat() };
    (Var::input(shape(&dims)).slice_by_size(&at, &size), vec![tensor(&dims, &fed)])
}

/// Entries of a table, chosen by four bits each, through a product by one.
fn lut4(table: &[f16], indices: &[f16]) -> Result<(Var, Vec<Tensor>), String> {
    let nibble = |v: &f16| v.to_f32() as u8;
    let bytes: Vec<u8> = indices
        .chunks(2)
        .map(|pair| nibble(&pair[0]) | nibble(pair.get(1).unwrap_or(&f16::ZERO)) << 4)
        .collect();
    let packed = Tensor::from_slice(shape(&[bytes.len()]), &bytes).map_err(|e| e.to_string())?;
    let weight = Lut4Weight::new(shape(&[indices.len(), 1]), packed, tensor(&[16], table));
    let weight = Var::constant(aneforge_tensor::Weight::from(weight.map_err(|e| e.to_string())?));
    Ok((Var::input(shape(&[1, 1])).linear(&weight, None), vec![tensor(&[1, 1], &[f16::ONE])]))
}

/// Rows of one value, by a weight of one in eight bits.
fn int8(values: &[f16]) -> Result<(Var, Vec<Tensor>), String> {
    let told = |e: &dyn std::fmt::Display| e.to_string();
    let codes = Tensor::from_slice(shape(&[1, 1]), &[1i8]).map_err(|e| told(&e))?;
    let weight = Int8Weight::new(codes, tensor(&[1], &[f16::ONE])).map_err(|e| told(&e))?;
    let dims = [values.len(), 1];
    let weight = Var::constant(aneforge_tensor::Weight::from(weight));
    Ok((Var::input(shape(&dims)).linear(&weight, None), vec![tensor(&dims, values)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_numbers() {
        let bits = |list: &str| numbers(list).unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits("1, -0, inf, 0x7c01"), [0x3c00, 0x8000, 0x7c00, 0x7c01]);
        assert_eq!(bits("2 x3, 0x0001 x2"), [0x4000, 0x4000, 0x4000, 1, 1]);
        assert_eq!(bits("4, (1, -1) x2, 0.25"), [0x4400, 0x3c00, 0xbc00, 0x3c00, 0xbc00, 0x3400]);
        assert!(numbers("nan").unwrap()[0].is_nan());
        assert_eq!((bits("bytes").len(), bits("bytes/255")[255]), (256, 0x3c00));
        for bad in ["1 xq", "(1, 2 x3", "one", "0xzz"] {
            assert!(numbers(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rows_are_told_apart_and_whole() {
        assert!(ROWS.len() >= 70);
        for row in ROWS.iter() {
            assert_eq!(ROWS.iter().filter(|other| other.id == row.id).count(), 1, "{}", row.id);
            assert!(!row.evidence.is_empty() && !row.chip.is_empty() && !row.tag.is_empty());
            if row.open.is_none() {
                assert_eq!(row.families().len(), row.families.len(), "{}", row.id);
                row.expected().unwrap_or_else(|why| panic!("{}: {why}", row.id));
                row.graph().unwrap_or_else(|why| panic!("{}: {why}", row.id));
            }
        }
    }
}
