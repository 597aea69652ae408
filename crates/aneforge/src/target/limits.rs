//! Limits that a family's compiler enforces.

use super::Family;

/// Limits that a family's compiler enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest extent of an axis, but for the two below and the channels of a convolution's weight.
    pub tensor_dim: usize,
    /// The largest extent of the channel axis of a rank-4 tensor, and of the channels of a convolution's weight.
    pub channels: usize,
    /// The largest extent of a value that is transposed, and of an input that feeds a transpose.
    pub transposed: usize,
    /// The widest convolution kernel.
    pub kernel_width: usize,
    /// The tallest convolution kernel.
    pub kernel_height: usize,
    /// The widest kernel of a transposed convolution, in columns where it takes steps.
    pub stepped_width: usize,
    /// The tallest kernel of a transposed convolution, in rows where it takes steps.
    pub stepped_height: usize,
    /// Elements from which a reduction takes the route over a transpose, which computes the same. Rejects nothing.
    pub reduction_route: usize,
}

/// The widest kernel that any family accepts.
///
/// Evidence: ANEForge 0.4.0 rejects wider kernels when the graph is built, and its documentation
/// reports that widths of 16 and more fail in code generation.
pub const WIDEST_KERNEL: usize = 15;

/// The widest kernel before A16.
///
/// Evidence: measured on M1 (arXiv 2606.22283: 13 compiles, 14 is rejected); of A14 and A15 ANEForge 0.4.0's, where
/// the compiler's own table has 16, which nobody has tried.
const KERNEL_WIDTH: usize = 13;

/// The tallest kernel of A13: measured on M1 (arXiv 2606.22283).
const KERNEL_HEIGHT_A13: usize = 29;

/// The tallest kernel that any family accepts: the compiler's table from A14 on (arXiv 2606.22283), not measured.
pub const TALLEST_KERNEL: usize = 32;

/// Axes that take no channels: one step beyond flips acceptance on M1, M2 Pro and M5 Pro (arXiv 2606.22283), and so
/// ANEForge 0.4.0 has it; A15 is read from the compiler's table. That the batch may be longer is read there too, and
/// not used.
const TENSOR_DIM: usize = 16_384;
const TENSOR_DIM_A16: usize = 65_536;

/// Channels: measured on M1 and M2 (arXiv 2606.22283). A convolution's weight has more than [`TENSOR_DIM`] of them
/// (16,385 of each kind compile on M1).
const CHANNELS: usize = 65_536;

/// Accepted by ANEForge 0.4.0's tables; longer than 16,384 (65,536 from A16 on) the compiler splits a transpose into
/// passes (arXiv 2606.22283).
const TRANSPOSED: usize = 8_388_607;
const TRANSPOSED_A16: usize = 16_777_215;

/// Reductions from here on take another route, to the same result: measured on M1, M2 Pro and M5 Pro.
const REDUCTION_ROUTE: usize = 192;
const REDUCTION_ROUTE_A15: usize = 384;

/// Kernels of transposed convolutions along axes with steps: the compiler's table of its smaller class (arXiv
/// 2606.22283), not measured, so that more is only warned of.
const STEPPED_A13: [usize; 2] = [7, 15];
const STEPPED: [usize; 2] = [8, 16];

impl Family {
    /// What this family's compiler enforces; of the oldest families, what the oldest that run programs enforce.
    pub const fn limits(self) -> Limits {
        let old = Limits {
            tensor_dim: TENSOR_DIM,
            channels: CHANNELS,
            transposed: TRANSPOSED,
            kernel_width: KERNEL_WIDTH,
            kernel_height: KERNEL_HEIGHT_A13,
            stepped_width: STEPPED_A13[0],
            stepped_height: STEPPED_A13[1],
            reduction_route: REDUCTION_ROUTE,
        };
        let a14 = Limits {
            kernel_height: TALLEST_KERNEL,
            stepped_width: STEPPED[0],
            stepped_height: STEPPED[1],
            ..old
        };
        match self {
            Family::Older | Family::A13 => old,
            Family::A14 => a14,
            Family::A15 => Limits { reduction_route: REDUCTION_ROUTE_A15, ..a14 },
            Family::A16 => Limits {
                tensor_dim: TENSOR_DIM_A16,
                transposed: TRANSPOSED_A16,
                kernel_width: WIDEST_KERNEL,
                reduction_route: REDUCTION_ROUTE_A15,
                ..a14
            },
        }
    }
}

impl Limits {
    /// Every limit with its name: the first five are ANEForge 0.4.0's.
    pub fn named(&self) -> [(&'static str, usize); 8] {
        [
            ("max_tensor_dim", self.tensor_dim),
            ("channel_extent", self.channels),
            ("transpose_extent", self.transposed),
            ("conv_kw_max", self.kernel_width),
            ("reduction_transpose_extent", self.reduction_route),
            ("conv_kh_max", self.kernel_height),
            ("conv_transpose_strided_kw_max", self.stepped_width),
            ("conv_transpose_strided_kh_max", self.stepped_height),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference's table, the guide's below it.
    #[test]
    fn limits_of_each_family() {
        let rows = [
            ("max_tensor_dim", [16384, 16384, 16384, 65536]),
            ("channel_extent", [65536; 4]),
            ("transpose_extent", [8388607, 8388607, 8388607, 16777215]),
            ("conv_kw_max", [13, 13, 13, 15]),
            ("reduction_transpose_extent", [192, 192, 384, 384]),
            ("conv_kh_max", [29, 32, 32, 32]),
            ("conv_transpose_strided_kw_max", [7, 8, 8, 8]),
            ("conv_transpose_strided_kh_max", [15, 16, 16, 16]),
        ];
        for (place, (name, want)) in rows.into_iter().enumerate() {
            let got = [Family::A13, Family::A14, Family::A15, Family::A16].map(|f| f.limits().named()[place]);
            assert_eq!(got, want.map(|limit| (name, limit)));
        }
    }
}
