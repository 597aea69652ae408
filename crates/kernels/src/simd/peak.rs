//! Multiply-adds that never leave the registers: the roof of everything that multiplies.

use super::Simd;

/// Multiply-adds per step of [`multiply_adds`].
pub(crate) const STEP: u64 = 14 * 16;

/// Does `steps` times [`STEP`] multiply-adds; the result depends on all of them.
pub(crate) fn multiply_adds(simd: Simd, steps: u64) -> f32 {
    match simd.vectors() {
        // SAFETY: a `Simd` exists only for an instruction set of this machine.
        #[cfg(target_arch = "x86_64")]
        crate::Isa::Avx512Fp16 | crate::Isa::Avx512 => unsafe { x86::avx512(steps) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        crate::Isa::Avx2 => unsafe { x86::avx2(steps) },
        _ => scalar(steps),
    }
}

fn scalar(steps: u64) -> f32 {
    let mut sums = std::hint::black_box([1.0_f32; 16]);
    for _ in 0..14 * steps {
        for sum in &mut sums {
            *sum = sum.mul_add(0.75, 0.25);
        }
    }
    sums.iter().sum()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        _mm256_fmadd_ps, _mm256_set1_ps, _mm256_storeu_ps, _mm512_fmadd_ps, _mm512_set1_ps, _mm512_storeu_ps,
    };

    #[target_feature(enable = "avx512f,avx2,fma")]
    pub(super) fn avx512(steps: u64) -> f32 {
        let (a, b) = (std::hint::black_box(0.75), std::hint::black_box(0.25));
        let (a, b) = (_mm512_set1_ps(a), _mm512_set1_ps(b));
        let mut sums = [_mm512_set1_ps(1.0); 14];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        let mut values = [[0.0_f32; 16]; 14];
        for (value, sum) in values.iter_mut().zip(sums) {
            // SAFETY: 16 values.
            unsafe { _mm512_storeu_ps(value.as_mut_ptr(), sum) };
        }
        values.iter().flatten().sum()
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(steps: u64) -> f32 {
        let (a, b) = (std::hint::black_box(0.75), std::hint::black_box(0.25));
        let (a, b) = (_mm256_set1_ps(a), _mm256_set1_ps(b));
        let mut sums = [_mm256_set1_ps(1.0); 14];
        for _ in 0..2 * steps {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        let mut values = [[0.0_f32; 8]; 14];
        for (value, sum) in values.iter_mut().zip(sums) {
            // SAFETY: 8 values.
            unsafe { _mm256_storeu_ps(value.as_mut_ptr(), sum) };
        }
        values.iter().flatten().sum()
    }
}
