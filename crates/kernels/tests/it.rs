//! Every routine on every instruction set and several thread counts against its scalar definition, bit for bit.

mod it {
    mod attention;
    mod callers;
    mod chain;
    mod channel;
    mod conv;
    mod conv_transpose;
    mod convert;
    mod form;
    mod gather;
    mod gemm;
    mod isas;
    mod layout;
    mod map;
    mod math;
    mod norm;
    mod pool;
    mod reduce;
    mod split;
    mod stores;
    mod sums;
    mod support;
    mod threads;
    mod tiles;
    mod warp;
}
