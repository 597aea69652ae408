//! A native layer: operands brought into the order that it wants, and results out of it.

use super::program::{one_step, types};
use super::{Ane, failed, handle_of};
use crate::device::bound::Bound;
use crate::device::{Buffer, Device, DeviceError, Loaded, Overflow, Port, Receipt, Roof, StepTime};
use crate::ir::graph::{Graph, NodeId};
use crate::ir::op::Op;
use crate::ir::types::TensorType;
use aneforge_ane::{NativeModel, NativeSource};
use aneforge_mil::netplist::{Netplist, RESULT, Symbol, Transfer};
use aneforge_tensor::f16;
use std::time::Instant;

/// Where an operand comes from.
enum Operand {
    Feed(usize),
    Constant(Vec<f16>),
}

/// What goes between buffers and a layer.
pub(super) struct Wires {
    /// For each operand: where it comes from, its shape on the host, and how it lies in the layer.
    operands: Vec<(Operand, Vec<usize>, Symbol)>,
    result: Symbol,
    pub(super) types: [Vec<TensorType>; 2],
    /// How many times the layer runs: once for each row, where it takes one.
    pub(super) rows: usize,
    /// Bytes that were brought over.
    pub(super) copied: u64,
    /// An operand, dense.
    dense: Vec<f16>,
}

impl Wires {
    pub(super) fn new(graph: &Graph, netplist: &Netplist) -> Wires {
        let node = graph.node(graph.outputs()[0]);
        let feeds = graph.feeds();
        let operand = |&(at, ref symbol): &(usize, Symbol)| {
            let id: NodeId = node.inputs[at];
            let shape = graph.node(id).ty.shape.dims().to_vec();
            let from = match (&graph.node(id).op, graph.constant(id)) {
                (Op::Input(_), _) => Operand::Feed(
                    feeds.iter().position(|feed| *feed == id).expect("invariant: inputs are feeds"),
                ),
                (_, Some(weight)) => Operand::Constant(weight.to_f16()),
                _ => unreachable!("a native layer is alone in its segment"),
            };
            (from, shape, symbol.clone())
        };
        let operands: Vec<_> = netplist.layer.feeds.iter().map(operand).collect();
        let rows = if netplist.layer.per_row { node.ty.shape.dims()[0] } else { 1 };
        let result = netplist.layer.result.clone();
        Wires { operands, result, types: types(graph), rows, copied: 0, dense: Vec::new() }
    }

    /// The symbols of operands, in their order.
    pub(super) fn symbols(&self) -> Vec<&'static str> {
        self.operands.iter().map(|(_, _, symbol)| symbol.name).collect()
    }

    /// Calls `write` with each operand of a row, as bytes in the order in which the layer wants it. `input` gives what a feed holds.
    pub(super) fn feed<'a, E>(
        &mut self,
        row: usize,
        input: impl Fn(usize) -> &'a [u8],
        mut write: impl FnMut(usize, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for (at, (from, shape, symbol)) in self.operands.iter().enumerate() {
            let values: &[f16] = match from {
                Operand::Feed(feed) => bytemuck::cast_slice(input(*feed)),
                Operand::Constant(values) => values,
            };
            let count: usize = symbol.extents.iter().product();
            let values = if self.rows > 1 {
                &values[row * count..][..count]
            } else {
                &values[..shape.iter().product()]
            };
            match symbol.transfer {
                Transfer::Permuted(perm) => {
                    self.dense.resize(count, f16::ZERO);
                    permuted(values, shape, perm, &mut self.dense);
                    write(at, bytemuck::cast_slice(&self.dense))?;
                }
                Transfer::Dense | Transfer::Flags => write(at, bytemuck::cast_slice(values))?,
            }
            self.copied += (count * size_of::<f16>()) as u64;
        }
        Ok(())
    }

    /// Bytes of each operand of a row, as the layer wants it.
    pub(super) fn operand_bytes(&self) -> Vec<usize> {
        let bytes = |symbol: &Symbol| symbol.extents.iter().product::<usize>() * size_of::<f16>();
        self.operands.iter().map(|(_, _, symbol)| bytes(symbol)).collect()
    }

    /// Why a loaded layer is not the one that was described, if it is not: its ports have other extents, or elements.
    fn other(&self, model: &NativeModel) -> Option<String> {
        let operands = self.operands.iter().enumerate().map(|(at, (_, _, symbol))| (model.input(at), symbol));
        let mut ports = operands.chain([(model.output(0), &self.result)]);
        ports.find_map(|(live, symbol)| {
            let live = live?;
            let [batch, channels, height, width] = symbol.extents;
            let same =
                live.extents == [batch, 1, channels, height, width] && live.element == size_of::<f16>();
            (!same).then(|| format!("{live:?}, and {:?} in half precision was expected", symbol.extents))
        })
    }

    /// Bytes of a row of the result, as the layer leaves it.
    pub(super) fn result_bytes(&self) -> usize {
        self.result.extents.iter().product::<usize>() * size_of::<f16>()
    }

    /// Brings a row of the result, as the layer left it, to its place.
    pub(super) fn deliver(&mut self, row: usize, left: &[u8], out: &mut [u8]) {
        let to: &mut [f16] = bytemuck::cast_slice_mut(out);
        let count: usize = self.result.extents.iter().product();
        let [.., height, width] = self.result.extents;
        let to = if self.rows > 1 { &mut to[row * count..][..count] } else { &mut to[..count] };
        match self.result.transfer {
            Transfer::Dense => to.copy_from_slice(bytemuck::cast_slice(left)),
            Transfer::Permuted(perm) => {
                let lies: Vec<usize> = match perm.len() {
                    2 => vec![self.result.extents[1], width],
                    _ => self.result.extents.to_vec(),
                };
                permuted(bytemuck::cast_slice(left), &lies, perm, to);
            }
            Transfer::Flags => {
                for (row, to) in to.chunks_mut(width).enumerate().take(height) {
                    let flags = &left[row * 2 * width..][..width];
                    let truth = |&flag: &u8| if flag == 0 { f16::ZERO } else { f16::ONE };
                    to.iter_mut().zip(flags).for_each(|(to, flag)| *to = truth(flag));
                }
            }
        }
        self.copied += left.len() as u64;
    }
}

/// `from`, of this shape, with its axes in another order.
fn permuted(from: &[f16], shape: &[usize], perm: &[usize], to: &mut [f16]) {
    let stride = |axis: usize| shape[axis + 1..].iter().product::<usize>();
    let axes: Vec<(usize, usize)> = perm.iter().map(|&axis| (shape[axis], stride(axis))).collect();
    let mut at = vec![0usize; axes.len()];
    for to in to.iter_mut() {
        *to = from[at.iter().zip(&axes).map(|(at, (_, stride))| at * stride).sum::<usize>()];
        for (place, (extent, _)) in at.iter_mut().zip(&axes).rev() {
            *place += 1;
            if *place < *extent {
                break;
            }
            *place = 0;
        }
    }
}

/// A layer in this process.
pub(super) struct Running {
    model: NativeModel,
    wires: Wires,
    bound: Bound,
    kind: &'static str,
    left: Vec<u8>,
    receipt: Receipt,
}

impl Running {
    pub(super) fn load(ane: &Ane, graph: &Graph, netplist: &Netplist) -> Result<Running, DeviceError> {
        let wires = Wires::new(graph, netplist);
        let document = netplist.document.to_string();
        let source = NativeSource {
            document: document.as_bytes(),
            weights: &netplist.weights,
            inputs: &wires.symbols(),
            outputs: &[RESULT],
        };
        let model = ane.paced(|| NativeModel::load(&ane.framework, &source, ane.options.call_limit))?;
        if let Some(other) = wires.other(&model) {
            let why = format!("a port of {} is {other}", netplist.layer.kind);
            return Err(DeviceError::Unsupported { op: netplist.layer.kind, why });
        }
        let bound = Bound::new(wires.types[0].len(), wires.types[1].len());
        let left = vec![0; wires.result_bytes()];
        let receipt = receipt(ane, netplist);
        Ok(Running { model, wires, bound, kind: netplist.layer.kind, left, receipt })
    }

    fn run(&mut self) -> Result<(), DeviceError> {
        let Running { model, wires, bound, left, .. } = self;
        let inputs: Vec<usize> =
            (0..bound.inputs.len()).map(|at| bound.place(Port::Input(at))).collect::<Result<_, _>>()?;
        let output = bound.place(Port::Output(0))?;
        let mut held = bound.lock();
        for row in 0..wires.rows {
            wires.feed(row, |at| &*held[inputs[at]], |at, values| model.write(at, values)).map_err(failed)?;
            model.evaluate().map_err(failed)?;
            model.read(0, left).map_err(failed)?;
            wires.deliver(row, left, &mut held[output]);
        }
        Ok(())
    }
}

/// How it is known where a layer runs.
pub(super) fn receipt(ane: &Ane, netplist: &Netplist) -> Receipt {
    let how = format!(
        "{} is a layer of the engine's own framework, which no other device has",
        netplist.layer.kind
    );
    let device = ane.title();
    Receipt { device: device.into(), how: vec![how] }
}

/// Takes note of a buffer of the engine.
pub(super) fn bind(
    bound: &mut Bound,
    types: &[Vec<TensorType>; 2],
    port: Port,
    buffer: &Buffer,
) -> Result<(), DeviceError> {
    let ty = match port {
        Port::Input(at) => types[0].get(at),
        Port::Output(at) => types[1].get(at),
    };
    let none = || DeviceError::Bind { port, why: "the program has no such port".into() };
    handle_of(port, buffer, *ty.ok_or_else(none)?)?;
    bound.set(port, buffer);
    Ok(())
}

impl Loaded for Running {
    fn bind(&mut self, port: Port, buffer: &Buffer) -> Result<(), DeviceError> {
        bind(&mut self.bound, &self.wires.types, port, buffer)
    }

    fn execute(&mut self) -> Result<(), DeviceError> {
        self.run()
    }

    fn profile(&mut self) -> Result<Vec<StepTime>, DeviceError> {
        let start = Instant::now();
        self.run()?;
        Ok(one_step(self.kind, &self.wires.types, start.elapsed()))
    }

    fn roof(&self) -> Option<Roof> {
        None
    }

    fn overflows(&self) -> &[Overflow] {
        &[]
    }

    fn copied(&self) -> u64 {
        self.wires.copied
    }

    fn describe(&self) -> String {
        format!("native layer {} on the engine: {:?}\n", self.kind, self.model)
    }

    fn receipt(&self) -> Receipt {
        self.receipt.clone()
    }
}
