//! The crate against the reference: goldens, examples, hostile input.

mod it {
    mod blob;
    mod examples;
    mod golden;
    mod netplist;
    mod number;
    mod roundtrip;
    mod verify;
}
