//! The one printer: how a program is spelled.
//!
//! White space means nothing to the compiler and both tight and loose spellings are accepted (reference), so
//! there is one style: a space around `=`, a space after `,`, one statement per line.

use std::fmt::{self, Display, Formatter, Write as _};

use half::f16;

use crate::program::{
    Arg, DType, Function, Literal, PROGRAM_VERSION, Port, Program, Stmt, TensorValue, Type,
};

impl Display for Program {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "program({PROGRAM_VERSION})")?;
        f.write_str("[buildInfo = dict<string, string>({")?;
        list(f, &self.build_info, |f, (key, value)| write!(f, "{{{}, {}}}", Quoted(key), Quoted(value)))?;
        f.write_str("})]\n{\n")?;
        for function in &self.functions {
            writeln!(f, "{function}")?;
        }
        f.write_str("}\n")
    }
}

impl Display for Function {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "    func {}<{}>(", self.name, self.opset)?;
        list(f, &self.params, |f, port| write!(f, "{port}"))?;
        f.write_str(") {\n")?;
        for stmt in &self.body {
            writeln!(f, "        {stmt}")?;
        }
        f.write_str("    } -> (")?;
        list(f, &self.returns, |f, name| f.write_str(name))?;
        f.write_str(");")
    }
}

impl Display for Stmt {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        list(f, &self.results, |f, port| write!(f, "{port}"))?;
        write!(f, " = {}(", self.op)?;
        list(f, &self.args, |f, (name, arg)| write!(f, "{name} = {arg}"))?;
        f.write_str(")[")?;
        list(f, &self.attrs, |f, (name, value)| write!(f, "{name} = {value}"))?;
        f.write_str("];")
    }
}

impl Display for Port {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.ty, self.name)
    }
}

impl Display for DType {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Display for Type {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Type::Scalar(dtype) => write!(f, "{dtype}"),
            Type::Tensor { dtype, shape } => tensor_type(f, *dtype, shape),
        }
    }
}

impl Display for Arg {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Arg::Name(name) => f.write_str(name),
            Arg::Literal(literal) => write!(f, "{literal}"),
            Arg::Tuple(names) => {
                f.write_char('(')?;
                list(f, names, |f, name| f.write_str(name))?;
                f.write_char(')')
            }
        }
    }
}

impl Display for Literal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Literal::Fp16(value) => write!(f, "fp16({})", HexFloat(*value)),
            Literal::Fp32(value) => {
                // Without an exponent, and always with a fractional part.
                let text = value.to_string();
                let fraction = if text.contains('.') || !value.is_finite() { "" } else { ".0" };
                write!(f, "fp32({text}{fraction})")
            }
            Literal::Int { dtype, value } => write!(f, "{dtype}({value})"),
            Literal::Bool(value) => write!(f, "bool({value})"),
            Literal::String(value) => write!(f, "string({})", Quoted(value)),
            Literal::Tensor { dtype, shape, value } => {
                tensor_type(f, *dtype, shape)?;
                f.write_char('(')?;
                match value {
                    TensorValue::Ints(values) => {
                        f.write_char('[')?;
                        list(f, values, |f, v| write!(f, "{v}"))?;
                        f.write_char(']')?;
                    }
                    TensorValue::Fp16Bits(bits) => nested(f, shape, bits)?,
                    TensorValue::Blob { path, offset } => {
                        write!(f, "BLOBFILE(path = string({}), offset = uint64({offset}))", Quoted(path))?;
                    }
                }
                f.write_char(')')
            }
        }
    }
}

fn tensor_type(f: &mut Formatter<'_>, dtype: DType, shape: &[u64]) -> fmt::Result {
    write!(f, "tensor<{dtype}, [")?;
    list(f, shape, |f, dim| write!(f, "{dim}"))?;
    f.write_str("]>")
}

fn list<T>(
    f: &mut Formatter<'_>,
    items: &[T],
    mut item: impl FnMut(&mut Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (i, value) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        item(f, value)?;
    }
    Ok(())
}

/// Bit patterns as lists nested to the depth of the shape; a bare pattern at rank 0.
fn nested(f: &mut Formatter<'_>, shape: &[u64], bits: &[u16]) -> fmt::Result {
    if bits.is_empty() {
        return f.write_str("[]");
    }
    // A list of each depth spans this many elements; it opens and closes at multiples of the span.
    let mut spans: Vec<u64> = Vec::with_capacity(shape.len());
    let mut span = 1u64;
    for &dim in shape.iter().rev() {
        span = span.saturating_mul(dim.max(1));
        spans.push(span);
    }
    for (i, pattern) in (0u64..).zip(bits) {
        if i > 0 {
            f.write_str(", ")?;
        }
        for _ in spans.iter().filter(|&&span| i.is_multiple_of(span)) {
            f.write_char('[')?;
        }
        write!(f, "{pattern:#06x}")?;
        for _ in spans.iter().filter(|&&span| (i + 1).is_multiple_of(span)) {
            f.write_char(']')?;
        }
    }
    Ok(())
}

/// A string in double quotes.
///
/// The reference shows no string that needs an escape; the backslash keeps the text readable back, and
/// [`mod@crate::verify`] refuses such strings before they reach a compiler.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                _ => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

/// The C99 hexadecimal spelling of an fp16 number, widened to f64: 13 mantissa digits, signed exponent.
///
/// Subnormal fp16 numbers are normal as f64, so the leading digit of a number other than zero is 1.
struct HexFloat(f16);

impl Display for HexFloat {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let value = self.0.to_f64();
        let sign = if value.is_sign_negative() { "-" } else { "" };
        if value == 0.0 {
            return write!(f, "{sign}0x0.0p+0");
        }
        if !value.is_finite() {
            return write!(f, "{value}");
        }
        let bits = value.to_bits();
        let mantissa = bits & ((1 << 52) - 1);
        let exponent = ((bits >> 52) & 0x7ff) as i32 - 1023;
        write!(f, "{sign}0x1.{mantissa:013x}p{exponent:+}")
    }
}
