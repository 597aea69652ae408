//! How encoded weights are written in MIL: the table that emits them and reads them back.

use aneforge_mil::{self as mil, Arg, Literal, Port, Stmt, Type};
use aneforge_tensor::{Encoding, Weight};

/// How an encoding is written: constants of its parts, in the order of [`Encoding::parts`], and a statement of them.
pub(crate) struct Spelling {
    encoding: Encoding,
    /// The statement's op.
    pub(crate) op: &'static str,
    /// What its parts are.
    pub(crate) parts: [Part; 2],
}

/// A part in a statement.
pub(crate) struct Part {
    /// The name of its argument, or of its attribute for bytes with a scale per row.
    pub(crate) argument: &'static str,
    /// The element type of its record.
    pub(crate) dtype: mil::DType,
    /// What the name of its constant ends with.
    suffix: &'static str,
}

const fn part(argument: &'static str, dtype: mil::DType, suffix: &'static str) -> Part {
    Part { argument, dtype, suffix }
}

/// As emitted by ANEForge 0.4.0 and accepted on device (reference).
pub(crate) const SPELLINGS: [Spelling; 4] = {
    use mil::DType::{Fp16, Int8, Uint1, Uint4};
    [
        Spelling {
            encoding: Encoding::Int8,
            op: "constexpr_affine_dequantize",
            parts: [part("quantized_data", Int8, ""), part("scale", Fp16, "")],
        },
        Spelling {
            encoding: Encoding::Lut4,
            op: "constexpr_lut_to_dense",
            parts: [part("indices", Uint4, "idx"), part("lut", Fp16, "lut")],
        },
        Spelling {
            encoding: Encoding::Sparse,
            op: "constexpr_sparse_to_dense",
            parts: [part("mask", Uint1, "mask"), part("nonzero_data", Fp16, "nz")],
        },
        Spelling {
            encoding: Encoding::Blockwise,
            op: "constexpr_blockwise_shift_scale",
            parts: [part("data", Int8, "d"), part("scale", Fp16, "sc")],
        },
    ]
};

impl Spelling {
    /// That of an encoded weight.
    pub(super) fn of(weight: &Weight) -> Option<&'static Spelling> {
        SPELLINGS.iter().find(|spelling| spelling.encoding == weight.encoding())
    }

    /// The encoding.
    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The extents that a part of `weight` is declared with.
    pub(super) fn extents(&self, weight: &Weight, part: usize) -> Vec<u64> {
        let shape = weight.shape();
        match (weight, part) {
            (Weight::Lut4(_), 1) => [vec![1; shape.rank()], vec![16, 1]].concat(),
            (_, 0) => shape.dims().iter().map(|&d| d as u64).collect(),
            _ => weight.parts()[part].shape().dims().iter().map(|&d| d as u64).collect(),
        }
    }

    /// The statements that make the weight called `name` of its parts.
    pub(super) fn statements(&self, name: &str, ty: Type, parts: [Literal; 2]) -> Vec<Stmt> {
        if self.encoding == Encoding::Int8 {
            return vec![self.dequantized(name, ty, parts)];
        }
        let names = self.parts.each_ref().map(|part| format!("{name}_{}", part.suffix));
        let constants = names.iter().zip(parts).map(|(name, value)| Stmt::constant(name, value.ty(), value));
        let mut body: Vec<Stmt> = constants.collect();
        let mut args = [0, 1].map(|at| (self.parts[at].argument, Arg::Name(names[at].clone())));
        if self.encoding == Encoding::Sparse {
            args.reverse();
        }
        if self.encoding != Encoding::Blockwise {
            body.push(Stmt::op(Port::new(name, ty), self.op, args));
            return body;
        }
        // The compiler takes the scaled blocks into elementwise ops only.
        let [blocks, zero] = [format!("{name}_bw"), format!("{name}_bz")];
        let value = Literal::fp16(0.0).expect("invariant: zero is finite");
        body.push(Stmt::op(Port::new(blocks.clone(), ty.clone()), self.op, args));
        body.push(Stmt::constant(zero.clone(), value.ty(), value));
        let sum = [("x", Arg::Name(blocks)), ("y", Arg::Name(zero))];
        body.push(Stmt::op(Port::new(name, ty), "add", sum));
        body
    }

    /// The statement whose parts are attributes.
    fn dequantized(&self, name: &str, ty: Type, [codes, scales]: [Literal; 2]) -> Stmt {
        let mut stmt = Stmt::op::<&str>(Port::new(name, ty), self.op, []);
        let [data, scale] = self.parts.each_ref().map(|part| part.argument.to_owned());
        stmt.attrs.insert(0, ("axis".into(), Literal::int32(0)));
        stmt.attrs.push((data, codes));
        stmt.attrs.push((scale, scales));
        stmt.attrs.push(("zero_point".into(), Literal::int8(0)));
        stmt
    }
}
