//! On macOS, symbols of Python's are found when it loads the extension; the linker has to be told. maturin tells it, and
//! plain `cargo build` does by this.

fn main() {
    pyo3_build_config::add_extension_module_link_args();
}
