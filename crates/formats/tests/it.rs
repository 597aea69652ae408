//! Files that are right, files that are wrong in each way, and files that are anything.
#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap: a failing unwrap is a failing test")]

mod it {
    pub mod checkpoint;
    pub mod pth;
    pub mod safetensors;
}
