//! The library's own name, which its users look for: it is installed as `libaneforge`.

fn main() {
    let argument = match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("macos") => "-Wl,-install_name,@rpath/libaneforge.dylib",
        Ok("linux") => "-Wl,-soname,libaneforge.so",
        _ => return,
    };
    println!("cargo:rustc-cdylib-link-arg={argument}");
    println!("cargo:rerun-if-changed=build.rs");
}
