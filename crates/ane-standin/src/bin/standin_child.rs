//! The other process of tests: it runs programs apart, or breaks a rule of the interface to see that the stand-in notices.
//!
//! `standin_child worker`, or `standin_child break LIBRARY RULE FILE`, where FILE is a program of MIL.

#![allow(unsafe_code, reason = "rules are broken by calling the library without the care of aneforge-ane")]

use libloading::os::unix::Library;
use std::ffi::{CString, c_void};
use std::io::Write;

type Handle = *mut c_void;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["worker"] => {
            let done = aneforge_ane::worker::serve_standard();
            if let Err(error) = done {
                eprintln!("{error}");
                std::process::exit(1);
            }
        }
        // What other programs of the same command line do: nothing, for ever.
        ["deaf"] => std::thread::sleep(std::time::Duration::from_secs(600)),
        // As a library that prints a great deal.
        ["loud"] => {
            let line = [b'x'; 1 << 20];
            for _ in 0..4 {
                std::io::stderr().write_all(&line).unwrap_or_default();
            }
            let done = aneforge_ane::worker::serve_standard();
            std::process::exit(i32::from(done.is_err()));
        }
        ["break", library, rule, file] => Raw::open(library).break_rule(rule, file),
        _ => std::process::exit(2),
    }
}

/// The library as it is.
struct Raw(Library);

fn none() -> Handle {
    std::ptr::null_mut()
}

impl Raw {
    fn open(path: &str) -> Raw {
        // SAFETY: the stand-in may be opened by anybody.
        Raw(unsafe { Library::new(path) }.expect("the stand-in opens"))
    }

    fn call(&self, symbol: &str, arguments: [usize; 4]) -> i32 {
        type Any = unsafe extern "C" fn(usize, usize, usize, usize) -> i32;
        // SAFETY: functions of the interface take up to four words, and leave alone what they do not take.
        let function = unsafe { self.0.get::<Any>(symbol.as_bytes()) }.expect("the stand-in has it");
        // SAFETY: as above; what is wrong about it is what is tested.
        unsafe { function(arguments[0], arguments[1], arguments[2], arguments[3]) }
    }

    fn make(&self, symbol: &str, argument: usize) -> Handle {
        let mut out = none();
        let code = self.call(symbol, [(&raw mut out).expose_provenance(), argument, 0, 0]);
        assert_eq!(code, 0, "{symbol}");
        out
    }

    fn get(&self, symbol: &str, of: Handle, name: &CString) -> Handle {
        let mut out = none();
        let code = self.call(
            symbol,
            [of.addr(), name.as_ptr().expose_provenance(), (&raw mut out).expose_provenance(), 0],
        );
        assert_eq!(code, 0, "{symbol}");
        out
    }

    fn release(&self, symbol: &str, mut handle: Handle) {
        self.call(symbol, [(&raw mut handle).expose_provenance(), 0, 0, 0]);
    }

    fn operation(&self, file: &str) -> Handle {
        let folder = std::path::Path::new(file).with_file_name("cache");
        let text = |text: &str| CString::new(text).expect("no zero byte");
        let (cache, path, graph, main) =
            (text(&folder.to_string_lossy()), text(file), text("graph"), text("main"));
        let config = self.make("e5rt_e5_compiler_config_options_create", 0);
        let set = "e5rt_e5_compiler_config_options_set_cache_bundle_location";
        self.call(set, [config.addr(), cache.as_ptr().expose_provenance(), 0, 0]);
        let compiler = self.make("e5rt_e5_compiler_create_with_config", config.addr());
        let options = self.make("e5rt_e5_compiler_options_create", 0);
        self.call("e5rt_e5_compiler_options_set_compute_device_types_mask", [options.addr(), 4, 0, 0]);
        self.call(
            "e5rt_e5_compiler_options_set_segmenter",
            [options.addr(), graph.as_ptr().expose_provenance(), 0, 0],
        );
        let mut library = none();
        let code = self.call(
            "e5rt_e5_compiler_compile",
            [
                compiler.addr(),
                path.as_ptr().expose_provenance(),
                options.addr(),
                (&raw mut library).expose_provenance(),
            ],
        );
        assert_eq!(code, 0, "compile");
        let function = self.get("e5rt_program_library_retain_program_function", library, &main);
        let symbol = "e5rt_precompiled_compute_op_create_options_create_with_program_function";
        let chosen = self.make(symbol, function.addr());
        let symbol = "e5rt_execution_stream_operation_create_precompiled_compute_operation_with_options";
        self.make(symbol, chosen.addr())
    }

    fn ports(&self, operation: Handle, bytes: usize) {
        let name = |text: &str| CString::new(text).expect("no zero byte");
        let input = self.get("e5rt_execution_stream_operation_retain_input_port", operation, &name("t0"));
        let output = self.get("e5rt_execution_stream_operation_retain_output_port", operation, &name("t1"));
        for port in [input, output] {
            let mut buffer = none();
            self.call("e5rt_buffer_object_alloc", [(&raw mut buffer).expose_provenance(), bytes, 0, 0]);
            self.call("e5rt_io_port_bind_buffer_object", [port.addr(), buffer.addr(), 0, 0]);
        }
    }

    fn encoded(&self, file: &str) -> (Handle, Handle) {
        let operation = self.operation(file);
        self.ports(operation, 256);
        let stream = self.make("e5rt_execution_stream_create", 0);
        assert_eq!(
            self.call("e5rt_execution_stream_encode_operation", [stream.addr(), operation.addr(), 0, 0]),
            0
        );
        (stream, operation)
    }

    /// Breaks a rule that ends the process, or else one that is answered with a status, which it exits with.
    fn break_rule(&self, rule: &str, file: &str) {
        let config = || self.make("e5rt_e5_compiler_config_options_create", 0);
        let code = match rule {
            "handle for its address" => {
                self.call("e5rt_e5_compiler_config_options_release", [config().addr(), 0, 0, 0])
            }
            "double release" => {
                let handle = config();
                self.release("e5rt_e5_compiler_config_options_release", handle);
                self.release("e5rt_e5_compiler_config_options_release", handle);
                0
            }
            "use after release" => {
                let handle = config();
                self.release("e5rt_e5_compiler_config_options_release", handle);
                self.call(
                    "e5rt_e5_compiler_config_options_set_cache_bundle_location",
                    [handle.addr(), 0, 0, 0],
                )
            }
            "address for its handle" => {
                let handle = config();
                let at = (&raw const handle).expose_provenance();
                self.call("e5rt_e5_compiler_config_options_set_cache_bundle_location", [at, 0, 0, 0])
            }
            "wrong kind" => self.call("e5rt_e5_compiler_options_set_segmenter", [config().addr(), 0, 0, 0]),
            "small buffer" => {
                self.ports(self.operation(file), 64);
                0
            }
            "odd buffer" => {
                let mut out = none();
                self.call("e5rt_buffer_object_alloc", [(&raw mut out).expose_provenance(), 100, 0, 0])
            }
            "prepare after encode" => {
                let (_, operation) = self.encoded(file);
                self.call(
                    "e5rt_execution_stream_operation_prepare_op_for_encode",
                    [operation.addr(), 0, 0, 0],
                )
            }
            "operation before stream" => {
                let (_, operation) = self.encoded(file);
                self.release("e5rt_execution_stream_operation_release", operation);
                0
            }
            "null block" => {
                let (stream, _) = self.encoded(file);
                self.call("e5rt_execution_stream_submit_async", [stream.addr(), 0, 0, 0])
            }
            _ => self.wrong_call(rule, file),
        };
        std::process::exit(code);
    }

    /// Calls something as it must not be, and gives the answer.
    fn wrong_call(&self, rule: &str, file: &str) -> i32 {
        match rule {
            "no config" => {
                let mut out = none();
                self.call(
                    "e5rt_e5_compiler_create_with_config",
                    [(&raw mut out).expose_provenance(), 0, 0, 0],
                )
            }
            "no place" => self.call("e5rt_execution_stream_create", [0, 0, 0, 0]),
            "load for execution" => self.call("e5rt_program_function_load_for_execution", [0, 0, 0, 0]),
            "legacy submit" => self.call("e5rt_execution_stream_async_submit", [0, 0, 0, 0]),
            "event flags" => {
                let (mut out, name) = (none(), CString::new("event").expect("no zero byte"));
                let arguments = [(&raw mut out).expose_provenance(), name.as_ptr().expose_provenance(), 7, 0];
                self.call("e5rt_async_event_create", arguments)
            }
            "bind after encode" => {
                let (_, operation) = self.encoded(file);
                let name = CString::new("t0").expect("no zero byte");
                let port = self.get("e5rt_execution_stream_operation_retain_input_port", operation, &name);
                let mut buffer = none();
                self.call("e5rt_buffer_object_alloc", [(&raw mut buffer).expose_provenance(), 256, 0, 0]);
                self.call("e5rt_io_port_bind_buffer_object", [port.addr(), buffer.addr(), 0, 0])
            }
            "encode twice" => {
                let (stream, operation) = self.encoded(file);
                self.call("e5rt_execution_stream_encode_operation", [stream.addr(), operation.addr(), 0, 0])
            }
            "encode unbound" => {
                let (stream, operation) =
                    (self.make("e5rt_execution_stream_create", 0), self.operation(file));
                self.call("e5rt_execution_stream_encode_operation", [stream.addr(), operation.addr(), 0, 0])
            }
            "execute nothing" => {
                let stream = self.make("e5rt_execution_stream_create", 0);
                self.call("e5rt_execution_stream_execute_sync", [stream.addr(), 0, 0, 0])
            }
            other => panic!("no rule {other}"),
        }
    }
}
