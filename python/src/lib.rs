//! The native half of the Python package `aneforge`: tensors, compilation and models.
//!
//! Everything a user names is re-exported by `python/aneforge/__init__.py`; the methods of `Tensor` beyond
//! the operators are Python, most of them generated from the op list.

mod apply;
mod caller;
mod cases;
mod catalog;
mod clip;
mod compile;
mod convert;
mod diagnose;
mod diffusion;
mod encoder;
mod engine;
mod error;
mod feed;
mod files;
mod grad;
mod home;
mod host;
mod interrupt;
mod judge;
mod loaded;
mod memory;
mod model;
mod nn;
mod node;
mod operand;
mod pacing;
mod paired;
mod pickle;
mod ports;
mod profile;
mod reranker;
mod running;
mod search;
mod state;
mod targets;
mod tensor;
mod text;
mod train;
mod tune;
mod vision;
mod window;

use pyo3::prelude::*;

/// The module `aneforge._native`.
#[pymodule]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::apply::{apply, constant, gather, input, triangle};
    #[pymodule_export]
    use crate::cases::{cases, ops};
    #[pymodule_export]
    use crate::catalog::{catalog, catalog_column};
    #[pymodule_export]
    use crate::clip::{Clip, load_clip};
    #[pymodule_export]
    use crate::compile::{compile, devices, max_threads, set_threads, truth};
    #[pymodule_export]
    use crate::diagnose::{diagnose, diagnose_all_chips, diff_numerics, explain};
    #[pymodule_export]
    use crate::diffusion::{Diffusion, load_diffusion};
    #[pymodule_export]
    use crate::encoder::{Encoder, load};
    #[pymodule_export]
    use crate::engine::{engine, worker};
    #[pymodule_export]
    use crate::files::{cache_limit, load_graph, load_model, save_graph};
    #[pymodule_export]
    use crate::grad::{Loss, Noise, adam_step, gradients, parameter, vjp};
    #[pymodule_export]
    use crate::host::check_word;
    #[pymodule_export]
    use crate::interrupt::finish;
    #[pymodule_export]
    use crate::judge::{
        constant_values, estimate, estimate_provenance, estimate_report, feeds, precision_risk, project_peak,
    };
    #[pymodule_export]
    use crate::model::{Model, SegmentedModel};
    #[pymodule_export]
    use crate::nn::{attention, attention_tiles, cuts_cross_attention, geglu, reduce_sum_to_matmul, sdpa};
    #[pymodule_export]
    use crate::operand::array;
    #[pymodule_export]
    use crate::pacing::Breaker;
    #[pymodule_export]
    use crate::paired::{paired_apply, paired_dot, paired_muls, paired_of};
    #[pymodule_export]
    use crate::pickle::{model_from_bytes, tensor_from_bytes};
    #[pymodule_export]
    use crate::profile::{profile, write_text};
    #[pymodule_export]
    use crate::reranker::{Reranker, load_reranker};
    #[pymodule_export]
    use crate::search::{SearchIndex, build_index, open_index};
    #[pymodule_export]
    use crate::state::{State, state, state_from_bytes};
    #[pymodule_export]
    use crate::targets::{
        check_compiles, chip_family, chip_for, chips, cross_chip, default_target, divergence,
        family_of_brand, has_texture_engine, limits, native_streams, notices, op_status, preflight,
        representative,
    };
    #[pymodule_export]
    use crate::tensor::Tensor;
    #[pymodule_export]
    use crate::train::{Events, Training, average};
    #[pymodule_export]
    use crate::tune::{keep_attention, known_attention, tune, tune_attention, tune_precision};
    #[pymodule_export]
    use crate::vision::{Vision, load_vision};

    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "the name that Python expects")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let atexit = module.py().import("atexit")?;
        atexit.call_method1("register", (module.getattr("finish")?,)).map(drop)
    }
}
