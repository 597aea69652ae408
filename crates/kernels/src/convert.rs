//! Conversions of whole slices, all with round-to-nearest-even.

use half::f16;

use crate::Kernels;
use crate::simd::{Lanes, Task, chunks};

/// Elements that one thread converts at a time.
const GRAIN: usize = 1 << 16;
const BLOCK: usize = 256;

macro_rules! conversion {
    ($(#[$doc:meta])* $name:ident, $task:ident, $from:ty => $to:ty, |$lanes:ident, $source:ident, $target:ident| $body:expr) => {
        $(#[$doc])*
        ///
        /// # Panics
        /// When the lengths differ.
        pub fn $name(kernels: &Kernels, source: &[$from], target: &mut [$to]) {
            assert_eq!(source.len(), target.len(), "conversion: lengths differ");
            chunks(&kernels.pool, target, GRAIN, |start, target| {
                kernels.simd.run($task { source: &source[start..start + target.len()], target });
            });
        }

        struct $task<'a> {
            source: &'a [$from],
            target: &'a mut [$to],
        }

        impl Task for $task<'_> {
            type Output = ();

            #[inline(always)]
            fn run<$lanes: Lanes>(self) {
                let ($source, $target) = (self.source, self.target);
                $body
            }
        }
    };
}

conversion!(
    /// `f32` to `f16`.
    f32_to_f16, F32ToF16, f32 => f16, |L, source, target| L::narrow(source, target)
);
conversion!(
    /// `f16` to `f32`, exact.
    f16_to_f32, F16ToF32, f16 => f32, |L, source, target| L::widen(source, target)
);
conversion!(
    /// `u8` to `f16`, exact.
    u8_to_f16, U8ToF16, u8 => f16, |L, source, target| {
        let mut wide = [0.0; BLOCK];
        for (source, target) in source.chunks(BLOCK).zip(target.chunks_mut(BLOCK)) {
            for (to, from) in wide.iter_mut().zip(source) {
                *to = f32::from(*from);
            }
            L::narrow(&wide[..source.len()], target);
        }
    }
);
conversion!(
    /// `f64` to `f32`.
    f64_to_f32, F64ToF32, f64 => f32, |L, source, target| {
        for (to, from) in target.iter_mut().zip(source) {
            *to = *from as f32;
        }
    }
);
