//! One example per op, in Python, made from the op's first case and from how its page says that Python spells it.

use super::python_ops::{is_by_hand, is_function};
use aneforge::DType;
use aneforge::ir::attr::Attr;
use aneforge::ir::op::{Case, Entry, Info};

/// Lines of an example that ends in a tensor called `out`; `None` for ops that compiling alone makes.
pub fn example(entry: &Entry) -> Option<Vec<String>> {
    let name = entry.info.name;
    match name {
        "input" => return Some(vec!["out = af.input((1, 4))".into()]),
        "const_array" => return Some(vec!["out = af.input((2, 2)) + np.eye(2)".into()]),
        _ => {}
    }
    let case = (entry.cases)().into_iter().next()?;
    let call = match entry.info.python() {
        Some(call) => call.to_owned(),
        None if is_by_hand(entry) => return None,
        None => made(entry, &case),
    };
    let mut lines: Vec<String> = Vec::new();
    for (i, ty) in case.inputs.iter().enumerate() {
        let Some(input) = input_name(&entry.info, i).filter(|input| mentions(&call, input)) else { continue };
        let shape = tuple(ty.shape.dims());
        let line = match ty.dtype {
            DType::Bool => format!("{input} = af.input({shape}).greater(af.input({shape}))"),
            DType::U8 => format!("{input} = af.input({shape}, \"uint8\")"),
            _ if i >= case.constants_from => format!("{input} = np.ones({shape})"),
            _ => format!("{input} = af.input({shape})"),
        };
        lines.push(line);
    }
    lines.push(format!("out = {call}"));
    Some(lines)
}

fn input_name(info: &Info, index: usize) -> Option<&'static str> {
    info.inputs.get(index).map(|name| name.trim_end_matches(['?', '.']))
}

/// Whether a call has `name` as a word of its own.
fn mentions(call: &str, name: &str) -> bool {
    call.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
}

/// A call of the method or function that is generated from the declaration.
fn made(entry: &Entry, case: &Case) -> String {
    let name = entry.info.method;
    let attrs: Vec<String> = case.op.attrs().iter().map(|(k, v)| format!("{k}={}", python(v))).collect();
    if !is_function(entry) {
        return format!("x.{name}({})", attrs.join(", "));
    }
    let inputs = (0..entry.info.inputs.len()).filter_map(|i| input_name(&entry.info, i)).map(str::to_owned);
    format!("af.{name}({})", inputs.chain(attrs).collect::<Vec<_>>().join(", "))
}

fn python(attr: &Attr) -> String {
    match attr {
        Attr::Bool(true) => "True".into(),
        Attr::Bool(false) => "False".into(),
        Attr::Ints(v) => tuple(&v.iter().map(|&i| i as isize).collect::<Vec<_>>()),
        other => other.to_string(),
    }
}

fn tuple<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(T::to_string).collect();
    let comma = if items.len() == 1 { "," } else { "" };
    format!("({}{comma})", items.join(", "))
}
