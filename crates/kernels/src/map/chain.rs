//! Several elementwise functions in one pass: block after block, with what lies between them in the cache.

mod apart;

use std::sync::atomic::{AtomicUsize, Ordering};

use half::f16;

use super::binary::{BinaryTask, CompareTask, Pairs, SelectTask, opposites};
use super::unary::{flush, has_special};
use super::{Binary, Compare, GRAIN, Unary, map_slice};
use crate::broadcast::Walk;
use crate::gemm::Rows;
use crate::simd::{Cuts, Grid, Simd, tiles};
use crate::{Kernels, Layout, Scratch, Stores, Watch};
use apart::Loaded;

/// Elements that a link computes at a time, and of a register: a few of them fit the first level of the cache.
const REGISTER: usize = 1 << 11;

/// A function of elements at the same place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Function {
    /// Of one value.
    Unary(Unary),
    /// Of two values.
    Binary(Binary),
    /// A truth value of two values.
    Compare(Compare),
    /// The opposite of a truth value.
    Not,
    /// The second operand where the first, a truth value, holds; else the third.
    Select,
}

impl Function {
    /// Whether its results are truth values.
    #[must_use]
    pub fn is_truth(self) -> bool {
        matches!(self, Function::Compare(_) | Function::Not)
    }
}

/// What a link is a function of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// An operand of the chain, which broadcasts to its result if the function has several operands.
    Operand(usize),
    /// The result of an earlier link.
    Link(usize),
}

/// One function of a chain. Its result is rounded to half precision.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// The function.
    pub function: Function,
    /// Its operands.
    pub sources: Vec<Argument>,
    /// NaN becomes +0.
    pub flush_nan: bool,
    /// Infinities and NaN that it makes of finite operands are counted.
    pub watched: bool,
}

/// Elements that a chain reads.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// Values.
    Half(&'a [f16]),
    /// Truth values.
    Truth(&'a [u8]),
    /// Values that lie where the result is to be written, element by element.
    InPlace,
}

/// Elements that a chain writes.
#[derive(Debug)]
pub enum DataMut<'a> {
    /// Values.
    Half(&'a mut [f16]),
    /// Truth values.
    Truth(&'a mut [u8]),
}

impl DataMut<'_> {
    fn len(&self) -> usize {
        match self {
            DataMut::Half(values) => values.len(),
            DataMut::Truth(values) => values.len(),
        }
    }
}

/// Links that are computed together, of which the last is the result.
#[derive(Debug)]
pub struct Chain {
    links: Vec<Placed>,
    /// Elements of the result.
    count: usize,
    registers: usize,
    /// Elements that a thread computes at a time.
    task: usize,
    /// Operands that are in registers while a block is computed, in the first ones: what lies in the result's place, and
    /// what lies apart.
    loaded: Vec<Loaded>,
    /// Columns of the result, and where its rows lie, if those are apart.
    apart: Option<(usize, Rows)>,
}

#[derive(Debug)]
struct Placed {
    function: Step,
    sources: [Place; 3],
    /// Of the result; none of the last link.
    register: Option<usize>,
    flush_nan: bool,
    /// Infinities and NaN made of finite operands, if they are counted.
    made: Option<AtomicUsize>,
}

/// A function, and how its operands broadcast.
#[derive(Debug)]
enum Step {
    Unary(Unary),
    Binary(Binary, Box<Walk<2>>),
    Compare(Compare, Box<Walk<2>>),
    Not,
    Select(Box<Walk<3>>),
}

/// Where an operand of a link lies.
#[derive(Clone, Copy, Debug)]
enum Place {
    Operand(usize),
    Register(usize),
}

impl Chain {
    /// A chain with a result of shape `shape` of operands of these shapes, one of which may lie in the result's place.
    ///
    /// # Panics
    /// When there is no link, a link reads what does not precede it, or a shape does not broadcast or is not the
    /// result's where it must be.
    #[must_use]
    pub fn new(shape: &[usize], operands: &[&[usize]], links: &[Link], in_place: Option<usize>) -> Chain {
        let operands: Vec<Layout> = operands.iter().map(|shape| Layout::row_major(shape)).collect();
        Chain::between(shape, &operands, links, in_place, None)
    }

    /// The same with values that lie apart in their slices, and a result that consists of `apart` rows with gaps between
    /// them, if it does. What is in place lies as the result does, without gaps.
    ///
    /// # Panics
    /// As [`Chain::new`].
    #[must_use]
    pub fn between(
        shape: &[usize],
        operands: &[Layout],
        links: &[Link],
        in_place: Option<usize>,
        apart: Option<(usize, Rows)>,
    ) -> Chain {
        let is_apart = |at: usize| apart::is_loaded(links, at, &operands[at], shape);
        let is_loaded = |&at: &usize| Some(at) == in_place || is_apart(at);
        let kept: Vec<usize> = (0..operands.len()).filter(is_loaded).collect();
        let (registers, of) = assign_registers(links, &kept, apart.is_some());
        let register_of = |operand: usize| kept.iter().position(|&at| at == operand);
        let of_source = |source: Argument| match source {
            Argument::Operand(at) => register_of(at).map_or(Place::Operand(at), Place::Register),
            Argument::Link(at) => Place::Register(of[at].expect("invariant: only the last has no register")),
        };
        let placed = |(link, &register): (&Link, &Option<usize>)| {
            let lies = |operand: usize| match link.sources[operand] {
                Argument::Operand(at) if register_of(at).is_none() => operands[at],
                _ => Layout::row_major(shape),
            };
            let walk = || Box::new(apart::walk([lies(0), lies(1)], shape));
            let function = match link.function {
                Function::Unary(function) => Step::Unary(function),
                Function::Binary(function) => Step::Binary(function, walk()),
                Function::Compare(function) => Step::Compare(function, walk()),
                Function::Not => Step::Not,
                Function::Select => Step::Select(Box::new(apart::walk([lies(0), lies(1), lies(2)], shape))),
            };
            if matches!(function, Step::Unary(_) | Step::Not) {
                assert_eq!(lies(0), Layout::row_major(shape), "chain: the operand of a function of one");
            }
            let mut sources = [Place::Register(0); 3];
            sources.iter_mut().zip(&link.sources).for_each(|(place, &source)| *place = of_source(source));
            let made = link.watched.then(AtomicUsize::default);
            Placed { function, sources, register, flush_nan: link.flush_nan, made }
        };
        if let Some(at) = in_place {
            assert!(apart.is_none() && operands[at].is_row_major(), "chain: rows in place");
            assert_eq!(operands[at].extents(), shape, "chain: the operand in place");
        }
        let loaded = |&at: &usize| match in_place {
            Some(own) if own == at => Loaded::InPlace,
            _ => Loaded::Apart(at, Box::new(apart::walk([operands[at]], shape))),
        };
        let work = |link: &Link| if link.function == Function::Binary(Binary::Pow) { 8 } else { 1 };
        let task = (GRAIN / links.iter().map(work).sum::<usize>()).next_multiple_of(REGISTER);
        Chain {
            links: links.iter().zip(&of).map(placed).collect(),
            count: shape.iter().product(),
            registers,
            task,
            loaded: kept.iter().map(loaded).collect(),
            apart,
        }
    }

    /// Working memory, in elements of single precision.
    #[must_use]
    pub fn scratch(&self, kernels: &Kernels) -> usize {
        self.registers * REGISTER / 2 * kernels.pool.threads()
    }

    /// Computes the last link. `watch` is told when something was counted.
    ///
    /// # Panics
    /// When an operand or `out` is not of the kind or the size that the links want.
    pub fn run(
        &self,
        kernels: &Kernels,
        operands: &[Data<'_>],
        watch: &Watch,
        scratch: &mut Scratch,
        out: DataMut<'_>,
    ) {
        assert!(self.apart.is_some() || out.len() == self.count, "chain: output length");
        let values = matches!(out, DataMut::Half(_));
        let in_place = self.loaded.iter().any(|loaded| matches!(loaded, Loaded::InPlace));
        assert!(values || !in_place && self.apart.is_none(), "chain: truth values in the place of values");
        match out {
            DataMut::Half(out) if self.apart.is_some() => self.rows(kernels, operands, watch, scratch, out),
            DataMut::Half(out) => {
                self.blocks(kernels, operands, watch, scratch, out, |out| DataMut::Half(out))
            }
            DataMut::Truth(out) => {
                self.blocks(kernels, operands, watch, scratch, out, |out| DataMut::Truth(out))
            }
        }
    }

    /// How many infinities and NaN each link has made of finite operands since this was last asked.
    pub fn take_made(&self) -> impl Iterator<Item = usize> {
        self.links.iter().map(|link| link.made.as_ref().map_or(0, |made| made.swap(0, Ordering::Relaxed)))
    }

    fn blocks<T: Send>(
        &self,
        kernels: &Kernels,
        operands: &[Data<'_>],
        watch: &Watch,
        scratch: &mut Scratch,
        out: &mut [T],
        wrap: impl Fn(&mut [T]) -> DataMut<'_> + Sync,
    ) {
        let per_worker = self.registers * REGISTER / 2;
        let scratch = scratch.take(per_worker * kernels.pool.threads());
        let tasks = Cuts::new(out.len(), self.task, out.len().div_ceil(self.task));
        let grid = Grid::new(1, Cuts::new(1, 1, 1), tasks);
        tiles(&kernels.pool, out, grid, (scratch, per_worker), |tile, registers| {
            let registers = bytemuck::cast_slice_mut(registers);
            let (start, out) = tile.row_at(0, tile.columns());
            for (index, out) in out.chunks_mut(REGISTER).enumerate() {
                let block = Block { simd: kernels.simd, operands, watch, start: start + index * REGISTER };
                self.block(&block, registers, out.len(), Some(wrap(out)));
            }
        });
    }

    /// Computes `count` elements, the last link into `out`, or its register.
    fn block(&self, block: &Block<'_>, registers: &mut [f16], count: usize, out: Option<DataMut<'_>>) {
        for (loaded, register) in self.loaded.iter().zip(registers.chunks_mut(REGISTER)) {
            match (loaded, &out) {
                (Loaded::Apart(at, walk), _) => block.load(*at, walk, &mut register[..count]),
                (Loaded::InPlace, Some(DataMut::Half(out))) => register[..count].copy_from_slice(out),
                (Loaded::InPlace, _) => unreachable!("invariant: values in place of values"),
            }
        }
        let mut out = out;
        for link in &self.links {
            let Some(register) = link.register else {
                let out = out.take().expect("invariant: only the last link has no register");
                block.link(link, &Registers { before: registers, after: &[] }, out);
                continue;
            };
            let (before, rest) = registers.split_at_mut(register * REGISTER);
            let (target, after) = rest.split_at_mut(REGISTER);
            let target = match link.function {
                Step::Compare(..) | Step::Not => {
                    DataMut::Truth(&mut bytemuck::cast_slice_mut(target)[..count])
                }
                _ => DataMut::Half(&mut target[..count]),
            };
            block.link(link, &Registers { before, after }, target);
        }
    }
}

/// How many registers there are, and that of each link; the last has one only if it is `kept` there. The operands `loaded`
/// have the first of them. A link never writes what it reads.
fn assign_registers(links: &[Link], loaded: &[usize], kept: bool) -> (usize, Vec<Option<usize>>) {
    let last = links.len().checked_sub(1).expect("a chain has a link");
    // The last link that reads each link, and each operand that is loaded.
    let mut until: Vec<usize> = (0..links.len()).collect();
    let mut busy = vec![0; loaded.len()];
    for (at, link) in links.iter().enumerate() {
        for &source in &link.sources {
            match source {
                Argument::Link(read) => {
                    assert!(read < at, "chain: link {at} reads link {read}");
                    until[read] = at;
                }
                Argument::Operand(read) => {
                    let register = loaded.iter().position(|&operand| operand == read);
                    register.into_iter().for_each(|register| busy[register] = at);
                }
            }
        }
    }
    let mut of = vec![None; links.len()];
    for at in 0..last + usize::from(kept) {
        let register = busy.iter().position(|&until| until < at).unwrap_or(busy.len());
        busy.resize(busy.len().max(register + 1), 0);
        busy[register] = until[at];
        of[at] = Some(register);
    }
    (busy.len(), of)
}

/// Registers but the one that is written.
struct Registers<'a> {
    before: &'a [f16],
    after: &'a [f16],
}

impl<'a> Registers<'a> {
    fn get(&self, register: usize) -> &'a [f16] {
        let at = register * REGISTER;
        match at.checked_sub(self.before.len() + REGISTER) {
            None => &self.before[at..at + REGISTER],
            Some(at) => &self.after[at..at + REGISTER],
        }
    }
}

/// Neighbouring elements of the result.
struct Block<'a> {
    simd: Simd,
    operands: &'a [Data<'a>],
    watch: &'a Watch,
    start: usize,
}

impl Block<'_> {
    /// Computes a link. Its values are looked at once they are halves again; where all are finite, which is the rule, there
    /// is nothing to count or to flush.
    fn link(&self, link: &Placed, registers: &Registers<'_>, mut target: DataMut<'_>) {
        self.compute(link, registers, &mut target);
        if let DataMut::Half(out) = target
            && (link.made.is_some() || link.flush_nan)
            && has_special(self.simd, out)
        {
            self.settle(link, registers, out);
        }
    }

    /// Counts what a link made of finite operands, and flushes NaN.
    #[cold]
    fn settle(&self, link: &Placed, registers: &Registers<'_>, out: &mut [f16]) {
        if let Some(made) = &link.made {
            let count = self.made(link, registers, out);
            if count > 0 {
                made.fetch_add(count, Ordering::Relaxed);
                self.watch.note();
            }
        }
        if link.flush_nan {
            flush(self.simd, out);
        }
    }

    /// Infinities and NaN whose operands are finite.
    fn made(&self, link: &Placed, registers: &Registers<'_>, out: &[f16]) -> usize {
        match &link.function {
            Step::Unary(_) => {
                let (x, before) = self.half(link, 0, registers);
                let pairs = out.iter().zip(&x[self.start - before..]);
                pairs.filter(|(y, x)| !y.is_finite() && x.is_finite()).count()
            }
            Step::Binary(_, walk) => {
                let pairs = self.pairs(link, walk, registers);
                let [step_a, step_b] = walk.inner_strides();
                let run = |(position, length, [a, b]): (usize, usize, [usize; 2])| {
                    let element = |data: &[f16], at: usize, step: isize, index: usize| {
                        data[(at as isize + index as isize * step) as usize].is_finite()
                    };
                    let made = |&index: &usize| {
                        !out[position + index].is_finite()
                            && element(pairs.a, a, step_a, index)
                            && element(pairs.b, b, step_b, index)
                    };
                    (0..length).filter(made).count()
                };
                pairs.runs(out.len()).map(run).sum()
            }
            Step::Compare(..) | Step::Not | Step::Select(_) => 0,
        }
    }

    /// The values of a link as they come.
    fn compute(&self, link: &Placed, registers: &Registers<'_>, target: &mut DataMut<'_>) {
        let (start, stores) = (self.start, Stores::default());
        match (&link.function, target) {
            (&Step::Unary(function), DataMut::Half(out)) => {
                let (x, before) = self.half(link, 0, registers);
                map_slice(self.simd, function, Some(&x[start - before..][..out.len()]), stores, out);
            }
            (&Step::Binary(function, ref walk), DataMut::Half(out)) => {
                self.simd.run(BinaryTask { pairs: self.pairs(link, walk, registers), function, stores, out });
            }
            (&Step::Compare(comparison, ref walk), DataMut::Truth(out)) => {
                self.simd.run(CompareTask { pairs: self.pairs(link, walk, registers), comparison, out });
            }
            (Step::Not, DataMut::Truth(out)) => {
                let (x, before) = self.truth(link, registers);
                opposites(&x[start - before..], out);
            }
            (Step::Select(walk), DataMut::Half(out)) => {
                let (condition, first) = self.truth(link, registers);
                let [(a, second), (b, third)] = [1, 2].map(|operand| self.half(link, operand, registers));
                let before = [first, second, third];
                self.simd.run(SelectTask { walk, condition, a, b, start, before, out });
            }
            (function, target) => panic!("chain: {function:?} does not make {target:?}"),
        }
    }
    fn pairs<'a>(&'a self, link: &Placed, walk: &'a Walk<2>, registers: &Registers<'a>) -> Pairs<'a> {
        let [(a, first), (b, second)] = [0, 1].map(|operand| self.half(link, operand, registers));
        Pairs { walk, a, b, start: self.start, before: [first, second] }
    }

    /// An operand of a link, and how many elements lie before it.
    fn half<'a>(&'a self, link: &Placed, operand: usize, registers: &Registers<'a>) -> (&'a [f16], usize) {
        match link.sources[operand] {
            Place::Register(register) => (registers.get(register), self.start),
            Place::Operand(at) => match self.operands[at] {
                Data::Half(values) => (values, 0),
                other => panic!("chain: operand {at} is to be values in a place of their own, not {other:?}"),
            },
        }
    }

    /// The first operand of a link, truth values, and how many elements lie before it.
    fn truth<'a>(&'a self, link: &Placed, registers: &Registers<'a>) -> (&'a [u8], usize) {
        match link.sources[0] {
            Place::Register(register) => (bytemuck::cast_slice(registers.get(register)), self.start),
            Place::Operand(at) => match self.operands[at] {
                Data::Truth(values) => (values, 0),
                other => panic!("chain: operand {at} is to be truth values, not {other:?}"),
            },
        }
    }
}
