//! From `Any` to `Legal(target)`: decompositions, and workarounds for what the engine's compiler gets
//! wrong. Each workaround is a rule of its own, visible in dumps.

use crate::ir::attr::{Attr, Real};
use crate::ir::graph::{Graph, NodeId};
use crate::ir::op::{Mil, Op};
use crate::ir::ops::attention;
use crate::ir::ops::batch_norm::BatchNorm;
use crate::ir::ops::binary::Mul;
use crate::ir::ops::bmm_w::RowProduct;
use crate::ir::ops::conv::{Conv, four, spread};
use crate::ir::ops::image_norm::InstanceNorm;
use crate::ir::ops::leaf::Input;
use crate::ir::ops::native::{Fps, Sdpa};
use crate::ir::ops::norm::TINIEST;
use crate::ir::ops::prelu::along_channels;
use crate::ir::ops::tile::Tile;
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use crate::passes::encoded::decoded;
use crate::passes::faults::{round_small, softplus_split, square_product};
use crate::passes::{CompileOptions, FORMS, PassError, TRIGONOMETRY, merge};
use crate::rewrite::{Event, Match, Miss, Rule};
use crate::target::{TALLEST_KERNEL, WIDEST_KERNEL, floor};
use aneforge_mil::verify::MAX_DIM;
use aneforge_tensor::Shape;
use std::collections::HashSet;

/// The rules of legalization. The order decides which of two that match a node goes first.
pub static LEGALIZE: &[Rule] = &[
    Rule { name: "decompose", apply: decompose },
    Rule { name: "square_product", apply: square_product },
    Rule { name: "softplus_split", apply: softplus_split },
    Rule { name: "round_small", apply: round_small },
    Rule { name: "value_matmul", apply: value_matmul },
    Rule { name: "value_conv", apply: value_conv },
    Rule { name: "value_dilation", apply: value_dilation },
    Rule { name: "value_conv_transpose", apply: value_conv_transpose },
    Rule { name: "value_parameter", apply: value_parameter },
    Rule { name: "least_eps", apply: least_eps },
    Rule { name: "tile_factor", apply: tile_factor },
    Rule { name: "mul_zero", apply: mul_zero },
    Rule { name: "rounded_scale", apply: rounded_scale },
    Rule { name: "scalar_reshape", apply: scalar_reshape },
    Rule { name: "reduce_nothing", apply: reduce_nothing },
    Rule { name: "causal_mask", apply: causal_mask },
    Rule { name: "sample_one", apply: sample_one },
];

pub(super) fn legalize(
    graph: &Graph,
    options: &CompileOptions,
    events: &mut Vec<Event>,
) -> Result<Graph, PassError> {
    let without_unit = options.target.family() < floor("sin");
    let computed = match without_unit {
        true => &crate::rewrite::run(graph, TRIGONOMETRY, events)?,
        false => graph,
    };
    let rewritten = crate::rewrite::run(computed, LEGALIZE, events)?;
    let known = crate::rewrite::run(&rewritten, FORMS, events)?;
    let folded = crate::rewrite::run(&known, super::FOLD, events)?;
    let tidy = crate::rewrite::run(&folded, super::CANONICALIZE, events)?;
    Ok(compute_outputs(&line_ports(&merge::merge(&tidy)?)?, events)?)
}

/// Ports of rank 0 become lines of one element, squeezed as they come in and widened as they go out: no
/// program known to be accepted has a port without axes. What a plan's callers see stays as it was.
fn line_ports(graph: &Graph) -> Result<Graph, crate::ir::var::BuildError> {
    let scalar = TensorType::f16(Shape::SCALAR);
    let vars = graph.to_vars(|id, _| match (&graph.node(id).op, graph.node(id).ty == scalar) {
        (Op::Input(leaf), true) => {
            let leaf = Input { shape: vec![1], ..leaf.clone() };
            Some(graph.node(id).at.scope(|| Var::apply(leaf, &[]).squeeze(&[0])))
        }
        _ => None,
    });
    let out = |id: &NodeId| {
        let (node, var) = (graph.node(*id), &vars[id.index()]);
        node.at.scope(|| if node.ty == scalar { var.reshape(&[1]) } else { var.clone() })
    };
    Graph::freeze(&graph.outputs().iter().map(out).collect::<Vec<_>>())
}

/// Ops without a statement are written with ops that have one.
fn decompose(m: &Match<'_>) -> Result<Var, Miss> {
    let node = m.node();
    match node.op.mil() {
        Mil::Decompose(write) => Ok(write(&node.op, &m.inputs())),
        Mil::StmtWith(_, n, write) if n != node.inputs.len() => Ok(write(&node.op, &m.inputs())),
        _ => Err(Miss::Other),
    }
}

/// A linear layer whose weight is computed is a product of two values.
fn value_matmul(m: &Match<'_>) -> Result<Var, Miss> {
    let (Op::Matmul(_), &[x, weight]) = (&m.node().op, &m.node().inputs[..]) else { return Err(Miss::Other) };
    if m.constant(weight).is_some() {
        return Err(Miss::Other);
    }
    let (x, weight) = (m.var(x), m.var(weight).transpose(&[1, 0]));
    let columns = x.shape()[x.shape().rank() - 1] as i64;
    Ok(x.reshape(&[-1, columns]).matmul_value(&weight).reshape_to(m.node().ty.shape))
}

/// Rows of the image that [`value_conv`] makes of several: no family takes fewer.
const TALLEST_IMAGE: usize = 16384;

/// A convolution with a computed weight runs for one image: the engine takes batch 1 only. So the images of a batch become one, one
/// below the other with rows of zeros between them, which are what each is padded with; rows of the result that belong to no
/// image are left out.
fn value_conv(m: &Match<'_>) -> Result<Var, Miss> {
    let (Op::Conv(op), &[x, weight]) = (&m.node().op, &m.node().inputs[..]) else { return Err(Miss::Other) };
    let [batch, outputs, rows, columns] = four(m.node().ty.shape);
    if m.constant(weight).is_some() || batch == 1 {
        return Err(Miss::Other);
    }
    let (x, weight) = (m.var(x), m.var(weight));
    let [_, channels, height, width] = four(x.shape());
    let stride = op.strides[0] as usize;
    let [top, bottom, left, right] = op.pad.map(|pad| pad as usize);
    let apart = (height + top.max(bottom)).next_multiple_of(stride);
    let reach = op.dilations[0] as usize * (weight.shape()[2] - 1);
    let part = |from: usize, to: usize| Var::apply(op.clone(), &[&x.narrow(0, from, to), &weight]);
    if batch * apart + reach > TALLEST_IMAGE || reach < top {
        let images: Vec<Var> = match reach < top || batch == 2 {
            true => (0..batch).map(|n| part(n, n + 1)).collect(),
            false => vec![part(0, batch / 2), part(batch / 2, batch)],
        };
        return Ok(Var::concat(&images.iter().collect::<Vec<_>>(), 0));
    }
    let beside = x.transpose(&[1, 0, 2, 3]);
    let gap = Shape::new(&[channels, batch, apart - height, width]);
    let spaced = match gap {
        Ok(shape) if apart > height => Var::concat(&[&beside, &Var::full(shape, 0.0)], 2),
        _ => beside,
    };
    let tall = spaced.reshape(&[1, channels as i64, (batch * apart) as i64, width as i64]);
    let pad = [top, reach - top, left, right].map(|pad| pad as i64);
    let all = Var::apply(Conv { pad, ..op.clone() }, &[&tall, &weight]);
    let found = all.reshape(&[outputs as i64, batch as i64, (apart / stride) as i64, columns as i64]);
    Ok(found.narrow(2, 0, rows).transpose(&[1, 0, 2, 3]))
}

/// A computed kernel has zeros between its taps instead of a dilation.
///
/// Evidence: the op's definition in coremltools: a weight that is no constant takes dilations of 1 only.
fn value_dilation(m: &Match<'_>) -> Result<Var, Miss> {
    let (Op::Conv(op), &[x, weight]) = (&m.node().op, &m.node().inputs[..]) else { return Err(Miss::Other) };
    if m.constant(weight).is_some() || op.dilations == [1, 1] {
        return Err(Miss::Other);
    }
    if op.dilations[1] * (m.var(weight).shape()[3] as i64 - 1) >= WIDEST_KERNEL as i64 {
        return Err(Miss::Because("the kernel would be wider than any engine accepts"));
    }
    if op.dilations[0] * (m.var(weight).shape()[2] as i64 - 1) >= TALLEST_KERNEL as i64 {
        return Err(Miss::Because("the kernel would be taller than any engine accepts"));
    }
    let kernel = spread(&m.var(weight), op.dilations);
    Ok(Var::apply(Conv { dilations: [1, 1], ..op.clone() }, &[&m.var(x), &kernel]))
}

/// A transposed convolution with a computed weight is the convolution of the spread image with the kernel
/// turned around, and its channels exchanged in each group: that statement takes its weight as a constant.
fn value_conv_transpose(m: &Match<'_>) -> Result<Var, Miss> {
    let (Op::ConvTranspose(op), &[x, weight]) = (&m.node().op, &m.node().inputs[..]) else {
        return Err(Miss::Other);
    };
    if m.constant(weight).is_some() {
        return Err(Miss::Other);
    }
    let (x, weight) = (m.var(x), m.var(weight));
    let [cin, per_group, kh, kw] = four(weight.shape()).map(|d| d as i64);
    let groups = op.groups;
    let apart = weight.reshape(&[groups, cin / groups, per_group, kh * kw]).transpose(&[0, 2, 1, 3]);
    let turned = apart.reshape(&[groups * per_group, cin / groups, kh, kw]).reverse(&[2, 3]);
    let reach = [0, 0, 1, 1].map(|axis| op.dilations[axis] * ([kh, kw][axis] - 1));
    let sides: [i64; 4] = std::array::from_fn(|side| reach[side] - op.pad[side]);
    let conv = Conv { strides: [1; 2], pad: sides.map(|p| p.max(0)), dilations: op.dilations, groups };
    let [top, bottom, left, right] = sides.map(|p| (-p).max(0) as usize);
    let full = Var::apply(conv, &[&spread(&x, op.strides), &turned]);
    if full.shape() == m.node().ty.shape {
        return Ok(full);
    }
    // Columns on the left are cut as rows: on the last axis that saturates on older engines.
    let cut = if [top, bottom, right] == [0; 3] { full } else { full.crop(top, bottom, 0, right) };
    Ok(if left == 0 { cut } else { cut.swap_last().crop(left, 0, 0, 0).swap_last() })
}

/// An `eps` of a norm that half precision would round to 0 becomes the least that it holds.
fn least_eps(m: &Match<'_>) -> Result<Var, Miss> {
    let op: Op = match &m.node().op {
        Op::BatchNorm(op) if op.eps.0 < TINIEST => BatchNorm { eps: Real(TINIEST) }.into(),
        Op::InstanceNorm(op) if op.eps.0 < TINIEST => InstanceNorm { eps: Real(TINIEST) }.into(),
        _ => return Err(Miss::Other),
    };
    Ok(Var::apply(op, &m.inputs().iter().collect::<Vec<_>>()))
}

/// An op whose parameters are computed, though its statement takes constants, is written with ops that take
/// values.
fn value_parameter(m: &Match<'_>) -> Result<Var, Miss> {
    let node = m.node();
    let parameters = node.inputs.get(m.facts().weights_from..).unwrap_or_default();
    if parameters.iter().all(|&id| m.constant(id).is_some()) {
        return Err(Miss::Other);
    }
    let x = m.inputs();
    let wide = |v: &Var| along_channels(v, x[0].shape().rank());
    Ok(match &node.op {
        Op::BmmW(_) => x[0].matmul_value(&x[1]),
        Op::RowProduct(_) => RowProduct::of_values(&x[0], &x[1]),
        Op::Prelu(_) => x[0].greater(&Var::from(0.0)).select(&x[0], &(&x[0] * wide(&x[1]))),
        Op::InstanceNorm(op) => {
            let channels = x[1].shape();
            let unit = x[0].instance_norm(&Var::full(channels, 1.0), &Var::full(channels, 0.0), op.eps.0);
            unit * wide(&x[1]) + wide(&x[2])
        }
        Op::BatchNorm(op) => {
            let scale = &x[1] * x[4].rsqrt(op.eps.0);
            (&x[0] - wide(&x[3])) * wide(&scale) + wide(&x[2])
        }
        Op::Affine(_) => return Err(Miss::Because("the engine takes the map as a constant")),
        _ => return Err(Miss::Other),
    })
}

/// Factors that the engine's tile takes, the largest first, beside 1.
///
/// Evidence: ANEForge 0.4.0's documentation; it does not check them.
const TILE_FACTORS: [i64; 4] = [8, 4, 3, 2];

/// Another factor is a product of these, and what is left of it is a `concat` of copies.
fn tile_factor(m: &Match<'_>) -> Result<Var, Miss> {
    let (Op::Tile(op), Some(x)) = (&m.node().op, m.input(0)) else { return Err(Miss::Other) };
    let taken = |&r: &i64| r == 1 || TILE_FACTORS.contains(&r);
    let once = op.reps.iter().all(|&r| r == 1);
    if op.reps.iter().all(taken) && !once {
        return Err(Miss::Other);
    }
    if m.node().ty.shape.dims().iter().any(|&d| d as u64 > MAX_DIM) {
        return Err(Miss::Because("the result is longer than any engine takes"));
    }
    let mut y = m.var(x);
    for (axis, &reps) in op.reps.iter().enumerate() {
        let mut left = reps;
        for factor in TILE_FACTORS {
            while left % factor == 0 {
                let mut reps = vec![1; op.reps.len()];
                reps[axis] = factor;
                y = Var::apply(Tile { reps }, &[&y]);
                left /= factor;
            }
        }
        if left > 1 {
            y = Var::concat(&vec![&y; left as usize], axis as i64);
        }
    }
    Ok(y)
}

/// The factor of a product with one number: a scalar attribute, or a constant of one element.
fn factor(m: &Match<'_>) -> Option<(NodeId, f64)> {
    let one = |k: NodeId| m.constant(k).filter(|tensor| tensor.shape().count() == 1);
    match (&m.node().op, &m.node().inputs[..]) {
        (Op::Muls(op), &[x]) => Some((x, op.k.0)),
        (Op::Mul(_), &[x, k]) => match (one(x), one(k)) {
            (_, Some(tensor)) => Some((x, f64::from(tensor.to_f32()[0]))),
            (Some(tensor), None) => Some((k, f64::from(tensor.to_f32()[0]))),
            (None, None) => None,
        },
        _ => None,
    }
}

/// `x * 0`, also where the factor only rounds to zero, is `x - x`: the engine's compiler fails on a
/// reduction that is multiplied by zero.
fn mul_zero(m: &Match<'_>) -> Result<Var, Miss> {
    let (x, k) = factor(m).ok_or(Miss::Other)?;
    if aneforge_tensor::round_f16(k).to_f32() != 0.0 {
        return Err(Miss::Other);
    }
    let x = m.var(x);
    let zero = x.minus(&x);
    Ok(if zero.shape() == m.node().ty.shape { zero } else { zero.reshape_to(m.node().ty.shape) })
}

/// A scalar factor after floor, ceil or round becomes a factor per element: the engine's compiler folds the
/// scalar into the rounding kernel and loses it. Reshapes, constant sums and divisions in between do not help.
fn rounded_scale(m: &Match<'_>) -> Result<Var, Miss> {
    let shape = m.node().ty.shape;
    let (x, factor) = factor(m).ok_or(Miss::Other)?;
    if matches!(m.node().op, Op::Mul(_)) && shape.count() == 1 || !rounds(m, x) {
        return Err(Miss::Other);
    }
    Ok(Var::apply(Mul {}, &[&m.var(x), &Var::full(shape, factor)]))
}

/// A reshape to a scalar is a squeeze: MIL has no empty list of extents.
fn scalar_reshape(m: &Match<'_>) -> Result<Var, Miss> {
    let (Op::Reshape(_), Some(x)) = (&m.node().op, m.input(0)) else { return Err(Miss::Other) };
    if m.node().ty.shape.rank() > 0 {
        return Err(Miss::Other);
    }
    Ok(m.var(x).reshape(&[1]).squeeze(&[0]))
}

/// A reduction over no axis is a function of each element: MIL has no empty list of axes.
fn reduce_nothing(m: &Match<'_>) -> Result<Var, Miss> {
    let none = ("axes", Attr::Ints(Vec::new()));
    let Some(x) = m.input(0).filter(|_| m.node().op.attrs() == [none]) else { return Err(Miss::Other) };
    let x = m.var(x);
    Ok(match &m.node().op {
        Op::ReduceMean(_) | Op::ReduceSum(_) | Op::ReduceMax(_) | Op::ReduceMin(_) => x,
        Op::ReduceLogSumExp(_) => x,
        Op::ReduceL1Norm(_) | Op::ReduceL2Norm(_) => x.abs(),
        Op::ReduceLogSum(_) => x.log(0.0),
        Op::ReduceSumSquare(_) => x.times(&x),
        _ => return Err(Miss::Other),
    })
}

/// The attention layer has no causal mode: it reads a mask, which is a constant here.
fn causal_mask(m: &Match<'_>) -> Result<Var, Miss> {
    let (Op::Sdpa(Sdpa { scale, causal: true }), shape) = (&m.node().op, m.node().ty.shape) else {
        return Err(Miss::Other);
    };
    let x = m.inputs();
    let mask = attention::causal_mask(4, 0, shape[2], shape[2]);
    Ok(Var::apply(Sdpa { scale: *scale, causal: false }, &[&x[0], &x[1], &x[2], &mask]))
}

/// The sampling layer takes two points or more; the first point is its first sample.
fn sample_one(m: &Match<'_>) -> Result<Var, Miss> {
    let (Op::Fps(Fps { k: 1 }), Some(points)) = (&m.node().op, m.input(0)) else { return Err(Miss::Other) };
    Ok(m.var(points).narrow(0, 0, 1))
}

/// Whether a value is the result of floor, ceil or round, followed at most by ops through which the engine's compiler
/// still folds a scalar factor into the rounding: reshapes, sums with constants, and divisions by constants.
fn rounds(m: &Match<'_>, mut x: NodeId) -> bool {
    loop {
        match m.op(x) {
            (Op::Floor(_) | Op::Ceil(_) | Op::NativeRound(_), _) => return true,
            (Op::Select(_), &[_, rounded, _]) if matches!(m.op(rounded).0, Op::NativeRound(_)) => {
                return true;
            }
            (Op::Reshape(_) | Op::Squeeze(_) | Op::ExpandDims(_) | Op::Flatten2d(_), &[inner])
            | (Op::Adds(_) | Op::LinearActivation(_), &[inner]) => x = inner,
            (Op::Add(_) | Op::Sub(_) | Op::RealDiv(_), &[inner, k]) if m.constant(k).is_some() => x = inner,
            (Op::Add(_) | Op::Sub(_), &[k, inner]) if m.constant(k).is_some() => x = inner,
            _ => return false,
        }
    }
}

/// Outputs that are ports, constants or returned twice get a statement of their own, `x * 1.0`: the
/// engine's compiler fails on a program that returns a parameter.
fn compute_outputs(graph: &Graph, events: &mut Vec<Event>) -> Result<Graph, crate::ir::var::BuildError> {
    let vars = graph.to_vars(|_, _| None);
    let mut seen = HashSet::new();
    let outputs: Vec<Var> = graph
        .outputs()
        .iter()
        .map(|&id| {
            let (node, var) = (graph.node(id), &vars[id.index()]);
            if !matches!(node.op.mil(), Mil::Leaf) && seen.insert(id) {
                return var.clone();
            }
            events.push(Event::fired("identity_output", node));
            node.at.scope(|| {
                if node.ty.dtype == aneforge_tensor::DType::U8 { var.cast() } else { decoded(var).muls(1.0) }
            })
        })
        .collect();
    Graph::freeze(&outputs)
}
