use aneforge_tensor::DType;
use std::fmt;
use std::hash::{Hash, Hasher};

/// An attribute's value: the one spelling that graph text, MIL, Python and the docs share.
#[derive(Clone, Debug, PartialEq)]
pub enum Attr {
    /// An integer, `3`.
    Int(i64),
    /// A real number, `0.5`.
    Real(f64),
    /// `true` or `false`.
    Bool(bool),
    /// A word, `"fp16"`.
    Str(String),
    /// A list of integers, `[0, 2, 1]`.
    Ints(Vec<i64>),
}

impl Attr {
    /// An integer in it that does not fit 32 bits.
    pub fn beyond_32_bits(&self) -> Option<i64> {
        let values = match self {
            Attr::Int(value) => std::slice::from_ref(value),
            Attr::Ints(values) => values,
            _ => &[],
        };
        values.iter().copied().find(|&v| i32::try_from(v).is_err())
    }
}

impl fmt::Display for Attr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attr::Int(i) => write!(f, "{i}"),
            Attr::Real(x) => write!(f, "{x:?}"),
            Attr::Bool(b) => write!(f, "{b}"),
            Attr::Str(s) => write!(f, "{s:?}"),
            Attr::Ints(v) => write!(f, "{v:?}"),
        }
    }
}

/// A real attribute. Two are equal when their bits are, so that ops can be compared and hashed.
#[derive(Clone, Copy, Debug)]
pub struct Real(pub f64);

impl PartialEq for Real {
    fn eq(&self, other: &Real) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}
impl Eq for Real {}
impl Hash for Real {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

/// The magnitude from which a real rounds to infinity in half precision.
pub const F16_OVERFLOW: f64 = 65520.0;

impl Real {
    /// Whether half precision can hold the value: a MIL scalar must be finite.
    pub fn check(self) -> Result<(), String> {
        if self.0.abs() < F16_OVERFLOW {
            return Ok(());
        }
        // Every digit of what may have been typed in full, as 2 to the power of 64; not the 300 of 1e300.
        let value = match self.0 {
            v if v.fract() == 0.0 && v.abs() < 1e21 => format!("{v:.0}"),
            v => format!("{v:?}"),
        };
        Err(format!("scalar {value} does not fit half precision (largest magnitude 65504); rescale first"))
    }
}

/// A Rust type that an attribute may have.
pub trait AttrValue: Sized {
    /// The type's name in the reference pages.
    const TYPE: &'static str;
    /// As an attribute.
    fn to_attr(&self) -> Attr;
    /// From an attribute, `None` when it is of another kind.
    fn from_attr(attr: &Attr) -> Option<Self>;
}

macro_rules! attr_values {
    ($($ty:ty, $name:literal: |$v:ident| $to:expr, $pattern:pat => $from:expr;)*) => { $(
        impl AttrValue for $ty {
            const TYPE: &'static str = $name;
            fn to_attr(&self) -> Attr { let $v = self; $to }
            fn from_attr(attr: &Attr) -> Option<Self> { match attr { $pattern => $from, _ => None } }
        }
    )* };
}
attr_values! {
    i64, "int": |v| Attr::Int(*v), Attr::Int(i) => Some(*i);
    u64, "int": |v| Attr::Int(*v as i64), Attr::Int(i) => u64::try_from(*i).ok();
    bool, "bool": |v| Attr::Bool(*v), Attr::Bool(b) => Some(*b);
    String, "str": |v| Attr::Str(v.clone()), Attr::Str(s) => Some(s.clone());
    Vec<i64>, "ints": |v| Attr::Ints(v.clone()), Attr::Ints(v) => Some(v.clone());
    [i64; 2], "ints": |v| Attr::Ints(v.to_vec()), Attr::Ints(v) => v.as_slice().try_into().ok();
    [i64; 4], "ints": |v| Attr::Ints(v.to_vec()), Attr::Ints(v) => v.as_slice().try_into().ok();
    DType, "dtype": |v| Attr::Str(v.name().into()), Attr::Str(s) => DType::from_name(s);
}

impl AttrValue for Real {
    const TYPE: &'static str = "float";
    fn to_attr(&self) -> Attr {
        Attr::Real(self.0)
    }
    fn from_attr(attr: &Attr) -> Option<Real> {
        match attr {
            Attr::Real(x) => Some(Real(*x)),
            Attr::Int(i) => Some(Real(*i as f64)),
            _ => None,
        }
    }
}
