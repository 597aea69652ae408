//! The crate against the reference: goldens, examples, hostile input.

mod it {
    mod golden;
}
