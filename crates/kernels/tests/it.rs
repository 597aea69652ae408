//! Every routine on every instruction set and several thread counts against its scalar definition, bit for bit.

mod it {
    mod channel;
    mod conv;
    mod convert;
    mod gather;
    mod gemm;
    mod layout;
    mod map;
    mod math;
    mod pool;
    mod reduce;
    mod support;
    mod threads;
}
