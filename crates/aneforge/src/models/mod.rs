//! Whole networks, as ordinary functions over values.

pub mod resnet;
