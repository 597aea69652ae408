//! Which tensors of a file are a model's, by name.

use super::Described;
use super::error::Fault;
use super::pickle::{Root, Value};
use std::collections::BTreeMap;

/// What training programs call the weights among the rest of what they keep; the first that is there.
const NAMES: &[&str] =
    &["state_dict", "model_state_dict", "model", "net", "params", "state_dict_ema", "module"];

/// The tensors of a dictionary, or of the one in it that holds a model's weights.
pub(super) fn tensors(root: &Root) -> Result<BTreeMap<String, Described>, Fault> {
    let Value::Dict(dict) = root.value else {
        return Err(Fault::NoState("it holds no dictionary of tensors by name".into()));
    };
    let found = direct(root, dict);
    if !found.is_empty() {
        return Ok(found);
    }
    let inner: Vec<(String, BTreeMap<String, Described>)> = root
        .entries(dict)
        .filter_map(|(name, value)| match value {
            Value::Dict(inner) => Some((name.to_owned(), direct(root, *inner))),
            _ => None,
        })
        .filter(|(_, tensors)| !tensors.is_empty())
        .collect();
    let known = NAMES.iter().find_map(|name| inner.iter().find(|(own, _)| own == name));
    match (known, &inner[..]) {
        (Some((_, tensors)), _) | (None, [(_, tensors)]) => Ok(tensors.clone()),
        (None, []) => Err(Fault::NoState("it holds no tensors by name".into())),
        (None, several) => {
            let names: Vec<&str> = several.iter().map(|(name, _)| name.as_str()).collect();
            Err(Fault::NoState(format!("it holds several sets of tensors: {}", names.join(", "))))
        }
    }
}

/// The tensors that a dictionary holds itself.
fn direct(root: &Root, dict: usize) -> BTreeMap<String, Described> {
    let tensor = |(name, value): (&str, &Value)| match value {
        Value::Tensor(at) => root.tensors.get(*at).map(|tensor| (name.to_owned(), tensor.clone())),
        _ => None,
    };
    root.entries(dict).filter_map(tensor).collect()
}
