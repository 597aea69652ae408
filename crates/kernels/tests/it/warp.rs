//! Images seen through affine maps.

use aneforge_kernels::f16;
use aneforge_kernels::warp::{Axis, affine};
use proptest::prelude::*;

use super::support::{Random, cases, check, values, wild_values};

/// Coordinates from -1 to 1, which are the centres of the first and the last pixel.
fn axis(size: usize, places: usize) -> Axis {
    let coordinate = |i: usize| 2.0 * i as f64 / places as f64 - 1.0;
    let half = (size as f64 - 1.0) / 2.0;
    Axis { size, coordinates: (0..places).map(coordinate).collect(), slope: half, offset: half }
}

/// The sum over the pixels around a place, one after the other.
fn seen(plane: &[f16], map: &[f16], [rows, columns]: &[Axis; 2], (row, column): (usize, usize)) -> f16 {
    let (u, v) = (columns.coordinates[column], rows.coordinates[row]);
    let place = |at: usize, axis: &Axis| {
        let [by_u, by_v, shift] = [at, at + 1, at + 2].map(|i| map[i].to_f64());
        (by_u * u + by_v * v + shift) * axis.slope + axis.offset
    };
    let (across, down) = (place(0, columns), place(3, rows));
    let mut sum = 0.0_f32;
    for y in [down.floor(), down.floor() + 1.0] {
        for x in [across.floor(), across.floor() + 1.0] {
            if (0.0..rows.size as f64).contains(&y) && (0.0..columns.size as f64).contains(&x) {
                let share = ((1.0 - (down - y).abs()) * (1.0 - (across - x).abs())) as f32;
                sum += plane[y as usize * columns.size + x as usize].to_f32() * share;
            }
        }
    }
    f16::from_f32(sum)
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn planes_are_seen_through_the_map_of_their_image(
        images in 1..3_usize, channels in 1..5_usize, size in [1..9_usize, 1..40],
        places in [1..7_usize, 1..90], one in any::<bool>(), wild in any::<bool>(), seed in any::<u64>(),
    ) {
        let count = images * channels * size[0] * size[1];
        let x = if wild { wild_values(count, seed) } else { values(count, seed) };
        let mut random = Random(seed);
        // Maps that keep places on pixels, maps that look beside the image, and others.
        let entries = [f16::ZERO, f16::ONE, f16::NEG_ONE, f16::from_f32(0.37), f16::from_f32(-1.8), f16::MAX];
        let maps = if one { 1 } else { images };
        let maps: Vec<f16> = (0..6 * maps).map(|_| entries[random.below(entries.len())]).collect();
        let axes = [0, 1].map(|i| axis(size[i], places[i]));
        let pixels = || (0..places[0]).flat_map(|row| (0..places[1]).map(move |column| (row, column)));
        let planes = x.chunks(size[0] * size[1]).enumerate();
        let want: Vec<f16> = planes.flat_map(|(plane, x)| {
            let map = &maps[if one { 0 } else { plane / channels * 6 }..][..6];
            let axes = &axes;
            pixels().map(move |at| seen(x, map, axes, at))
        }).collect();
        check(&want, "affine", |kernels, out| affine(kernels, &x, channels, &maps, &axes, out));
    }
}

#[test]
fn pixels_beside_the_image_are_zeros_and_not_its_first() {
    let x = [f16::INFINITY, f16::ONE];
    let axes = [axis(1, 1), axis(2, 1)];
    // One pixel to the right of the last.
    let map = [0.0, 0.0, 3.0, 0.0, 0.0, 0.0].map(f16::from_f32);
    check(&[f16::ZERO], "beside", |kernels, out| affine(kernels, &x, 1, &map, &axes, out));
    // On the last: the first does not count, the one after it is not there.
    let map = [0.0, 0.0, 1.0, 0.0, 0.0, 0.0].map(f16::from_f32);
    check(&[f16::ONE], "on the border", |kernels, out| affine(kernels, &x, 1, &map, &axes, out));
}
