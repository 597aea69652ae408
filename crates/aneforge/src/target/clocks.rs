//! Clocks and cores of the chips, from which costs on chips that were not measured are scaled.
//!
//! Evidence: the frequency tables that ANEForge 0.4.0 ships (arXiv 2606.17090).

use super::Target;

/// How fast a chip's engine is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Curve {
    /// Cores of the engine.
    pub cores: u32,
    /// Clock in MHz, and the clock at which work in fact proceeds.
    pub points: Points,
}

/// Clocks in MHz, and the clocks at which work in fact proceeds.
type Points = &'static [(f64, f64)];

/// The part of the highest clock that is sustained.
///
/// Evidence: the compiler's cost model in ANEForge 0.4.0 and in arXiv 2606.22283 c18, every chip (decompiled).
const SUSTAINED: f64 = 0.8;

impl Curve {
    /// The curve of a chip: its own cores, with its own clocks or those of its family's representative. `None` before
    /// A13, but for h11, and where the cores are not known.
    pub fn of(target: Target) -> Option<Curve> {
        let named = |name: &str| RECORDED.iter().find(|r| r.0 == name).map(|r| r.1);
        let points = named(target.name()).or_else(|| named(target.family().representative()?.name()))?;
        Some(Curve { cores: target.chip().cores?, points })
    }

    /// The sustained clock in MHz.
    pub fn clock(&self) -> f64 {
        let highest = self.points.iter().map(|p| p.0).fold(0.0, f64::max);
        SUSTAINED * highest
    }

    /// The clock in MHz at which work proceeds, interpolated at the sustained clock.
    pub fn effective(&self) -> f64 {
        let at = self.clock();
        let (first, last) = (self.points[0], self.points[self.points.len() - 1]);
        if at <= first.0 {
            return first.1;
        }
        let between = self.points.windows(2).find(|pair| at <= pair[1].0);
        between.map_or(last.1, |pair| {
            let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
            y0 + (y1 - y0) * (at - x0) / (x1 - x0)
        })
    }

    /// Throughput in units of h13's, the M1.
    pub fn scale(&self) -> f64 {
        f64::from(self.cores) * self.effective() / (4.0 * 1142.4)
    }
}

#[rustfmt::skip]
mod tables {
    use super::Points;

    /// Clocks, and effective clocks.
    ///
    /// Evidence: the frequency tables that ANEForge 0.4.0 ships, every chip (decompiled).
    const H11: &[(f64, f64)] = &[(348.0, 348.0), (456.0, 456.0), (636.0, 636.0), (816.0, 816.0), (1152.0, 1152.0), (1260.0, 1260.0)];
    const H13: &[(f64, f64)] = &[(396.0, 396.0), (420.0, 420.0), (558.0, 558.0), (606.0, 606.0), (720.0, 720.0), (816.0, 816.0), (912.0, 912.0), (1104.0, 1104.0), (1284.0, 1284.0), (1428.0, 1428.0)];
    const H13G: &[(f64, f64)] = &[(432.0, 432.0), (492.0, 492.0), (552.0, 552.0), (684.0, 684.0), (804.0, 804.0), (888.0, 888.0), (996.0, 996.0), (1164.0, 1164.0), (1236.0, 1236.0), (1320.0, 1320.0), (1380.0, 1380.0), (1464.0, 1464.0)];
    const H14: &[(f64, f64)] = &[(528.0, 444.0), (552.0, 468.0), (744.0, 600.0), (960.0, 732.0), (1128.0, 840.0), (1200.0, 888.0), (1404.0, 1044.0), (1512.0, 1128.0), (1938.0, 1452.0)];
    const H15: &[(f64, f64)] = &[(408.0, 348.0), (444.0, 384.0), (588.0, 504.0), (636.0, 540.0), (732.0, 612.0), (864.0, 696.0), (1020.0, 804.0), (1068.0, 828.0), (1128.0, 864.0), (1248.0, 936.0), (1356.0, 1008.0), (1386.0, 1032.0), (1446.0, 1068.0), (1536.0, 1128.0), (1608.0, 1176.0), (1716.0, 1248.0), (1788.0, 1308.0), (1884.0, 1380.0), (1944.0, 1428.0), (2064.0, 1524.0)];
    const H15C: &[(f64, f64)] = &[(708.0, 600.0), (984.0, 780.0), (1260.0, 984.0), (1536.0, 1188.0), (1812.0, 1380.0), (2088.0, 1584.0), (2364.0, 1776.0)];
    const H16: &[(f64, f64)] = &[(372.0, 312.0), (444.0, 372.0), (708.0, 600.0), (804.0, 672.0), (864.0, 720.0), (972.0, 792.0), (1092.0, 876.0), (1104.0, 888.0), (1212.0, 972.0), (1224.0, 984.0), (1320.0, 1056.0), (1344.0, 1068.0), (1428.0, 1128.0), (1452.0, 1152.0), (1512.0, 1200.0), (1560.0, 1224.0), (1608.0, 1260.0), (1644.0, 1284.0), (1680.0, 1308.0), (1740.0, 1344.0), (1776.0, 1368.0), (1836.0, 1404.0), (1860.0, 1428.0), (1956.0, 1488.0), (1980.0, 1500.0), (2028.0, 1524.0), (2052.0, 1548.0), (2136.0, 1596.0), (2160.0, 1620.0)];
    const H16S: &[(f64, f64)] = &[(744.0, 624.0), (900.0, 732.0), (924.0, 744.0), (1032.0, 816.0), (1164.0, 912.0), (1272.0, 984.0), (1356.0, 1032.0), (1500.0, 1140.0), (1524.0, 1152.0), (1668.0, 1248.0), (1680.0, 1260.0), (1800.0, 1344.0), (1812.0, 1356.0), (1932.0, 1440.0), (1956.0, 1464.0), (2064.0, 1536.0), (2148.0, 1608.0), (2160.0, 1608.0), (2208.0, 1656.0), (2232.0, 1668.0), (2256.0, 1692.0), (2292.0, 1716.0), (2304.0, 1728.0), (2328.0, 1752.0), (2364.0, 1788.0)];
    const H17: &[(f64, f64)] = &[(396.0, 360.0), (456.0, 396.0), (624.0, 528.0), (708.0, 600.0), (816.0, 660.0), (900.0, 720.0), (972.0, 780.0), (1068.0, 840.0), (1104.0, 876.0), (1200.0, 936.0), (1236.0, 960.0), (1332.0, 1032.0), (1344.0, 1044.0), (1440.0, 1116.0), (1536.0, 1188.0), (1620.0, 1248.0), (1656.0, 1272.0), (1716.0, 1308.0), (1764.0, 1344.0), (1812.0, 1380.0), (1860.0, 1416.0), (1908.0, 1452.0), (1944.0, 1476.0), (1992.0, 1512.0), (2016.0, 1536.0), (2064.0, 1560.0), (2076.0, 1572.0), (2124.0, 1608.0), (2148.0, 1632.0), (2172.0, 1644.0)];
    const M11: &[(f64, f64)] = &[(500.0, 500.0)];

    /// Which chip the clocks were recorded for.
    pub static RECORDED: [(&str, Points); 14] = [
        ("h11", H11),
        ("h13", H13),
        ("h13g", H13G),
        ("t1", H13),
        ("h14", H14),
        ("h15", H15),
        ("h15c", H15C),
        ("h16", H16),
        ("h16s", H16S),
        ("h17", H17),
        ("h17s", H16S),
        ("h17c", H16S),
        ("h17d", H16S),
        ("m11", M11),
    ];
}
use tables::RECORDED;

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference's table of chips: sustained GHz, effective MHz, and throughput in units of M1's. Where the
    /// compiler's table has other cores than the curve that the reference borrows, the throughput is that of the cores,
    /// and the reference's stands behind it.
    #[test]
    fn chips_are_the_references() {
        let rows = [
            ("h11", 1.0080, 1008.00, 0.8824, [4, 4]),
            ("h13", 1.1424, 1142.40, 1.0000, [4, 4]),
            ("h13g", 1.1712, 1171.20, 2.0504, [8, 8]),
            ("t1", 1.1424, 1142.40, 4.0000, [16, 16]),
            ("h14", 1.5504, 1157.21, 1.0130, [4, 4]),
            ("h14g", 1.5504, 1157.21, 1.0130, [4, 8]),
            ("h14c", 1.5504, 1157.21, 1.0130, [4, 32]),
            ("h15", 1.6512, 1204.80, 1.0546, [4, 4]),
            ("h15g", 1.6512, 1204.80, 1.0546, [4, 8]),
            ("h15c", 1.8912, 1438.54, 10.0738, [32, 32]),
            ("m11", 0.4000, 500.00, 0.1094, [1, 1]),
            ("h16", 1.7280, 1336.80, 1.1702, [4, 4]),
            ("h16g", 1.8912, 1411.44, 4.9420, [16, 8]),
            ("h16c", 1.8912, 1411.44, 4.9420, [16, 32]),
            ("h16s", 1.8912, 1411.44, 4.9420, [16, 16]),
            ("h17", 1.7376, 1324.20, 1.1591, [4, 4]),
            ("h17a", 1.8912, 1411.44, 4.9420, [16, 4]),
            ("h17g", 1.8912, 1411.44, 4.9420, [16, 8]),
            ("h17s", 1.8912, 1411.44, 4.9420, [16, 16]),
            ("h17c", 1.8912, 1411.44, 9.8840, [32, 32]),
            ("h17d", 1.8912, 1411.44, 19.7681, [64, 64]),
            ("h18", 1.8912, 1411.44, 4.9420, [16, 4]),
        ];
        for (name, ghz, effective, scale, [theirs, cores]) in rows {
            let curve = Curve::of(Target::named(name).unwrap()).unwrap();
            let close = |got: f64, want: f64, places: f64| (got - want).abs() <= 0.5 * places;
            assert!(close(curve.clock() / 1000.0, ghz, 1.01e-4), "{name}: {}", curve.clock());
            assert!(close(curve.effective(), effective, 0.0101), "{name}: {}", curve.effective());
            assert_eq!(curve.cores, cores, "{name}");
            let as_theirs = Curve { cores: theirs, ..curve }.scale();
            assert!(close(as_theirs, scale, 1.01e-4), "{name}: {as_theirs}");
            assert!(
                (curve.scale() / as_theirs - f64::from(cores) / f64::from(theirs)).abs() < 1e-12,
                "{name}"
            );
        }
        for unknown in ["h12", "m9", "t0", "h18p", "h19p"] {
            assert_eq!(Curve::of(Target::named(unknown).unwrap()), None, "{unknown}");
        }
    }
}
