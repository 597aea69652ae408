//! Property lists: the value tree, and its XML form.

use std::fmt;

/// A value of a property list.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `<integer>`.
    Int(i64),
    /// `<real>`.
    Real(f64),
    /// `<true/>` or `<false/>`.
    Bool(bool),
    /// `<string>`.
    Str(String),
    /// `<array>`.
    Array(Vec<Value>),
    /// `<dict>`, printed with its keys in alphabetical order.
    Dict(Vec<(String, Value)>),
}

impl Value {
    /// A dictionary.
    pub fn dict<K: Into<String>>(entries: impl IntoIterator<Item = (K, Value)>) -> Value {
        Value::Dict(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }

    /// An array of strings.
    pub fn strings<S: Into<String>>(items: impl IntoIterator<Item = S>) -> Value {
        Value::Array(items.into_iter().map(|item| Value::Str(item.into())).collect())
    }

    /// The value of a key, if this is a dictionary that has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Value::Dict(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    fn write(&self, depth: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let indent = "\t".repeat(depth);
        match self {
            Value::Int(value) => writeln!(f, "{indent}<integer>{value}</integer>"),
            // `{:?}` is the shortest text that reads back as the same double, and always has a point.
            Value::Real(value) => writeln!(f, "{indent}<real>{value:?}</real>"),
            Value::Bool(value) => writeln!(f, "{indent}<{value}/>"),
            Value::Str(text) => writeln!(f, "{indent}<string>{}</string>", escaped(text)),
            Value::Array(items) if items.is_empty() => writeln!(f, "{indent}<array/>"),
            Value::Array(items) => {
                writeln!(f, "{indent}<array>")?;
                items.iter().try_for_each(|item| item.write(depth + 1, f))?;
                writeln!(f, "{indent}</array>")
            }
            Value::Dict(entries) if entries.is_empty() => writeln!(f, "{indent}<dict/>"),
            Value::Dict(entries) => {
                let mut sorted: Vec<_> = entries.iter().collect();
                sorted.sort_by(|a, b| a.0.cmp(&b.0));
                writeln!(f, "{indent}<dict>")?;
                for (key, value) in sorted {
                    writeln!(f, "{indent}\t<key>{}</key>", escaped(key))?;
                    value.write(depth + 1, f)?;
                }
                writeln!(f, "{indent}</dict>")
            }
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const HEADER: &str = concat!(
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n",
    "<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" ",
    "\"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n",
);

/// The whole document, as XML.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}<plist version=\"1.0\">")?;
        self.write(0, f)?;
        f.write_str("</plist>\n")
    }
}

macro_rules! from {
    ($($ty:ty => |$v:ident| $value:expr;)*) => { $(
        impl From<$ty> for Value { fn from($v: $ty) -> Value { $value } }
    )* };
}
from! {
    i64 => |v| Value::Int(v);
    usize => |v| Value::Int(i64::try_from(v).expect("invariant: extents fit 63 bits"));
    f64 => |v| Value::Real(v);
    bool => |v| Value::Bool(v);
    &str => |v| Value::Str(v.into());
    String => |v| Value::Str(v);
    Vec<Value> => |v| Value::Array(v);
}
