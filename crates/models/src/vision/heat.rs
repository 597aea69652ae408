//! Where a network looks: its attention, and as a picture.

use super::picture::Picture;
use super::processor::Filter;

/// How much a network looks at each part of a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Looks {
    heads: usize,
    rows: usize,
    columns: usize,
    /// A share for each head, row and column.
    values: Vec<f32>,
}

/// Colours from little to much, in even steps: matplotlib's `inferno`.
const COLOURS: [[u8; 3]; 9] = [
    [0, 0, 4],
    [32, 12, 74],
    [87, 16, 110],
    [138, 34, 106],
    [188, 55, 84],
    [228, 90, 49],
    [249, 142, 9],
    [249, 203, 53],
    [252, 255, 164],
];
/// How much of a heat map is colour; the rest is the picture in grey.
const COLOUR: f32 = 0.65;

impl Looks {
    pub(super) fn new(heads: usize, rows: usize, columns: usize, values: Vec<f32>) -> Looks {
        debug_assert_eq!(values.len(), heads * rows * columns);
        Looks { heads, rows, columns, values }
    }

    /// How many heads look.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Rows of parts.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of parts.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// A share for each head, row and column. Those of a head sum to 1, but for what it looks at beside the parts.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The mean of all heads for each row and column.
    pub fn mean(&self) -> Vec<f32> {
        let each = self.rows * self.columns;
        let of = |at: usize| self.values.chunks_exact(each).map(|head| head[at]).sum::<f32>();
        (0..each).map(|at| of(at) / self.heads as f32).collect()
    }

    /// The mean of all heads in colours on a picture, from the part that is looked at the least to that which is the most.
    pub fn over(&self, picture: &Picture) -> Picture {
        let mean = self.mean();
        let (least, most) =
            mean.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, m), &v| (l.min(v), m.max(v)));
        let range = if most > least { most - least } else { 1.0 };
        let level = |value: &f32| ((value - least) / range * 255.0).round() as u8;
        let grey: Vec<u8> = mean.iter().flat_map(|value| [level(value); 3]).collect();
        let map = Picture::new(self.columns, self.rows, grey).expect("invariant: three bytes for each part");
        let map = map.resized(picture.width(), picture.height(), Filter::Bilinear);
        let pixel = |(rgb, heat): (&[u8], &[u8])| {
            let shade = 0.299 * f32::from(rgb[0]) + 0.587 * f32::from(rgb[1]) + 0.114 * f32::from(rgb[2]);
            colour(f32::from(heat[0]) / 255.0).map(|c| (COLOUR * c + (1.0 - COLOUR) * shade).round() as u8)
        };
        let pixels = picture.rgb().chunks_exact(3).zip(map.rgb().chunks_exact(3)).flat_map(pixel).collect();
        Picture::new(picture.width(), picture.height(), pixels).expect("invariant: as many pixels as before")
    }
}

/// The colour of a level from 0 to 1.
fn colour(level: f32) -> [f32; 3] {
    let place = level * (COLOURS.len() - 1) as f32;
    let below = (place as usize).min(COLOURS.len() - 2);
    let part = place - below as f32;
    std::array::from_fn(|channel| {
        let [a, b] = [below, below + 1].map(|at| f32::from(COLOURS[at][channel]));
        a + (b - a) * part
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_at_is_bright() {
        let looks = Looks::new(2, 1, 2, vec![0.2, 0.8, 0.4, 0.6]);
        assert!(looks.mean().iter().zip([0.3, 0.7]).all(|(a, b)| (a - b).abs() < 1e-6));
        let picture = Picture::new(20, 10, vec![90; 600]).unwrap();
        let map = looks.over(&picture);
        assert_eq!((map.width(), map.height()), (20, 10));
        let at = |column: usize| &map.rgb()[3 * column..][..3];
        let mixed = |c: [u8; 3]| c.map(|c| (COLOUR * f32::from(c) + (1.0 - COLOUR) * 90.0).round() as u8);
        assert_eq!(at(0), mixed(COLOURS[0]));
        assert_eq!(at(19), mixed(COLOURS[8]));
        let even = Looks::new(1, 1, 2, vec![0.5, 0.5]).over(&picture);
        assert!(even.rgb().chunks_exact(3).all(|pixel| pixel == mixed(COLOURS[0])));
    }
}
