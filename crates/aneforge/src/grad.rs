//! Reverse-mode differentiation: gradients are graph, written in the users' own API.

use crate::ir::op::{Grad, Op};
use crate::ir::var::Var;
use std::collections::{HashMap, HashSet};

/// A value cannot be differentiated. The caller's fault, or a rule this project lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GradError {
    /// An op between the result and a leaf has no rule.
    #[error("{op} (at {at}) has no gradient: {why}")]
    NoRule {
        /// The op.
        op: &'static str,
        /// Where it was built.
        at: crate::ir::types::Caller,
        /// What to do instead.
        why: &'static str,
    },
    /// The result does not depend on a leaf in a way that has a gradient.
    #[error("the result does not depend on value {index} of those asked for")]
    Independent {
        /// Which one.
        index: usize,
    },
    /// The cotangent is not of the result's shape.
    #[error("the cotangent is {got}, the result {want}; they must have the same shape")]
    Shape {
        /// The result's shape.
        want: Box<aneforge_tensor::Shape>,
        /// The cotangent's.
        got: Box<aneforge_tensor::Shape>,
    },
}

/// The cotangents of `wrt`, given that of `y`.
///
/// ```
/// use aneforge::{Shape, Var, grad};
/// let x = Var::input(Shape::new(&[4])?);
/// let dy = Var::full(Shape::new(&[4])?, 1.0);
/// let dx = grad::grad(&(&x * &x), &dy, &[x.clone()])?;
/// assert_eq!(dx[0].check()?.shape, x.shape());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn grad(y: &Var, dy: &Var, wrt: &[Var]) -> Result<Vec<Var>, GradError> {
    if y.shape() != dy.shape() {
        return Err(GradError::Shape { want: Box::new(y.shape()), got: Box::new(dy.shape()) });
    }
    let found = walk(y, dy, wrt)?;
    found.into_iter().enumerate().map(|(index, g)| g.ok_or(GradError::Independent { index })).collect()
}

/// The cotangents of `wrt` as an op's own gradient: none is zero, and a missing rule stays one.
pub(crate) fn pull_back(y: &Var, dy: &Var, wrt: &[Var]) -> Vec<Grad> {
    match walk(y, dy, wrt) {
        Ok(found) => found.into_iter().map(|g| g.map_or(Grad::Zero("independent"), Grad::To)).collect(),
        Err(_) => wrt.iter().map(|_| Grad::Missing("a part of its decomposition has no rule")).collect(),
    }
}

fn walk(y: &Var, dy: &Var, wrt: &[Var]) -> Result<Vec<Option<Var>>, GradError> {
    let order = dependents(y, wrt);
    let on_path: HashSet<u64> = order.iter().map(Var::id).collect();
    let targets: HashSet<u64> = wrt.iter().map(Var::id).collect();
    let mut cotangents: HashMap<u64, Var> = HashMap::from([(y.id(), dy.clone())]);
    for var in order.iter().rev() {
        if targets.contains(&var.id()) {
            continue;
        }
        let Some(dy) = cotangents.get(&var.id()).cloned() else { continue };
        let grads = var.caller().scope(|| var.op().vjp(var.inputs(), var, &dy));
        for (x, grad) in var.inputs().iter().zip(grads) {
            if !on_path.contains(&x.id()) {
                continue;
            }
            match grad {
                Grad::To(dx) => {
                    let sum = match cotangents.get(&x.id()) {
                        Some(before) => x.caller().scope(|| before + dx),
                        None => dx,
                    };
                    cotangents.insert(x.id(), sum);
                }
                Grad::Zero(_) => {}
                Grad::Missing(why) => {
                    return Err(GradError::NoRule { op: var.op().name(), at: var.caller(), why });
                }
            }
        }
    }
    Ok(wrt.iter().map(|w| cotangents.get(&w.id()).cloned()).collect())
}

/// The nodes between `wrt` and `y`, both included, each after its inputs.
fn dependents(y: &Var, wrt: &[Var]) -> Vec<Var> {
    let targets: HashSet<u64> = wrt.iter().map(Var::id).collect();
    let mut depends: HashMap<u64, bool> = HashMap::new();
    let mut order = Vec::new();
    let mut stack = vec![(y.clone(), 0)];
    while let Some((var, next)) = stack.pop() {
        if depends.contains_key(&var.id()) {
            continue;
        }
        let is_target = targets.contains(&var.id());
        match var.inputs().get(next) {
            Some(input) if !is_target => {
                let input = input.clone();
                stack.push((var, next + 1));
                stack.push((input, 0));
            }
            _ => {
                let on_path = is_target || var.inputs().iter().any(|v| depends[&v.id()]);
                depends.insert(var.id(), on_path);
                if on_path && !matches!(var.op(), Op::Constant(_)) || is_target {
                    order.push(var);
                }
            }
        }
    }
    order
}
