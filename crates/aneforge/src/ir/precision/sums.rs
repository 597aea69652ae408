//! The orders in which sums are taken, and what the engine loses in them.

use crate::ir::numerics::Arithmetic;

/// Partial sums of a reduction: element `i` is added to lane `i % 16`.
pub const LANES: usize = 16;

/// A sum: sixteen lanes, each left to right, then a tree of halves; or the engine's tiles of four.
#[derive(Clone, Debug)]
pub struct Sum {
    order: Order,
    index: usize,
}

#[derive(Clone, Debug)]
enum Order {
    Exact(f64),
    Lanes([f32; LANES]),
    Tiles(Tiles),
}

impl Sum {
    pub(super) fn exact() -> Sum {
        Sum { order: Order::Exact(0.0), index: 0 }
    }

    pub(super) fn of_singles() -> Sum {
        Sum { order: Order::Lanes([0.0; LANES]), index: 0 }
    }

    pub(super) fn of_plain_values(rules: &Arithmetic) -> Sum {
        match rules.tile_bits {
            Some(bits) => Sum { order: Order::Tiles(Tiles::new(bits)), index: 0 },
            None => Sum::of_singles(),
        }
    }

    /// Adds the next element.
    pub fn push(&mut self, v: f64) {
        match &mut self.order {
            Order::Exact(sum) => *sum += v,
            Order::Lanes(lanes) => lanes[self.index % LANES] += v as f32,
            Order::Tiles(tiles) => tiles.push(v),
        }
        self.index += 1;
    }

    /// Leaves out the next element, as padding.
    pub fn skip(&mut self) {
        if let Order::Tiles(tiles) = &mut self.order {
            tiles.push(0.0);
        }
        self.index += 1;
    }

    /// The sum of all elements.
    pub fn total(self) -> f64 {
        let mut lanes = match self.order {
            Order::Exact(sum) => return sum,
            Order::Tiles(tiles) => return tiles.total(),
            Order::Lanes(lanes) => lanes,
        };
        let mut half = LANES / 2;
        while half > 0 {
            for lane in 0..half {
                lanes[lane] += lanes[lane + half];
            }
            half /= 2;
        }
        f64::from(lanes[0])
    }
}

/// Lanes whose sum the engine takes at once.
///
/// Evidence: guide (arXiv 2606.22283) ch. 3, M1: first stages take lanes four at a time (measured).
const TILE: usize = 4;

/// A sum in tiles of four lanes, from left to right, each with few bits; tiles are summed wide.
///
/// Of every order, width and rounding that we tried, this alone gives all published sums: an adder that aligns both operands
/// to the larger one, keeps so many bits, and rounds toward zero.
#[derive(Clone, Debug)]
struct Tiles {
    bits: u32,
    tile: f64,
    filled: usize,
    total: f64,
}

impl Tiles {
    fn new(bits: u32) -> Tiles {
        Tiles { bits, tile: 0.0, filled: 0, total: 0.0 }
    }

    fn push(&mut self, v: f64) {
        self.tile = if self.filled == 0 { v } else { added(self.tile, v, self.bits) };
        self.filled += 1;
        if self.filled == TILE {
            self.total += self.tile;
            (self.tile, self.filled) = (0.0, 0);
        }
    }

    fn total(self) -> f64 {
        self.total + self.tile
    }
}

/// `a + b` by an adder of so many significant bits, which cuts what does not fit.
fn added(a: f64, b: f64, bits: u32) -> f64 {
    let largest = a.abs().max(b.abs());
    if largest == 0.0 || !(a + b).is_finite() {
        return a + b;
    }
    let sum = cut(a, exponent(largest), bits) + cut(b, exponent(largest), bits);
    // It may have carried into one bit more.
    cut(sum, exponent(sum), bits)
}

/// Of a number that double precision does not hold as a subnormal one.
fn exponent(v: f64) -> u32 {
    (v.to_bits() >> 52) as u32 & 0x7ff
}

/// `v` without what lies behind so many bits of a number of this exponent, toward zero.
fn cut(v: f64, of: u32, bits: u32) -> f64 {
    let below = of - exponent(v);
    match bits.checked_sub(below) {
        None | Some(0) => 0.0,
        Some(kept) => f64::from_bits(v.to_bits() & (u64::MAX << (53 - kept))),
    }
}

/// Products per block of a dot product.
pub const BLOCK: usize = 32;

/// A dot product in the defined order: per block of 32 products, one fused-multiply-add chain over the
/// even places and one over the odd, whose sum is added to the total. It is the order of x86's
/// TDPFP16PS instruction, so matrix units compute it directly.
#[derive(Clone, Debug)]
pub struct Dot {
    single: bool,
    exact: f64,
    total: f32,
    pair: [f32; 2],
    filled: usize,
    engine: Option<Engine>,
}

/// What the engine does to a dot product beside: the lanes of the hardware, padding among them.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    rules: &'static Arithmetic,
    /// The sum so far, lane after lane.
    partial: f64,
    /// The infinity that it has become.
    beyond: Option<f64>,
    /// The sum of the first factors as long as every second one is 1, and the other way around.
    plain: [Option<Tiles>; 2],
}

impl Engine {
    /// Nothing where these rules lose nothing in sums.
    pub(crate) fn new(rules: &'static Arithmetic) -> Option<Engine> {
        let plain = |bits| [Some(Tiles::new(bits)), Some(Tiles::new(bits))];
        rules.tile_bits.map(|bits| Engine { rules, partial: 0.0, beyond: None, plain: plain(bits) })
    }

    /// Adds the product of the next two elements.
    pub(crate) fn push(&mut self, a: f64, b: f64) {
        // The sum of all is limited where it is stored.
        if self.beyond.is_none() && self.rules.store(self.partial).abs() > self.rules.partial_limit {
            self.beyond = Some(f64::INFINITY.copysign(self.partial));
        }
        self.partial += a * b;
        for (plain, (value, other)) in self.plain.iter_mut().zip([(a, b), (b, a)]) {
            match plain {
                Some(tiles) if other == 1.0 => tiles.push(value),
                _ => *plain = None,
            }
        }
    }

    /// The sum, where it is another than that of the products.
    pub(crate) fn total(self) -> Option<f64> {
        self.beyond.or_else(|| self.plain.into_iter().flatten().next().map(Tiles::total))
    }
}

impl Dot {
    pub(super) fn exact() -> Dot {
        Dot { single: false, exact: 0.0, total: 0.0, pair: [0.0; 2], filled: 0, engine: None }
    }

    pub(super) fn of_singles(rules: &'static Arithmetic) -> Dot {
        Dot { single: true, engine: Engine::new(rules), ..Dot::exact() }
    }

    /// Adds the product of the next two elements.
    pub fn push(&mut self, a: f64, b: f64) {
        if !self.single {
            self.exact += a * b;
            return;
        }
        let (mut a, mut b) = (a, b);
        if let Some(engine) = &mut self.engine {
            (a, b) = (engine.rules.flushed(a), engine.rules.flushed(b));
            engine.push(a, b);
        }
        let chain = &mut self.pair[self.filled % 2];
        *chain = (a as f32).mul_add(b as f32, *chain);
        self.skip(1);
    }

    /// Passes over a place where a kernel hangs over the edge of an image: zeros lie there, which an infinite weight makes no number of.
    pub fn pad(&mut self, weight: f64) {
        if !weight.is_finite() {
            return self.push(0.0, weight);
        }
        if let Some(engine) = &mut self.engine {
            engine.push(0.0, engine.rules.flushed(weight));
        }
        self.skip(1);
    }

    /// Passes over `n` places whose product is zero.
    pub fn skip(&mut self, n: usize) {
        self.filled += n;
        if self.filled >= BLOCK {
            self.end_block();
        }
    }

    /// Ends a block before it is full.
    pub fn end_block(&mut self) {
        self.total += self.pair[0] + self.pair[1];
        self.pair = [0.0; 2];
        self.filled = 0;
    }

    /// The sum of all products.
    pub fn total(mut self) -> f64 {
        if !self.single {
            return self.exact;
        }
        if let Some(total) = self.engine.take().and_then(Engine::total) {
            return total;
        }
        self.end_block();
        f64::from(self.total)
    }
}

#[cfg(test)]
mod tests {
    use crate::ir::numerics::{Family, Numerics};
    use crate::ir::precision::Precision;

    const M1: Precision = Precision::F16(Numerics::Faithful(Family::A13));

    /// `v @ ones`, stored.
    fn by_ones(values: &[f64]) -> f64 {
        let mut dot = M1.dot();
        values.iter().for_each(|&v| dot.push(v, 1.0));
        let mut turned = M1.dot();
        values.iter().for_each(|&v| turned.push(1.0, v));
        let (one, other) = (M1.store_product(dot.total()), M1.store_product(turned.total()));
        assert_eq!(one, other);
        one
    }

    /// Every half from 1 to the one before the limit, which sums with ones pass: 16 ones survive beside what is below 4096, and 4 from there
    /// on, in both layouts.
    #[test]
    fn ones_survive_beside_what_is_below_4096() {
        for bits in 0x3c00u16..=0x77fe {
            let b = aneforge_tensor::f16::from_bits(bits).to_f64();
            for layout in [[b, -b, 1.0], [b, 1.0, -b]] {
                let want = if b < 4096.0 { 16.0 } else { 4.0 };
                assert_eq!(by_ones(&layout.repeat(16)), want, "{layout:?}");
            }
        }
    }

    /// What does not fit the larger operand's twelve bits is cut before the sum is.
    #[test]
    fn the_smaller_operand_is_cut() {
        for (a, b, sum) in [
            (4096.0, -3.0, 4094.0),
            (4096.0, 3.0, 4098.0),
            (2048.0, 3.0, 2051.0),
            (4095.0, 2.0, 4096.0),
            (-4096.0, 1.0, -4096.0),
            (1e-7, 4096.0, 4096.0),
        ] {
            assert_eq!((super::added(a, b, 12), super::added(b, a, 12)), (sum, sum), "{a} + {b}");
        }
    }

    #[test]
    fn partial_sums_overflow_where_products_do() {
        let sum = |values: &[f64], weight: f64| {
            let mut dot = M1.dot();
            values.iter().for_each(|&v| dot.push(v, weight));
            M1.store_product(dot.total())
        };
        assert_eq!(sum(&[30000.0, 30000.0, -30000.0, -30000.0], 1.0), f64::INFINITY);
        assert_eq!(sum(&[-30000.0, -30000.0, 30000.0, 30000.0], 0.75), f64::NEG_INFINITY);
        assert_eq!(sum(&[30000.0, -30000.0, 30000.0, -30000.0], 0.75), 0.0);
        assert_eq!(sum(&[16000.0, 16759.0], 1.0), 32752.0, "32759 is below the middle");
        assert_eq!(sum(&[16000.0, 16760.0], 1.0), f64::INFINITY);
    }
}
