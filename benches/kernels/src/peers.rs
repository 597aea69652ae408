//! The `gemm` crate in single precision, with AVX-512 and with AVX2.

use aneforge_kernels::Isa;

/// A single-precision product `c = a b` of row-major matrices.
pub struct Gemm {
    shape: [usize; 3],
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
}

impl Gemm {
    pub fn new(shape: [usize; 3], a: Vec<f32>, b: Vec<f32>) -> Gemm {
        let [rows, terms, columns] = shape;
        assert_eq!((a.len(), b.len()), (rows * terms, terms * columns));
        Gemm { shape, a, b, c: vec![0.0; rows * columns] }
    }

    /// Computes the product with the code for `isa`.
    pub fn run(&mut self, isa: Isa, threads: usize) {
        let [m, k, n] = self.shape;
        let (a, b, c) = (self.a.as_ptr(), self.b.as_ptr(), self.c.as_mut_ptr());
        let (rows, columns) = (k as isize, n as isize);
        macro_rules! call {
            ($function:expr, $common:ident) => {{
                let threads = match threads {
                    1 => $common::Parallelism::None,
                    _ => $common::Parallelism::Rayon(threads),
                };
                // SAFETY: `new` checked the lengths, and the strides are those of row-major matrices.
                unsafe {
                    $function(
                        m, n, k, c, 1, columns, false, a, 1, rows, b, 1, columns, 0.0, 1.0, false, false,
                        false, threads,
                    );
                }
            }};
        }
        match isa {
            Isa::Avx2 => call!(gemm_f32_avx2::gemm::f32::get_gemm_fn(), gemm_common_avx2),
            _ => call!(gemm_f32::gemm::f32::get_gemm_fn(), gemm_common),
        }
    }
}
