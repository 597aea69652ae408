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
/// ANEForge rejects wider kernels when the graph is built; 16 and more fail in code generation.
/// Evidence: ANEForge 0.4.0's documentation, M5 Pro (reported).
pub const WIDEST_KERNEL: usize = 15;

/// The widest kernel before A16.
///
/// 13 compiles and 14 is rejected. Of A14 and A15 it is ANEForge 0.4.0's; the compiler's own table has 16 there, which nobody
/// has tried.
/// Evidence: arXiv 2606.22283 c17, M1 (measured).
const KERNEL_WIDTH: usize = 13;

/// The tallest kernel of A13.
///
/// Evidence: arXiv 2606.22283 c17, M1 (measured).
const KERNEL_HEIGHT_A13: usize = 29;

/// The tallest kernel that any family accepts, from A14 on.
///
/// Evidence: the compiler's table in arXiv 2606.22283 aA, A14 and later (decompiled).
pub const TALLEST_KERNEL: usize = 32;

/// Axes that take no channels, before A16: one step beyond is rejected. The compiler's table has 65,536 for the batch (axis 0),
/// which nobody has tried and is not used; that of A15 is from there.
///
/// Evidence: arXiv 2606.22283 c4 and c12 and ANEForge 0.4.0, M1, M2 Pro (measured).
const TENSOR_DIM: usize = 16_384;
/// The same from A16 on.
///
/// Evidence: arXiv 2606.22283 c12 and ANEForge 0.4.0, M5 Pro (measured).
const TENSOR_DIM_A16: usize = 65_536;

/// Channels. A convolution's weight may have more than [`TENSOR_DIM`] of them: 16,385 of each kind compile on M1.
///
/// Evidence: arXiv 2606.22283 c4, c12 and c17, M1 and M2 Pro (measured).
const CHANNELS: usize = 65_536;

/// Extents of what is transposed, before A16. From 16,384 on (65,536 from A16 on) the compiler splits a transpose into passes.
///
/// Evidence: ANEForge 0.4.0's tables, every chip (reported).
const TRANSPOSED: usize = 8_388_607;
/// The same from A16 on.
///
/// Evidence: ANEForge 0.4.0's tables, every chip (reported).
const TRANSPOSED_A16: usize = 16_777_215;

/// Elements from which reductions take another route, before A15. Its results were equal on M1, M2 Pro and M5 Pro.
///
/// Evidence: the compiler's table in arXiv 2606.22283 c24 and ANEForge 0.4.0, A13 and A14 (decompiled).
const REDUCTION_ROUTE: usize = 192;
/// The same from A15 on.
///
/// Evidence: the compiler's table in arXiv 2606.22283 c24 and ANEForge 0.4.0, A15 and later (decompiled).
const REDUCTION_ROUTE_A15: usize = 384;

/// Width and height of kernels of transposed convolutions along axes with steps, on A13: the compiler's smaller class. Not
/// measured, so that more is only warned of.
///
/// Evidence: the compiler's table in arXiv 2606.22283 aA and aC, A13 (decompiled).
const STEPPED_A13: [usize; 2] = [7, 15];
/// The same from A14 on.
///
/// Evidence: the compiler's table in arXiv 2606.22283 aA and aC, A14 and later (decompiled).
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
