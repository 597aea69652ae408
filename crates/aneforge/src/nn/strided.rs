//! Slices with a step.

use crate::ir::var::Var;

impl Var {
    /// `count` elements of an axis from `begin` on, `step` apart: a slice of a reshape, and one more where the last
    /// element ends the axis too early.
    #[track_caller]
    pub fn every(&self, axis: i64, begin: usize, step: usize, count: usize) -> Var {
        let at = match self.shape().axis(axis) {
            Ok(at) => at,
            Err(e) => return Var::poisoned("every", e.to_string()),
        };
        let extent = self.shape()[at];
        let last = count.checked_sub(1).and_then(|n| n.checked_mul(step)).and_then(|n| n.checked_add(begin));
        if step == 0 || last.is_none_or(|last| last >= extent) {
            return Var::poisoned(
                "every",
                format!(
                    "{count} elements from {begin} on, {step} apart, are not on axis {at} of {}; take at least one, \
                     at least one apart",
                    self.shape()
                ),
            );
        }
        if step == 1 || count == 1 {
            return self.window(at, begin, count);
        }
        let span = count * step;
        if span > extent {
            let (most, one) = (self.every(axis, begin, step, count - 1), (count - 1) * step + begin);
            return Var::concat(&[&most, &self.window(at, one, 1)], at as i64);
        }
        let start = begin.min(extent - span);
        let mut dims: Vec<i64> = self.shape().dims().iter().map(|&d| d as i64).collect();
        let product = |dims: &[i64]| dims.iter().product::<i64>();
        let groups = [product(&dims[..at]), count as i64, step as i64, product(&dims[at + 1..])];
        dims[at] = count as i64;
        self.window(at, start, span).reshape(&groups).window(2, begin - start, 1).reshape(&dims)
    }

    /// `size` elements of an axis, from `begin` on.
    #[track_caller]
    fn window(&self, axis: usize, begin: usize, size: usize) -> Var {
        // After a mistake there are no axes.
        match self.shape().dims().get(axis) {
            Some(&extent) if extent != size => self.narrow(axis, begin, begin + size),
            _ => self.clone(),
        }
    }
}
