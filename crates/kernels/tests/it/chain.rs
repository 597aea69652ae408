//! Chains of elementwise functions, against the functions one by one.

use std::cell::RefCell;

use aneforge_kernels::gemm::Rows;
use aneforge_kernels::map::{self, Argument, Chain, Data, DataMut, Function, Link, Unary};
use aneforge_kernels::{Kernels, Layout, Scratch, Stores, View, Watch, f16};
use proptest::prelude::*;

use super::map::{BINARY, COMPARE, all_unary, element, shapes};
use super::support::{Random, assert_same, cases, check, contexts, wild_values};

/// An operand or the result of a link.
#[derive(Clone, Debug)]
enum Value {
    Half(Vec<f16>),
    Truth(Vec<u8>),
}

impl Value {
    fn half(&self) -> &[f16] {
        match self {
            Value::Half(values) => values,
            Value::Truth(_) => panic!("truth values"),
        }
    }

    fn truth(&self) -> &[u8] {
        match self {
            Value::Truth(values) => values,
            Value::Half(_) => panic!("values"),
        }
    }

    fn data(&self) -> Data<'_> {
        match self {
            Value::Half(values) => Data::Half(values),
            Value::Truth(values) => Data::Truth(values),
        }
    }
}

/// Where values of this shape are whose rows are one element apart, behind three others; and all of them.
fn with_gaps(shape: &[usize], values: &[f16]) -> (Layout, Vec<f16>) {
    let columns = shape.last().map_or(1, |&columns| columns.max(1));
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis] + usize::from(axis + 1 == shape.len());
    }
    let mut all = vec![f16::NAN; 3];
    values.chunks(columns).for_each(|row| all.extend(row.iter().copied().chain([f16::NAN])));
    (Layout::new(3, shape, &strides), all)
}

/// A chain with its operands.
#[derive(Debug)]
struct Drawn {
    shape: Vec<usize>,
    operands: Vec<(Vec<usize>, Value)>,
    links: Vec<Link>,
}

impl Drawn {
    fn of(&self, source: Argument) -> (&[usize], bool) {
        match source {
            Argument::Operand(at) => (&self.operands[at].0, matches!(self.operands[at].1, Value::Truth(_))),
            Argument::Link(at) => (&self.shape, self.links[at].function.is_truth()),
        }
    }

    /// Something to read: of this kind, and of the result's shape if it has to be.
    fn source(&self, truth: bool, whole: bool, random: &mut Random) -> Option<Argument> {
        let operands = (0..self.operands.len()).map(Argument::Operand);
        let all = operands.chain((0..self.links.len()).map(Argument::Link));
        let fits: Vec<Argument> = all
            .filter(|&source| {
                let (shape, is_truth) = self.of(source);
                is_truth == truth && (!whole || *shape == self.shape)
            })
            .collect();
        // Rather late ones, so that values live short and long.
        let late = fits.len().min(if random.below(2) == 0 { 2 } else { usize::MAX });
        (!fits.is_empty()).then(|| fits[fits.len() - 1 - random.below(late)])
    }

    fn draw(shape: &[usize], operands: &[Vec<usize>], links: usize, random: &mut Random) -> Drawn {
        let mut drawn = Drawn { shape: shape.to_vec(), operands: Vec::new(), links: Vec::new() };
        for (at, shape) in std::iter::once(shape).chain(operands.iter().map(|s| &s[..])).enumerate() {
            let values = wild_values(shape.iter().product(), random.next().into());
            let truth = at > 1 && random.below(2) == 0;
            let truths = || values.iter().map(|x| u8::from(x.to_f32() > 0.0)).collect();
            let value = if truth { Value::Truth(truths()) } else { Value::Half(values.clone()) };
            drawn.operands.push((shape.to_vec(), value));
        }
        while drawn.links.len() < links {
            let (function, kinds, whole): (_, &[bool], _) = match random.below(8) {
                0..3 => (Function::Unary(all_unary()[random.below(all_unary().len())]), &[false], true),
                3..6 => (Function::Binary(BINARY[random.below(7)]), &[false, false], false),
                6 => (Function::Compare(COMPARE[random.below(6)]), &[false, false], false),
                _ if random.below(3) == 0 => (Function::Not, &[true], true),
                _ => (Function::Select, &[true, false, false], false),
            };
            let sources: Option<Vec<Argument>> =
                kinds.iter().map(|&truth| drawn.source(truth, whole, random)).collect();
            let looks = matches!(function, Function::Unary(_) | Function::Binary(_));
            let [flush_nan, watched] = [0, 0].map(|_| looks && random.below(2) == 0);
            drawn.links.extend(sources.map(|sources| Link { function, sources, flush_nan, watched }));
        }
        drawn
    }

    /// The result of every link, and how many infinities and NaN it made of finite operands.
    fn one_by_one(&self, kernels: &Kernels) -> (Vec<Value>, Vec<usize>) {
        let count = self.shape.iter().product();
        let (mut values, mut made): (Vec<Value>, Vec<usize>) = (Vec::new(), Vec::new());
        for link in &self.links {
            let value = |at: usize| match link.sources[at] {
                Argument::Operand(at) => &self.operands[at].1,
                Argument::Link(at) => &values[at],
            };
            let view = |at: usize| View::new(value(at).half(), self.of(link.sources[at]).0);
            let mut out = vec![f16::ZERO; count];
            let mut truths = vec![0; count];
            match link.function {
                Function::Unary(f) => map::unary(kernels, f, value(0).half(), Stores::default(), &mut out),
                Function::Binary(f) => {
                    map::binary(kernels, f, view(0), view(1), &self.shape, Stores::default(), &mut out);
                }
                Function::Compare(f) => {
                    map::compare(kernels, f, view(0), view(1), &self.shape, &mut truths);
                }
                Function::Not => map::logical_not(kernels, value(0).truth(), &mut truths),
                Function::Select => {
                    let condition = View::new(value(0).truth(), self.of(link.sources[0]).0);
                    map::select(kernels, condition, view(1), view(2), &self.shape, &mut out);
                }
            }
            let finite = |i: usize| {
                let operand = |at: usize| {
                    let at_element = element(&self.shape, self.of(link.sources[at]).0, i);
                    value(at).half()[at_element].is_finite()
                };
                (0..link.sources.len()).all(operand)
            };
            let overflows = |&i: &usize| !out[i].is_finite() && finite(i);
            made.push(if link.watched { (0..count).filter(overflows).count() } else { 0 });
            out.iter_mut().filter(|v| link.flush_nan && v.is_nan()).for_each(|v| *v = f16::ZERO);
            values.push(if link.function.is_truth() { Value::Truth(truths) } else { Value::Half(out) });
        }
        (values, made)
    }

    /// Holds the chain up to its last link of each kind to the links one by one, with the first operand in place or not.
    fn check(&self) {
        let (values, made) = self.one_by_one(&contexts()[0]);
        let shapes: Vec<&[usize]> = self.operands.iter().map(|(shape, _)| &shape[..]).collect();
        let data: Vec<Data<'_>> = self.operands.iter().map(|(_, value)| value.data()).collect();
        let mut in_place = data.clone();
        in_place[0] = Data::InPlace;
        let watch = RefCell::new(Watch::default());
        let of = |kernels: &Kernels, chain: &Chain, data: &[Data<'_>], out: DataMut<'_>| {
            let mut scratch = Scratch::with_capacity(chain.scratch(kernels));
            let mut watch = watch.borrow_mut();
            chain.run(kernels, data, &watch, &mut scratch, out);
            let found: Vec<usize> = chain.take_made().collect();
            assert_eq!(found, made, "{kernels:?}");
            assert_eq!(watch.take(), made.iter().any(|&made| made > 0), "{kernels:?}");
            assert!(chain.take_made().all(|made| made == 0));
        };
        let chain = |in_place| Chain::new(&self.shape, &shapes, &self.links, in_place);
        let laid = |(shape, value): &(Vec<usize>, Value)| match value {
            Value::Half(values) => with_gaps(shape, values),
            Value::Truth(_) => (Layout::row_major(shape), Vec::new()),
        };
        let laid: Vec<(Layout, Vec<f16>)> = self.operands.iter().map(laid).collect();
        let layouts: Vec<Layout> = laid.iter().map(|(layout, _)| *layout).collect();
        let data_apart = laid.iter().zip(&data).map(|((_, all), &data)| match data {
            Data::Half(_) => Data::Half(all),
            other => other,
        });
        let data_apart: Vec<Data<'_>> = data_apart.collect();
        match &values[values.len() - 1] {
            Value::Half(want) => {
                let (apart, together) = (chain(None), chain(Some(0)));
                check(want, "chain", |kernels, out| of(kernels, &apart, &data, DataMut::Half(out)));
                check(want, "chain in place", |kernels, out| {
                    out.copy_from_slice(self.operands[0].1.half());
                    of(kernels, &together, &in_place, DataMut::Half(out));
                });
                // From rows with gaps, into such.
                let columns = self.shape.last().copied().unwrap_or(1);
                let rows = (columns, Rows { start: 2, pitch: columns + 3 });
                let apart = Chain::between(&self.shape, &layouts, &self.links, None, Some(rows));
                let mut wanted = vec![f16::ONE; 2];
                want.chunks(columns.max(1))
                    .for_each(|row| wanted.extend(row.iter().copied().chain([f16::ONE; 3])));
                check(&wanted, "chain of rows apart", |kernels, out| {
                    out.fill(f16::ONE);
                    of(kernels, &apart, &data_apart, DataMut::Half(out));
                });
            }
            Value::Truth(want) => {
                let apart = Chain::between(&self.shape, &layouts, &self.links, None, None);
                for kernels in contexts() {
                    for (chain, data) in [(&chain(None), &data), (&apart, &data_apart)] {
                        let mut out = vec![9; want.len()];
                        of(kernels, chain, data, DataMut::Truth(&mut out));
                        assert_eq!(&out, want, "{kernels:?}");
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn chains_are_their_links_one_by_one((shape, operands, seed) in shapes(4), links in 1..12_usize) {
        Drawn::draw(&shape, &operands, links, &mut Random(seed)).check();
    }
}

/// Longer than a register, and than what one thread takes at a time; not a multiple of either.
#[test]
fn long_chains_are_shared_among_threads() {
    let operands = [vec![3, 41, 301], vec![41, 1], vec![301], vec![1], vec![3, 1, 1]];
    for seed in 0..12 {
        let mut random = Random(seed);
        let links = 1 + random.below(9);
        Drawn::draw(&[3, 41, 301], &operands, links, &mut random).check();
    }
}

#[test]
fn every_function_may_be_any_link() {
    let shape = [5, 7];
    let x = (shape.to_vec(), Value::Half(wild_values(35, 1)));
    let row = (vec![7], Value::Half(wild_values(7, 2)));
    let link = |function, sources: &[Argument]| Link {
        function,
        sources: sources.to_vec(),
        flush_nan: false,
        watched: true,
    };
    let (x_of, row_of, first) = (Argument::Operand(0), Argument::Operand(1), Argument::Link(0));
    for (at, unary) in all_unary().into_iter().map(Function::Unary).enumerate() {
        let binary = Function::Binary(BINARY[at % 7]);
        let links =
            vec![link(unary, &[x_of]), link(binary, &[first, row_of]), link(unary, &[Argument::Link(1)])];
        let operands = vec![x.clone(), row.clone()];
        Drawn { shape: shape.to_vec(), operands, links }.check();
    }
}

#[test]
fn a_chain_of_nothing_and_registers_that_are_reused() {
    let square = |source| Link {
        function: Function::Unary(Unary::Abs),
        sources: vec![source],
        flush_nan: false,
        watched: false,
    };
    let links: Vec<Link> = std::iter::once(square(Argument::Operand(0)))
        .chain((0..30).map(|at| square(Argument::Link(at))))
        .collect();
    for kernels in contexts() {
        let empty = Chain::new(&[0, 3], &[&[0, 3]], &links, None);
        let mut scratch = Scratch::new();
        empty.run(kernels, &[Data::Half(&[])], &Watch::default(), &mut scratch, DataMut::Half(&mut []));
        // Two registers of 2048 values of half precision for each thread, however many links there are.
        assert_eq!(empty.scratch(kernels), 2048 * kernels.pool().threads());
        let x = wild_values(5000, 3);
        let mut out = vec![f16::ZERO; 5000];
        let chain = Chain::new(&[5000], &[&[5000]], &links, None);
        chain.run(kernels, &[Data::Half(&x)], &Watch::default(), &mut scratch, DataMut::Half(&mut out));
        let want: Vec<f16> = x.iter().map(|x| f16::from_f32(x.to_f32().abs())).collect();
        assert_same(kernels, &out, &want, "thirty links");
    }
}
