//! Reverse-mode differentiation: gradients are graph, written in the users' own API.

pub use crate::ir::op::Grad;
use crate::ir::op::Op;
use crate::ir::var::{BuildError, Var};
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
    /// The result or the cotangent is mistaken.
    #[error(transparent)]
    Build(Box<BuildError>),
}

/// Rules of the caller's: of a node and its cotangent, one per input, or `None` to go by the op's own.
pub type Rules<'a> = dyn FnMut(&Var, &Var) -> Option<Vec<Grad>> + 'a;

/// What a walk back from a result found.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// A cotangent per value that was asked for, of its shape; zeros where the result does not depend on it.
    pub values: Vec<Var>,
    /// The places of those that it does not depend on.
    pub unreached: Vec<usize>,
}

/// The cotangents of `wrt`, given that of `y`. Every value must have one; [`gradients`] gives zeros instead.
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
    let found = walk(y, dy, wrt, wrt, &mut |_, _| None)?;
    found.into_iter().enumerate().map(|(index, g)| g.ok_or(GradError::Independent { index })).collect()
}

/// The cotangents of `wrt`, given that of `y`, on a walk that goes no further than `stop`: what lies behind those values counts
/// as constant. A value of `wrt` that is not among them hands its cotangent on.
///
/// Usually both are the same. They differ where what is trained is itself computed: in the second of several steps in one
/// graph, the weights that the first one left are to be stops, or the gradient goes on through the first step.
///
/// ```
/// use aneforge::{Shape, Var, grad};
/// let (x, unused) = (Var::input(Shape::new(&[4])?), Var::input(Shape::new(&[2])?));
/// let w = x.muls(3.0);
/// let dy = Var::full(Shape::new(&[4])?, 1.0);
/// let found = grad::gradients(&w.square(), &dy, &[w.clone(), unused.clone()], &[w, unused])?;
/// assert_eq!(found.unreached, [1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn gradients(y: &Var, dy: &Var, wrt: &[Var], stop: &[Var]) -> Result<Gradients, GradError> {
    gradients_by(y, dy, wrt, stop, &mut |_, _| None)
}

/// The same by rules of the caller's where there are: `rules` is asked for each node with its cotangent, and may answer with
/// what its inputs get.
pub fn gradients_by(
    y: &Var,
    dy: &Var,
    wrt: &[Var],
    stop: &[Var],
    rules: &mut Rules<'_>,
) -> Result<Gradients, GradError> {
    let found = walk(y, dy, wrt, stop, rules)?;
    let missing = found.iter().enumerate().filter(|(_, g)| g.is_none());
    let unreached = missing.map(|(index, _)| index).collect();
    // The value less itself: a result of a program is computed, and a constant is not.
    let zeros = |w: &Var| w.caller().scope(|| w.minus(w));
    let mut known = HashMap::new();
    let mut computed = |g: Option<Var>, w: &Var| match g {
        None => zeros(w),
        Some(g) if reads_leaf(&g, &mut known) => g,
        Some(g) => w.caller().scope(|| g + zeros(w)),
    };
    let values = found.into_iter().zip(wrt).map(|(g, w)| computed(g, w)).collect();
    Ok(Gradients { values, unreached })
}

/// Whether a value depends on a leaf, and is no constant. `known` has what was found out of others.
fn reads_leaf(var: &Var, known: &mut HashMap<u64, bool>) -> bool {
    let mut stack = vec![var.clone()];
    while let Some(last) = stack.last().cloned() {
        if known.contains_key(&last.id()) {
            stack.pop();
            continue;
        }
        let inputs = last.inputs();
        let reads =
            matches!(last.op(), Op::Input(_)) || inputs.iter().any(|x| known.get(&x.id()) == Some(&true));
        let open = inputs.iter().find(|x| !known.contains_key(&x.id()));
        match open {
            Some(open) if !reads => stack.push(open.clone()),
            _ => {
                known.insert(last.id(), reads);
                stack.pop();
            }
        }
    }
    known[&var.id()]
}

/// The cotangents of `wrt` as an op's own gradient: none is zero, and a missing rule stays one.
pub(crate) fn pull_back(y: &Var, dy: &Var, wrt: &[Var]) -> Vec<Grad> {
    match walk(y, dy, wrt, wrt, &mut |_, _| None) {
        Ok(found) => found.into_iter().map(|g| g.map_or(Grad::Zero("independent"), Grad::To)).collect(),
        Err(_) => wrt.iter().map(|_| Grad::Missing("a part of its decomposition has no rule")).collect(),
    }
}

fn walk(
    y: &Var,
    dy: &Var,
    wrt: &[Var],
    stop: &[Var],
    rules: &mut Rules<'_>,
) -> Result<Vec<Option<Var>>, GradError> {
    for var in [y, dy] {
        var.check().map_err(|error| GradError::Build(Box::new(error)))?;
    }
    if y.shape() != dy.shape() {
        return Err(GradError::Shape { want: Box::new(y.shape()), got: Box::new(dy.shape()) });
    }
    let stop: HashSet<u64> = stop.iter().map(Var::id).collect();
    let order = dependents(y, wrt, &stop);
    let on_path: HashSet<u64> = order.iter().map(Var::id).collect();
    let mut cotangents: HashMap<u64, Var> = HashMap::from([(y.id(), dy.clone())]);
    for var in order.iter().rev() {
        if stop.contains(&var.id()) {
            continue;
        }
        let Some(dy) = cotangents.get(&var.id()).cloned() else { continue };
        let own = || var.caller().scope(|| var.op().vjp(var.inputs(), var, &dy));
        let grads = rules(var, &dy).unwrap_or_else(own);
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

/// The nodes between `wrt` and `y`, both included, each after its inputs. What lies behind `stop` is not looked at.
fn dependents(y: &Var, wrt: &[Var], stop: &HashSet<u64>) -> Vec<Var> {
    let targets: HashSet<u64> = wrt.iter().map(Var::id).collect();
    let mut depends: HashMap<u64, bool> = HashMap::new();
    let mut order = Vec::new();
    let mut stack = vec![(y.clone(), 0)];
    while let Some((var, next)) = stack.pop() {
        if depends.contains_key(&var.id()) {
            continue;
        }
        let (is_target, ends) = (targets.contains(&var.id()), stop.contains(&var.id()));
        match var.inputs().get(next) {
            Some(input) if !ends => {
                let input = input.clone();
                stack.push((var, next + 1));
                stack.push((input, 0));
            }
            _ => {
                let on_path = is_target || !ends && var.inputs().iter().any(|v| depends[&v.id()]);
                depends.insert(var.id(), on_path);
                if on_path && !matches!(var.op(), Op::Constant(_)) || is_target {
                    order.push(var);
                }
            }
        }
    }
    order
}
