//! Why functions of elements are a step of their own, though a step before could have computed them: for those who look
//! at a plan.

use crate::device::host::plan::Apart;
use crate::device::host::planner::{Draft, Planner};
use crate::ir::form::{Form, Product};
use aneforge_kernels::map::Binary;

impl Planner<'_> {
    /// Why a draft of functions of elements is no part of the last step that it waits for; `writer` is the draft that
    /// writes a node's value.
    pub(super) fn apart(&self, draft: &Draft, drafts: &[Draft], writer: &[Option<usize>]) -> Option<Apart> {
        draft.links.first()?;
        let written = |input| Some((writer[self.root(input).index()]?, input));
        let (step, input) = draft.inputs.iter().filter_map(|&input| written(input)).max()?;
        let before = &drafts[step];
        let why = if input != before.last {
            "it reads a view of the result"
        } else {
            match self.readers(input) {
                None => "the result is returned",
                Some(readers) if !readers.iter().all(|reader| draft.links.contains(reader)) => {
                    "others read the result too"
                }
                Some(_) => self.why_apart(before, draft),
            }
        };
        Some(Apart { step, why })
    }

    /// The same, where the draft alone reads the result of the one before.
    fn why_apart(&self, before: &Draft, draft: &Draft) -> &'static str {
        if !before.links.is_empty() {
            let alike = self.ty(before.last).shape == self.ty(draft.last).shape;
            return if alike { "together they are too long" } else { "the shapes differ" };
        }
        let form = self.form(before.node);
        if !self.takes_more(before) {
            return "its kernel computes nothing else";
        }
        match self.form(draft.links[0]) {
            _ if before.fused.activation.is_some() => "it computes one function already",
            Form::Zip(Binary::Add) if *form == Form::Product(Product::Batched) => {
                "a product of two values takes no summand"
            }
            Form::Zip(Binary::Add) => "what is added is neither a bias nor there before it in its shape",
            _ => "only a sum or a function of one value joins a product",
        }
    }
}
