//! Compiling: configs, options, libraries, functions.

use crate::faults::{self, Instead};
use crate::model::{self, Compiled};
use crate::registry::{self, Handle, Memory, Object, add};
use crate::streams::{Operation, Place};
use crate::{broken, text};
use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What compile options say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chosen {
    pub(crate) mask: u64,
    pub(crate) segmenter: String,
    pub(crate) custom: String,
}

/// The engine's bit.
const ENGINE: u64 = 4;
/// Whether the library has come up: buffers over foreign memory crash before.
pub(crate) static UP: AtomicBool = AtomicBool::new(false);

thread_local! {
    static SAID: RefCell<CString> = RefCell::default();
}

/// Fails with a status and a text.
pub(crate) fn fails(code: i32, why: &str) -> i32 {
    let why = CString::new(why.replace('\0', " ")).unwrap_or_default();
    SAID.with(|said| *said.borrow_mut() = why);
    code
}

/// Declares functions of the interface: each is counted, may go wrong on purpose, and else does its work.
macro_rules! exports {
    ($symbol:ident; $($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),*) $body:block)*) => { $(
        $(#[$doc])*
        ///
        /// # Safety
        /// Called as the interface is.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $ty),*) -> i32 {
            #[allow(unused_variables, reason = "some only clear what they are given")]
            let $symbol = stringify!($name);
            let instead = match $crate::faults::on($symbol) {
                Some($crate::faults::Instead::Code(code)) => Some($crate::e5rt::fails(code, "a fault on purpose")),
                Some($crate::faults::Instead::Nothing) => Some(0),
                None => None,
            };
            // What is released is gone, whatever is answered.
            match instead {
                Some(code) if !$symbol.ends_with("_release") => code,
                _ => {
                    let code = { $body };
                    instead.unwrap_or(code)
                }
            }
        }
    )* };
}
pub(crate) use exports;

/// Puts an object where a constructor was told to.
///
/// # Safety
/// `out` is null, or a place for a handle.
pub(crate) unsafe fn put(symbol: &str, out: *mut Handle, object: Object) -> i32 {
    if out.is_null() {
        return fails(1, &format!("Invalid Function Argument: {symbol}: no place for the result"));
    }
    // SAFETY: the caller's.
    unsafe { *out = add(object) };
    0
}

/// Declares functions that release.
macro_rules! releases {
    ($($name:ident: $kind:literal;)*) => { exports! { symbol; $(
        #[doc = concat!("Releases a ", $kind, ".")]
        fn $name(cell: *mut Handle) {
            // SAFETY: the caller's.
            drop(unsafe { registry::release(symbol, $kind, cell) });
            0
        }
    )* } };
}

releases! {
    e5rt_e5_compiler_config_options_release: "compiler config";
    e5rt_e5_compiler_release: "compiler";
    e5rt_e5_compiler_options_release: "compiler options";
    e5rt_program_library_release: "program library";
    e5rt_program_function_release: "program function";
    e5rt_precompiled_compute_op_create_options_release: "operation options";
    e5rt_tensor_desc_release: "tensor description";
    e5rt_io_port_release: "port";
    e5rt_buffer_object_release: "buffer";
    e5rt_async_event_release: "event";
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

exports! { symbol;
    /// Makes a config.
    fn e5rt_e5_compiler_config_options_create(out: *mut Handle) {
        // SAFETY: the caller's; so below.
        unsafe { put(symbol, out, Object::Config(Arc::default())) }
    }
    /// Says where bundles go.
    fn e5rt_e5_compiler_config_options_set_cache_bundle_location(config: Handle, folder: *const c_char) {
        // SAFETY: the caller's.
        let folder = unsafe { text(folder) }.map(str::to_owned);
        *locked(&registry::config(symbol, config)) = folder;
        0
    }
    /// Makes a compiler.
    fn e5rt_e5_compiler_create_with_config(out: *mut Handle, config: Handle) {
        if config.is_null() {
            return fails(1, "Invalid Function Argument: config is NULL");
        }
        let Some(cache) = locked(&registry::config(symbol, config)).clone() else {
            return fails(2, "no cache bundle location");
        };
        UP.store(true, Ordering::Release);
        // SAFETY: the caller's.
        unsafe { put(symbol, out, Object::Compiler(cache.into())) }
    }
    /// Makes options.
    fn e5rt_e5_compiler_options_create(out: *mut Handle) {
        // SAFETY: the caller's.
        unsafe { put(symbol, out, Object::Options(Arc::default())) }
    }
    /// Which devices are compiled for.
    fn e5rt_e5_compiler_options_set_compute_device_types_mask(options: Handle, mask: u64) {
        locked(&registry::options(symbol, options)).mask = mask;
        0
    }
    /// What was set.
    fn e5rt_e5_compiler_options_get_compute_device_types_mask(options: Handle, mask: *mut u64) {
        // SAFETY: the caller's.
        unsafe { *mask = locked(&registry::options(symbol, options)).mask };
        0
    }
    /// Whether caches are bypassed; there is none here.
    fn e5rt_e5_compiler_options_set_force_recompilation(options: Handle, _force: i32) {
        drop(registry::options(symbol, options));
        0
    }
    /// Which segmenter.
    fn e5rt_e5_compiler_options_set_segmenter(options: Handle, name: *const c_char) {
        // SAFETY: the caller's.
        locked(&registry::options(symbol, options)).segmenter = unsafe { text(name) }.unwrap_or_default().to_owned();
        0
    }
    /// Options of the engine's compiler: any text is taken, and none has an effect.
    fn e5rt_e5_compiler_options_set_custom_ane_compiler_options(options: Handle, custom: *const c_char) {
        // SAFETY: the caller's.
        locked(&registry::options(symbol, options)).custom = unsafe { text(custom) }.unwrap_or_default().to_owned();
        0
    }
    /// Whether tasks are measured; they are not.
    fn e5rt_e5_compiler_options_set_enable_profiling(options: Handle, _enable: i32) {
        drop(registry::options(symbol, options));
        0
    }
    /// Compiles a file.
    fn e5rt_e5_compiler_compile(compiler: Handle, path: *const c_char, options: Handle, out: *mut Handle) {
        let cache = registry::compiler(symbol, compiler);
        let chosen = locked(&registry::options(symbol, options)).clone();
        // SAFETY: the caller's.
        let Some(path) = (unsafe { text(path) }) else { return fails(1, "Invalid Function Argument: path is NULL") };
        if chosen.mask & ENGINE == 0 {
            return fails(2, &format!("Not implemented: mask {:#x} has not the engine", chosen.mask));
        }
        if chosen.segmenter != "graph" {
            return fails(2, &format!("unknown segmenter {:?}", chosen.segmenter));
        }
        match model::compile(Path::new(path)) {
            Ok(compiled) => match bundle(Path::new(&*cache), path) {
                // SAFETY: the caller's.
                Ok(()) => unsafe { put(symbol, out, Object::Library(Arc::new(compiled))) },
                Err(error) => fails(2, &format!("cannot write the bundle: {error}")),
            },
            Err(why) => {
                eprintln!("{why}");
                fails(2, &why)
            }
        }
    }
    /// Opens a bundle that was compiled before.
    fn e5rt_program_library_create(out: *mut Handle, folder: *const c_char) {
        UP.store(true, Ordering::Release);
        // SAFETY: the caller's.
        let folder = unsafe { text(folder) }.unwrap_or_default();
        let Ok(source) = std::fs::read_to_string(Path::new(folder).join("source")) else {
            return fails(1, "Invalid E5 path specified. @ GetE5PathFromCompositeBundle");
        };
        match model::compile(Path::new(&source)) {
            // SAFETY: the caller's.
            Ok(compiled) => unsafe { put(symbol, out, Object::Library(Arc::new(Compiled { reopened: true, ..compiled }))) },
            Err(why) => fails(2, &why),
        }
    }
    /// The function of a library.
    fn e5rt_program_library_retain_program_function(library: Handle, name: *const c_char, out: *mut Handle) {
        let compiled = registry::library(symbol, library);
        // SAFETY: the caller's.
        match unsafe { text(name) } {
            // SAFETY: the caller's.
            Some("main") => unsafe { put(symbol, out, Object::Function(compiled)) },
            other => fails(1, &format!("no function {other:?}")),
        }
    }
    /// Must not be called.
    fn e5rt_program_function_load_for_execution(_function: Handle) {
        fails(2, "e5rt_program_function_load_for_execution is no longer supported. Switch to ExecutionStreamOperation")
    }
    /// Options of an operation.
    fn e5rt_precompiled_compute_op_create_options_create_with_program_function(out: *mut Handle, function: Handle) {
        if function.is_null() {
            return fails(1, "Cannot provide program function as nullptr. @ Create");
        }
        let compiled = registry::function(symbol, function);
        // SAFETY: the caller's.
        unsafe { put(symbol, out, Object::OpOptions(compiled)) }
    }
    /// The name of an operation.
    fn e5rt_precompiled_compute_op_create_options_set_operation_name(options: Handle, _name: *const c_char) {
        drop(registry::operation_options(symbol, options));
        0
    }
    /// Whether memory between ops is allocated.
    fn e5rt_precompiled_compute_op_create_options_set_allocate_intermediate_buffers(options: Handle, _yes: i32) {
        drop(registry::operation_options(symbol, options));
        0
    }
    /// Loads a program.
    fn e5rt_execution_stream_operation_create_precompiled_compute_operation_with_options(out: *mut Handle, options: Handle) {
        if options.is_null() {
            return fails(1, "Invalid Function Argument: options is NULL");
        }
        let compiled: Arc<Compiled> = registry::operation_options(symbol, options);
        match Operation::load(compiled) {
            // SAFETY: the caller's.
            Ok(operation) => unsafe { put(symbol, out, Object::Operation(Arc::new(operation))) },
            Err(why) => fails(2, &why),
        }
    }
    /// An input of an operation.
    fn e5rt_execution_stream_operation_retain_input_port(operation: Handle, name: *const c_char, out: *mut Handle) {
        let operation = registry::operation(symbol, operation);
        // SAFETY: the caller's.
        let name = unsafe { text(name) }.unwrap_or_default();
        match operation.compiled.inputs.iter().position(|(port, _)| port == name) {
            // SAFETY: the caller's.
            Some(at) => unsafe { put(symbol, out, Object::Port(operation, Place::Input(at))) },
            None => fails(1, &format!("no input port {name}")),
        }
    }
    /// An output of an operation.
    fn e5rt_execution_stream_operation_retain_output_port(operation: Handle, name: *const c_char, out: *mut Handle) {
        let operation = registry::operation(symbol, operation);
        // SAFETY: the caller's.
        let name = unsafe { text(name) }.unwrap_or_default();
        match operation.compiled.outputs.iter().position(|(port, _)| port == name) {
            // SAFETY: the caller's.
            Some(at) => unsafe { put(symbol, out, Object::Port(operation, Place::Output(at))) },
            None => fails(1, &format!("no output port {name}")),
        }
    }
    /// What a port holds.
    fn e5rt_io_port_retain_tensor_desc(port: Handle, out: *mut Handle) {
        let (operation, place) = registry::port(symbol, port);
        // SAFETY: the caller's.
        unsafe { put(symbol, out, Object::Tensor(operation.port(place).1)) }
    }
    /// How many axes.
    fn e5rt_tensor_desc_get_rank(tensor: Handle, rank: *mut u64) {
        // SAFETY: the caller's.
        unsafe { *rank = registry::tensor(symbol, tensor).shape.rank() as u64 };
        0
    }
    /// An extent.
    fn e5rt_tensor_desc_get_dimension_length(tensor: Handle, axis: u64, length: *mut u64) {
        let ty = registry::tensor(symbol, tensor);
        let Some(&extent) = ty.shape.dims().get(axis as usize) else { return fails(4, "no such axis") };
        // SAFETY: the caller's.
        unsafe { *length = extent as u64 };
        0
    }
    /// How many elements apart neighbours along an axis lie.
    fn e5rt_tensor_desc_get_dimension_stride(tensor: Handle, axis: u64, stride: *mut u64) {
        let ty = registry::tensor(symbol, tensor);
        let Some(rest) = ty.shape.dims().get(axis as usize + 1..) else { return fails(4, "no such axis") };
        // SAFETY: the caller's.
        unsafe { *stride = rest.iter().product::<usize>() as u64 };
        0
    }
    /// Memory.
    fn e5rt_buffer_object_alloc(out: *mut Handle, bytes: u64, kind: u32) {
        if kind > 2 {
            return fails(5, "Invalid BufferType @ AllocMemory");
        }
        if bytes == 0 || !bytes.is_multiple_of(64) {
            broken(&format!("{symbol}: {bytes} bytes are no multiple of 64"));
        }
        let Some(memory) = Memory::new(bytes as usize) else { return fails(3, "Memory allocation failure") };
        // SAFETY: the caller's.
        unsafe { put(symbol, out, Object::Buffer(Arc::new(memory))) }
    }
    /// Where it lies.
    fn e5rt_buffer_object_get_data_ptr(buffer: Handle, out: *mut Handle) {
        let memory = registry::buffer(symbol, buffer);
        // SAFETY: the caller's.
        unsafe { *out = memory.at.load(Ordering::Relaxed).cast() };
        0
    }
    /// Binds memory to a port.
    fn e5rt_io_port_bind_buffer_object(port: Handle, buffer: Handle) {
        let (operation, place) = registry::port(symbol, port);
        let memory = registry::buffer(symbol, buffer);
        let (name, ty) = operation.port(place);
        if memory.bytes < ty.bytes() {
            broken(&format!("machine panic: DART fault: port {name} takes {} bytes, the buffer has {}", ty.bytes(), memory.bytes));
        }
        operation.bind(place, memory)
    }
}

/// Writes what a compiler leaves, so that it can be opened again.
fn bundle(cache: &Path, source: &str) -> std::io::Result<()> {
    let inner = cache.join("program.bundle").join("main_ane.bundle");
    std::fs::create_dir_all(&inner)?;
    std::fs::write(inner.join("source"), source)?;
    std::fs::write(cache.join("program.bundle").join("analytics.mil"), "selected_backend = string(\"ane\")\n")
}

/// The text of the last failure of this thread.
#[unsafe(no_mangle)]
pub extern "C" fn e5rt_get_last_error_message() -> *const c_char {
    SAID.with(|said| said.borrow().as_ptr())
}

/// What a status is called.
#[unsafe(no_mangle)]
pub extern "C" fn e5rt_error_code_get_string(code: i32) -> *const c_char {
    let name: &str = match code {
        0 => "Success\0",
        1 => "Invalid function argument\0",
        2 => "Invalid operation\0",
        3 => "Memory allocation failure\0",
        4 => "Out of bounds\0",
        5 => "Invalid type parameter\0",
        6 => "Invalid data type\0",
        _ => return std::ptr::null(),
    };
    name.as_ptr().cast()
}

/// Whether a call is to answer nothing; messages, which have no status, ask so.
pub(crate) fn withheld(selector: &'static str) -> bool {
    matches!(faults::on(selector), Some(Instead::Code(_) | Instead::Nothing))
}
