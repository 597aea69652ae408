//! Which tensors of a file are a model's, by name.

use super::Described;
use super::error::Fault;
use super::pickle::{Root, Value};
use std::collections::BTreeMap;

/// What training programs call the weights among the rest of what they keep; the first that is there.
const NAMES: &[&str] =
    &["state_dict", "model_state_dict", "model", "net", "params", "state_dict_ema", "module"];

/// What `DistributedDataParallel` and `torch.compile` put before all names of the network that they wrap.
const WRAPPERS: &[&str] = &["module.", "_orig_mod."];

/// How many names a message lists.
const SAID: usize = 8;

/// The tensors of a dictionary, or of the one in it that holds a model's weights.
pub(super) fn tensors(root: &Root) -> Result<BTreeMap<String, Described>, Fault> {
    let Value::Dict(dict) = root.value else {
        return Err(Fault::NoState("it holds no dictionary of tensors by name".into()));
    };
    let found = direct(root, dict);
    if !found.is_empty() {
        return Ok(found);
    }
    // A dictionary may be there under many names, and is looked at once.
    let mut holds = BTreeMap::new();
    let mut inner: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, value) in root.entries(dict) {
        let Value::Dict(set) = *value else { continue };
        let any = || root.entries(set).any(|(_, value)| matches!(value, Value::Tensor(_)));
        if *holds.entry(set).or_insert_with(any) {
            inner.insert(name, set);
        }
    }
    let known = NAMES.iter().find_map(|name| inner.get(name));
    match (known, inner.values().next(), inner.len()) {
        (Some(&set), ..) | (None, Some(&set), 1) => Ok(direct(root, set)),
        (None, None, _) => Err(Fault::NoState("it holds no tensors by name".into())),
        (None, Some(_), count) => {
            let names: Vec<&str> = inner.keys().copied().take(SAID).collect();
            let more = if count > SAID { ", ..." } else { "" };
            Err(Fault::NoState(format!("it holds {count} sets of tensors: {}{more}", names.join(", "))))
        }
    }
}

/// The tensors that a dictionary holds itself.
fn direct(root: &Root, dict: usize) -> BTreeMap<String, Described> {
    // One after the other, as many entries may have one name.
    let mut all: BTreeMap<&str, &Described> = BTreeMap::new();
    for (name, value) in root.entries(dict) {
        if let Value::Tensor(at) = value
            && let Some(tensor) = root.tensors.get(*at)
        {
            all.insert(name, tensor);
        }
    }
    let wrapped = WRAPPERS.iter().find(|before| all.keys().all(|name| name.starts_with(**before)));
    let own = |name: &str| wrapped.and_then(|before| name.strip_prefix(before)).unwrap_or(name).to_owned();
    all.into_iter().map(|(name, tensor)| (own(name), tensor.clone())).collect()
}
