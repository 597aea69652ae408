//! Files that are right, files that are wrong in each way, and files that are anything.

mod it {
    pub mod checkpoint;
    pub mod safetensors;
}
