//! Products and convolutions: summed by the fast kernels' order, rounded by the engine's rules.

use crate::device::Buffer;
use crate::ir::form::{Form, Product as Matrices};
use crate::ir::graph::{Graph, NodeId};
use crate::ir::numerics::Arithmetic;
use crate::ir::ops::binary::source;
use crate::ir::ops::conv::FEW_CHANNELS;
use crate::ir::ops::matmul::lead;
use crate::ir::precision::{Array, BLOCK, Engine, Precision};
use aneforge_kernels::Kernels;
use aneforge_kernels::conv::ConvParams;
use aneforge_kernels::sums::{Columns, sums};
use aneforge_tensor::{Encoding, Shape, f16};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A product whose operands are rows and columns of terms, in the order in which they are summed.
pub(super) struct Product {
    rules: &'static Arithmetic,
    kind: Kind,
    types: [Shape; 2],
    out: Shape,
    /// Where the lanes of the hardware are among the terms, behind or between which there are zeros.
    lanes: Vec<usize>,
    terms: usize,
    /// The second operand, where it is constant, and columns of it, packed.
    weight: Option<Arc<Array>>,
    packed: Option<(Columns, Vec<AtomicU64>)>,
    bias: Option<Arc<Array>>,
    /// Whether the second operand is stored in eight bits.
    bytes: bool,
}

enum Kind {
    Linear,
    Batched,
    Conv(ConvParams, usize),
}

/// The bits of a length that says that sums must be looked at one by one: a row or column of ones, or of what is not finite.
const LOOK: f64 = f64::INFINITY;

impl Product {
    /// The product that a node is, if it is one that has many terms or elements.
    pub(super) fn new(
        graph: &Graph,
        id: NodeId,
        rules: &'static Arithmetic,
        kernels: &Kernels,
    ) -> Option<Product> {
        let node = graph.node(id);
        let kind = match graph.form(id) {
            Form::Product(Matrices::Linear) => Kind::Linear,
            Form::Product(Matrices::Batched) => Kind::Batched,
            Form::Conv(params, groups) => Kind::Conv(params, groups),
            _ => return None,
        };
        let types = [0, 1].map(|at| graph.node(node.inputs[at]).ty.shape);
        let (lanes, terms) = match kind {
            Kind::Conv(..) => taps(types[1]),
            _ => ((0..types[0][types[0].rank() - 1]).collect(), types[0][types[0].rank() - 1]),
        };
        let constant = |at: usize| {
            let weight = graph.constant(*node.inputs.get(at)?)?;
            Some(Arc::new(Array::from_weight(weight, Precision::F16(crate::ir::numerics::Numerics::Ieee))))
        };
        let encoding = graph.constant(node.inputs[1]).map(|weight| weight.encoding());
        let bytes = matches!((&kind, encoding), (Kind::Linear | Kind::Batched, Some(Encoding::Int8)));
        let (weight, bias) = (constant(1), constant(2));
        let mut product = Product {
            rules,
            kind,
            types,
            out: node.ty.shape,
            lanes,
            terms,
            weight,
            packed: None,
            bias,
            bytes,
        };
        if let (Kind::Linear, Some(weight)) = (&product.kind, product.weight.clone()) {
            product.packed = Some(product.columns(kernels, 0, &weight));
        }
        Some(product)
    }

    /// Whether it reads this operand anew in every run.
    pub(super) fn reads(&self, at: usize) -> bool {
        match at {
            1 => self.weight.is_none(),
            2 => self.bias.is_none(),
            _ => true,
        }
    }

    /// Batches, rows and columns.
    fn extents(&self) -> [usize; 3] {
        let [a, b] = self.types;
        match self.kind {
            Kind::Linear => [1, a.count() / a[a.rank() - 1].max(1), b[0]],
            Kind::Batched => [lead(self.out).count(), a[a.rank() - 2], b[b.rank() - 1]],
            Kind::Conv(_, groups) => [self.out[0] * groups, self.out[1] / groups, self.out[2] * self.out[3]],
        }
    }

    /// Runs on operands of which those that are constant are left out.
    pub(super) fn run(&self, kernels: &Kernels, operands: &[Option<Arc<Array>>], out: &Buffer) {
        let operand =
            |at: usize, own: &Option<Arc<Array>>| own.clone().or_else(|| operands.get(at).cloned().flatten());
        let fed = operand(0, &None).expect("invariant: read in every run");
        let left = if self.bytes { Arc::new(self.saturated(&fed)) } else { fed };
        let right = operand(1, &self.weight).expect("invariant: constant or read");
        let bias = operand(2, &self.bias);
        let [batches, rows, columns] = self.extents();
        let mut values = out.values_mut().expect("invariant: fresh buffers are plain");
        let mut summed = vec![0.0f32; rows * columns];
        for batch in 0..batches {
            let lengths: Vec<AtomicU64> = (0..rows).map(|_| AtomicU64::new(0)).collect();
            let own;
            let (packed, widths) = match &self.packed {
                Some((packed, widths)) => (packed, widths),
                None => {
                    own = self.columns(kernels, batch, self.sides(&left, &right).1);
                    (&own.0, &own.1)
                }
            };
            if rows * columns == 0 {
                continue;
            }
            let rows_of = self.sides(&left, &right).0;
            let fill = |row: usize, to: &mut [f32]| {
                self.row(batch, row, rows_of, to);
                lengths[row].store(self.length(to).to_bits(), Ordering::Relaxed);
            };
            sums(kernels, packed, fill, &mut summed);
            let target = &mut values[batch * rows * columns..][..rows * columns];
            for (at, (to, sum)) in target.iter_mut().zip(&summed).enumerate() {
                let (row, column) = (at / columns, at % columns);
                let length = |of: &[AtomicU64], at: usize| f64::from_bits(of[at].load(Ordering::Relaxed));
                // No sum of some of the terms is longer than the two lengths allow.
                let safe = length(&lengths, row) * length(widths, column) < self.rules.partial_limit;
                let special = (!safe).then(|| self.special(batch, [row, column], &left, &right)).flatten();
                let sum = special.unwrap_or_else(|| f64::from(*sum));
                let stored = if self.lanes.len() > 1 || !matches!(self.kind, Kind::Conv(..)) {
                    self.rules.store_product(sum)
                } else {
                    self.rules.store(sum)
                };
                let added = bias.as_ref().map(|bias| bias.data[self.bias_at(batch, [row, column])]);
                *to = f16::from_f64(added.map_or(stored, |bias| self.rules.store(stored + bias)));
            }
        }
    }

    /// What rows and columns are read of: of a convolution, rows are those of the kernels.
    fn sides<'a>(&self, left: &'a Array, right: &'a Array) -> (&'a Array, &'a Array) {
        if matches!(self.kind, Kind::Conv(..)) { (right, left) } else { (left, right) }
    }

    fn bias_at(&self, batch: usize, [row, column]: [usize; 2]) -> usize {
        match self.kind {
            Kind::Conv(_, groups) => batch % groups * (self.out[1] / groups) + row,
            _ => column,
        }
    }

    /// Values of which weights of eight bits take those beyond for infinities.
    fn saturated(&self, x: &Array) -> Array {
        let limit = self.rules.byte_operand_limit;
        let saturate = |v: &f64| if v.abs() > limit { f64::INFINITY.copysign(*v) } else { *v };
        Array { shape: x.shape, data: x.data.iter().map(saturate).collect() }
    }

    /// The columns of a batch, and how long each is.
    fn columns(&self, kernels: &Kernels, batch: usize, of: &Array) -> (Columns, Vec<AtomicU64>) {
        let count = self.extents()[2];
        let widths: Vec<AtomicU64> = (0..count).map(|_| AtomicU64::new(0)).collect();
        let columns = Columns::new(kernels, [count, self.terms], |column, to| {
            self.column(batch, column, of, to);
            widths[column].store(self.length(to).to_bits(), Ordering::Relaxed);
        });
        (columns, widths)
    }

    /// The length of a row or a column, or [`LOOK`].
    fn length(&self, terms: &[f32]) -> f64 {
        let ones = self.lanes.iter().all(|&lane| terms[lane] == 1.0);
        let square = terms.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>();
        if ones || !square.is_finite() { LOOK } else { square.sqrt().max(f64::MIN_POSITIVE) }
    }

    /// The sum of a row and a column, where the engine's is another than that of the products.
    fn special(&self, batch: usize, [row, column]: [usize; 2], left: &Array, right: &Array) -> Option<f64> {
        let (of_rows, of_columns) = self.sides(left, right);
        let terms = self.terms.next_multiple_of(BLOCK);
        let (mut a, mut b) = (vec![0.0; terms], vec![0.0; terms]);
        self.row(batch, row, of_rows, &mut a);
        self.column(batch, column, of_columns, &mut b);
        let mut engine = Engine::new(self.rules)?;
        for &lane in &self.lanes {
            engine.push(f64::from(a[lane]), f64::from(b[lane]));
        }
        engine.total()
    }

    fn term(&self, v: f64) -> f32 {
        self.rules.flushed(v) as f32
    }

    /// Writes the terms of a row.
    fn row(&self, batch: usize, row: usize, of: &Array, to: &mut [f32]) {
        let [a, _] = self.types;
        let values = match self.kind {
            Kind::Linear => &of.data[row * self.terms..][..self.terms],
            Kind::Batched => {
                let matrix = source(lead(a), lead(self.out), batch);
                &of.data[(matrix * a[a.rank() - 2] + row) * self.terms..][..self.terms]
            }
            Kind::Conv(_, groups) => {
                let [_, channels, kh, kw] = [0, 1, 2, 3].map(|axis| self.types[1][axis]);
                let kernel = batch % groups * (self.out[1] / groups) + row;
                let kernel = &of.data[kernel * channels * kh * kw..][..channels * kh * kw];
                for (at, &lane) in self.lanes.iter().enumerate() {
                    let (tap, channel) = (at / channels, at % channels);
                    to[lane] = self.term(kernel[channel * kh * kw + tap]);
                }
                return;
            }
        };
        to.iter_mut().zip(values).for_each(|(to, v)| *to = self.term(*v));
    }

    /// Writes the terms of a column.
    fn column(&self, batch: usize, column: usize, of: &Array, to: &mut [f32]) {
        let [_, b] = self.types;
        match self.kind {
            Kind::Linear => {
                let values = &of.data[column * self.terms..][..self.terms];
                to.iter_mut().zip(values).for_each(|(to, v)| *to = self.term(*v));
            }
            Kind::Batched => {
                let (k, n) = (b[b.rank() - 2], b[b.rank() - 1]);
                let matrix = source(lead(b), lead(self.out), batch);
                let values = of.data[matrix * k * n + column..].iter().step_by(n);
                to.iter_mut().zip(values.take(k)).for_each(|(to, v)| *to = self.term(*v));
            }
            Kind::Conv(params, groups) => self.patch(params, groups, batch, column, of, to),
        }
    }

    /// Writes what the taps of a kernel meet at a pixel of the result.
    fn patch(
        &self,
        params: ConvParams,
        groups: usize,
        batch: usize,
        pixel: usize,
        of: &Array,
        to: &mut [f32],
    ) {
        let [image, kernels] = self.types;
        let (channels, kw) = (kernels[1], kernels[3]);
        let (h, w) = (image[2], image[3]);
        let first = (batch / groups * image[1] + batch % groups * channels) * h * w;
        let (oy, ox) = (pixel / self.out[3], pixel % self.out[3]);
        let ConvParams { stride, pad, dilation } = params;
        for (tap, lanes) in self.lanes.chunks(channels.max(1)).enumerate() {
            let y = (oy * stride[0] + tap / kw * dilation[0]).checked_sub(pad[0]).filter(|&y| y < h);
            let x = (ox * stride[1] + tap % kw * dilation[1]).checked_sub(pad[2]).filter(|&x| x < w);
            let Some((y, x)) = y.zip(x) else { continue };
            let values = of.data[first + y * w + x..].iter().step_by(h * w);
            lanes.iter().zip(values).for_each(|(&lane, v)| to[lane] = self.term(*v));
        }
    }
}

/// Where the terms of a convolution lie, tap by tap and channel by channel, and how many places there are.
fn taps(kernels: Shape) -> (Vec<usize>, usize) {
    let [_, channels, kh, kw] = [0, 1, 2, 3].map(|axis| kernels[axis]);
    let (mut lanes, mut next) = (Vec::new(), 0);
    for _ in 0..kh {
        for _ in 0..kw {
            lanes.extend(next..next + channels);
            next += if channels <= FEW_CHANNELS { FEW_CHANNELS } else { channels.next_multiple_of(BLOCK) };
        }
        next = next.next_multiple_of(BLOCK);
    }
    (lanes, next)
}
