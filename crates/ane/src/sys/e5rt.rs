//! The interface of Espresso that compiles and runs programs, typed.
//!
//! Constructors take the place for the new object first, methods of an object take it last; every function that releases an
//! object takes the address of the handle. Both are reported by the reference and by independent callers, who also found that
//! the status has 32 bits.

use super::Handle;
use super::buffer::{Buffer, BufferHandle};
use super::table::{Library, Missing, functions};
use crate::Libraries;
use crate::error::{AneError, Failure};
use crate::limits;
use crate::rules::{Places, Turn};
use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Where a function puts the object that it makes.
type Out = *mut Handle;
/// Where a function takes the object that it releases, and clears it.
type Cell = *mut Handle;
type Text = *const c_char;
type Address = *mut *mut c_void;
type Number = *mut u64;

functions! {
    /// Functions of Espresso.
    E5Functions, E5RT {
        Hard config_create = "e5rt_e5_compiler_config_options_create"(Out) Runs;
        Hard config_release = "e5rt_e5_compiler_config_options_release"(Cell) Runs;
        Hard config_set_cache = "e5rt_e5_compiler_config_options_set_cache_bundle_location"(Handle, Text) Runs;
        Hard compiler_create = "e5rt_e5_compiler_create_with_config"(Out, Handle) Runs;
        Hard compiler_release = "e5rt_e5_compiler_release"(Cell) Runs;
        Hard compile = "e5rt_e5_compiler_compile"(Handle, Text, Handle, Out) Runs;
        Hard options_create = "e5rt_e5_compiler_options_create"(Out) Runs;
        Hard options_release = "e5rt_e5_compiler_options_release"(Cell) Runs;
        Hard options_set_mask = "e5rt_e5_compiler_options_set_compute_device_types_mask"(Handle, u64) Runs;
        Soft options_get_mask = "e5rt_e5_compiler_options_get_compute_device_types_mask"(Handle, Number) Clients;
        Hard options_set_force = "e5rt_e5_compiler_options_set_force_recompilation"(Handle, i32) Runs;
        Hard options_set_segmenter = "e5rt_e5_compiler_options_set_segmenter"(Handle, Text) Runs;
        Soft options_set_custom = "e5rt_e5_compiler_options_set_custom_ane_compiler_options"(Handle, Text) Runs;
        Soft options_set_profiling = "e5rt_e5_compiler_options_set_enable_profiling"(Handle, i32) Runs;
        Soft library_create = "e5rt_program_library_create"(Out, Text) Clients;
        Hard library_release = "e5rt_program_library_release"(Cell) Runs;
        Hard library_function = "e5rt_program_library_retain_program_function"(Handle, Text, Out) Runs;
        Hard function_release = "e5rt_program_function_release"(Cell) Runs;
        Hard op_options_create = "e5rt_precompiled_compute_op_create_options_create_with_program_function"(Out, Handle) Runs;
        Hard op_options_release = "e5rt_precompiled_compute_op_create_options_release"(Cell) Runs;
        Hard op_options_set_name = "e5rt_precompiled_compute_op_create_options_set_operation_name"(Handle, Text) Runs;
        Hard op_options_set_allocate = "e5rt_precompiled_compute_op_create_options_set_allocate_intermediate_buffers"(Handle, i32) Runs;
        Hard operation_create = "e5rt_execution_stream_operation_create_precompiled_compute_operation_with_options"(Out, Handle) Runs;
        Hard operation_release = "e5rt_execution_stream_operation_release"(Cell) Runs;
        Hard operation_input = "e5rt_execution_stream_operation_retain_input_port"(Handle, Text, Out) Runs;
        Hard operation_output = "e5rt_execution_stream_operation_retain_output_port"(Handle, Text, Out) Runs;
        Soft operation_completion = "e5rt_execution_stream_operation_bind_completion_event"(Handle, Handle) Runs;
        Soft operation_dependent = "e5rt_execution_stream_operation_bind_dependent_events"(Handle, Cell, u64) Said;
        Hard port_bind = "e5rt_io_port_bind_buffer_object"(Handle, Handle) Runs;
        Hard port_release = "e5rt_io_port_release"(Cell) Runs;
        Soft port_tensor = "e5rt_io_port_retain_tensor_desc"(Handle, Out) Clients;
        Soft tensor_rank = "e5rt_tensor_desc_get_rank"(Handle, Number) Clients;
        Soft tensor_length = "e5rt_tensor_desc_get_dimension_length"(Handle, u64, Number) Clients;
        Soft tensor_stride = "e5rt_tensor_desc_get_dimension_stride"(Handle, u64, Number) Clients;
        Soft tensor_release = "e5rt_tensor_desc_release"(Cell) Clients;
        Hard buffer_alloc = "e5rt_buffer_object_alloc"(Out, u64, u32) Runs;
        Hard buffer_pointer = "e5rt_buffer_object_get_data_ptr"(Handle, Address) Runs;
        Hard buffer_release = "e5rt_buffer_object_release"(Cell) Runs;
        Hard stream_create = "e5rt_execution_stream_create"(Out) Runs;
        Hard stream_release = "e5rt_execution_stream_release"(Cell) Runs;
        Hard stream_encode = "e5rt_execution_stream_encode_operation"(Handle, Handle) Runs;
        Hard stream_execute = "e5rt_execution_stream_execute_sync"(Handle) Runs;
        Soft stream_reset = "e5rt_execution_stream_reset"(Handle) Clients;
        Soft stream_submit = "e5rt_execution_stream_submit_async"(Handle, Handle) Clients;
        Soft event_create = "e5rt_async_event_create"(Out, Text, u32) Runs;
        Soft event_release = "e5rt_async_event_release"(Cell) Runs;
        Soft event_signal = "e5rt_async_event_signal"(Handle, u64) Clients;
        Soft event_wait = "e5rt_async_event_sync_wait"(Handle, u64, u64) Clients;
        Soft event_value = "e5rt_async_event_get_last_signaled_value"(Handle, Number) Clients;
        Soft error_text = "e5rt_error_code_get_string"(i32) -> Text, Clients;
        Soft last_error = "e5rt_get_last_error_message"() -> Text, Clients;
    }
}

/// Functions that must never be called, with what happens. The stand-in has them, to see that nobody does.
pub const NEVER: &[(&str, &str)] = &[
    ("e5rt_program_function_load_for_execution", "status 2 on macOS 26: it is no longer supported"),
    ("e5rt_execution_stream_async_submit", "it answers: use submit_async"),
    (
        "e5rt_execution_stream_operation_prepare_op_for_encode",
        "on an encoded operation it poisons the stream, whose release then ends the process",
    ),
];

/// Espresso, opened.
pub(crate) struct E5rt {
    pub(super) call: E5Functions,
    /// Programs of this process that are loaded.
    pub(crate) places: Places,
    /// Whether one runs asynchronously.
    pub(crate) turn: Turn,
    /// Handles that are alive, so that tests see none leak.
    pub(crate) alive: AtomicUsize,
    /// Whether a compiler was made, without which buffers are reported to crash.
    up: AtomicBool,
}

/// Declares objects that release themselves.
macro_rules! objects {
    ($($(#[$doc:meta])* $name:ident by $release:expr;)*) => { $(
        $(#[$doc])*
        pub(crate) struct $name { pub(super) raw: Handle, api: &'static E5rt }
        // SAFETY: the interface has no thread of its own for an object; whoever owns it calls it from one at a time.
        unsafe impl Send for $name {}
        impl $name {
            pub(super) fn new(api: &'static E5rt, raw: Handle) -> $name {
                api.alive.fetch_add(1, Ordering::Relaxed);
                $name { raw, api }
            }
        }
        impl Drop for $name {
            fn drop(&mut self) {
                if !super::is_here() {
                    return;
                }
                self.api.alive.fetch_sub(1, Ordering::Relaxed);
                let release: fn(&E5Functions) -> Option<unsafe extern "C" fn(Cell) -> i32> = $release;
                if let Some(release) = release(&self.api.call) {
                    // SAFETY: the handle is alive, it is released once, and by its address.
                    unsafe { release(&raw mut self.raw) };
                }
            }
        }
    )* };
}

objects! {
    /// Where a compiler puts bundles.
    Config by |call| Some(call.config_release);
    Compiler by |call| Some(call.compiler_release);
    /// How a program is compiled.
    Options by |call| Some(call.options_release);
    /// A compiled program.
    Compiled by |call| Some(call.library_release);
    Function by |call| Some(call.function_release);
    OpOptions by |call| Some(call.op_options_release);
    /// A program that is loaded into the engine; it takes one of the places for programs.
    RawOperation by |call| Some(call.operation_release);
    Port by |call| Some(call.port_release);
    RawBuffer by |call| Some(call.buffer_release);
    Stream by |call| Some(call.stream_release);
    Event by |call| call.event_release;
    Tensor by |call| call.tensor_release;
}

// SAFETY: an object that is only handed to functions that bind it.
unsafe impl Sync for RawBuffer {}

/// A [`RawOperation`] that is counted among the programs of the process.
pub(crate) struct Operation {
    raw: Option<RawOperation>,
    api: &'static E5rt,
}

impl Operation {
    pub(super) fn raw(&self) -> Handle {
        self.raw.as_ref().expect("invariant: it is there until it is dropped").raw
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // Its place is free when it is gone, and no sooner.
        drop(self.raw.take());
        self.api.places.give();
    }
}

/// How a program is compiled.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CompileOptions<'a> {
    /// Whether what was compiled before is not looked for.
    pub(crate) force: bool,
    /// Options of the engine's own compiler, such as the chip.
    pub(crate) custom: Option<&'a CStr>,
    pub(crate) profiling: bool,
}

impl E5rt {
    /// Opens the library, and finds its functions. It is never closed.
    pub(crate) fn open(libraries: &Libraries) -> Result<&'static E5rt, AneError> {
        let path = &libraries.espresso;
        let failed = |why: String| AneError::Library { path: path.to_owned(), why };
        let library = Library::open(path).map_err(failed)?;
        let missing = |Missing(symbol)| AneError::Symbol {
            path: path.to_owned(),
            symbol,
            without: "no program runs on the engine; this version of the system is not one of those that are known",
        };
        let call = E5Functions::resolve(&|symbol| library.find(symbol).filter(|_| libraries.has(symbol)))
            .map_err(missing)?;
        Ok(Box::leak(Box::new(E5rt {
            call,
            places: Places::new(limits::MOST_PROGRAMS),
            turn: Turn::new(),
            alive: AtomicUsize::new(0),
            up: AtomicBool::new(false),
        })))
    }

    /// An error in a process that was forked off the one that opened the library.
    pub(crate) fn here(&self) -> Result<(), AneError> {
        if super::is_here() { Ok(()) } else { Err(AneError::Forked) }
    }

    fn said(&self) -> String {
        // SAFETY: it takes nothing, and gives a text of this thread that lives until the next call, or null.
        let text = self.call.last_error.map(|last| unsafe { last() });
        text.filter(|text| !text.is_null()).map_or_else(String::new, |text| {
            // SAFETY: as above.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
        })
    }

    /// What the library calls a status.
    pub(crate) fn name_of(&self, code: i32) -> Option<String> {
        let text = self.call.error_text?;
        // SAFETY: it gives a static text, or null.
        let text = unsafe { text(code) };
        // SAFETY: as above.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    }

    /// Which functions that need not be there are not.
    pub(crate) fn lacks(&self, symbol: &str) -> bool {
        let call = &self.call;
        match symbol {
            "e5rt_program_library_create" => call.library_create.is_none(),
            "e5rt_execution_stream_reset" => call.stream_reset.is_none(),
            "e5rt_execution_stream_submit_async" => call.stream_submit.is_none(),
            "e5rt_async_event_create" => call.event_create.is_none(),
            "e5rt_e5_compiler_options_set_custom_ane_compiler_options" => call.options_set_custom.is_none(),
            _ => false,
        }
    }

    pub(super) fn check(&self, symbol: &'static str, code: i32) -> Result<(), Failure> {
        if code == 0 {
            return Ok(());
        }
        Err(Failure { call: symbol, code, text: self.said() })
    }

    pub(super) fn made(&self, symbol: &'static str, code: i32, handle: Handle) -> Result<Handle, Failure> {
        self.check(symbol, code)?;
        if handle.is_null() { Err(Failure { call: symbol, code, text: self.said() }) } else { Ok(handle) }
    }

    /// Compiles the program at `path`, and puts what it makes into `cache`.
    pub(crate) fn compile(
        &'static self,
        path: &CStr,
        cache: &CStr,
        options: CompileOptions<'_>,
    ) -> Result<Compiled, Failure> {
        let call = &self.call;
        let mut out: Handle = std::ptr::null_mut();
        // SAFETY: the table says how functions are called. Objects are alive while they are used, texts end in a zero byte, and places
        // for results are this function's own; that holds for every call below.
        let code = unsafe { (call.config_create)(&raw mut out) };
        let config = Config::new(self, self.made("e5rt_e5_compiler_config_options_create", code, out)?);
        // SAFETY: see above.
        let code = unsafe { (call.config_set_cache)(config.raw, cache.as_ptr()) };
        self.check("e5rt_e5_compiler_config_options_set_cache_bundle_location", code)?;
        out = std::ptr::null_mut();
        // SAFETY: see above.
        let code = unsafe { (call.compiler_create)(&raw mut out, config.raw) };
        let compiler = Compiler::new(self, self.made("e5rt_e5_compiler_create_with_config", code, out)?);
        out = std::ptr::null_mut();
        // SAFETY: see above.
        let code = unsafe { (call.options_create)(&raw mut out) };
        let chosen = Options::new(self, self.made("e5rt_e5_compiler_options_create", code, out)?);
        self.choose(&chosen, options)?;
        out = std::ptr::null_mut();
        // SAFETY: see above.
        let code = unsafe { (call.compile)(compiler.raw, path.as_ptr(), chosen.raw, &raw mut out) };
        let compiled = self.made("e5rt_e5_compiler_compile", code, out).map(|raw| Compiled::new(self, raw));
        // In the order of the reference: options, compiler, config.
        drop(chosen);
        drop(compiler);
        drop(config);
        compiled
    }

    fn choose(&self, chosen: &Options, options: CompileOptions<'_>) -> Result<(), Failure> {
        let call = &self.call;
        // SAFETY: see `compile`.
        let code = unsafe { (call.options_set_mask)(chosen.raw, limits::ENGINE_MASK) };
        self.check("e5rt_e5_compiler_options_set_compute_device_types_mask", code)?;
        if let Some(get) = call.options_get_mask {
            let mut mask = 0;
            // SAFETY: see `compile`.
            let code = unsafe { get(chosen.raw, &raw mut mask) };
            // A setter that has no effect says nothing, and a program would run elsewhere than on the engine.
            if code == 0 && mask != limits::ENGINE_MASK {
                let text = format!(
                    "the mask of devices is {mask:#x} after it was set to {:#x}",
                    limits::ENGINE_MASK
                );
                let symbol = "e5rt_e5_compiler_options_set_compute_device_types_mask";
                return Err(Failure { call: symbol, code: 2, text });
            }
        }
        // SAFETY: see `compile`.
        let code = unsafe { (call.options_set_force)(chosen.raw, i32::from(options.force)) };
        self.check("e5rt_e5_compiler_options_set_force_recompilation", code)?;
        let segmenter = text(limits::SEGMENTER);
        // SAFETY: see `compile`.
        let code = unsafe { (call.options_set_segmenter)(chosen.raw, segmenter.as_ptr()) };
        self.check("e5rt_e5_compiler_options_set_segmenter", code)?;
        if let (true, Some(set)) = (options.profiling, call.options_set_profiling) {
            // SAFETY: see `compile`.
            self.check("e5rt_e5_compiler_options_set_enable_profiling", unsafe { set(chosen.raw, 1) })?;
        }
        if let (Some(custom), Some(set)) = (options.custom, call.options_set_custom) {
            // SAFETY: see `compile`.
            let code = unsafe { set(chosen.raw, custom.as_ptr()) };
            self.check("e5rt_e5_compiler_options_set_custom_ane_compiler_options", code)?;
        }
        Ok(())
    }

    /// Opens a bundle that was compiled before.
    pub(crate) fn reopen(&'static self, bundle: &CStr) -> Option<Result<Compiled, Failure>> {
        let create = self.call.library_create?;
        let mut out: Handle = std::ptr::null_mut();
        // SAFETY: see `compile`.
        let code = unsafe { create(&raw mut out, bundle.as_ptr()) };
        Some(self.made("e5rt_program_library_create", code, out).map(|raw| Compiled::new(self, raw)))
    }

    pub(crate) fn function(&'static self, compiled: &Compiled) -> Result<Function, Failure> {
        let (name, mut out) = (text(limits::FUNCTION), std::ptr::null_mut());
        // SAFETY: see `compile`.
        let code = unsafe { (self.call.library_function)(compiled.raw, name.as_ptr(), &raw mut out) };
        let raw = self.made("e5rt_program_library_retain_program_function", code, out)?;
        Ok(Function::new(self, raw))
    }

    pub(crate) fn op_options(&'static self, function: &Function) -> Result<OpOptions, Failure> {
        let (name, mut out) = (text(limits::FUNCTION), std::ptr::null_mut());
        // SAFETY: see `compile`.
        let code = unsafe { (self.call.op_options_create)(&raw mut out, function.raw) };
        let symbol = "e5rt_precompiled_compute_op_create_options_create_with_program_function";
        let options = OpOptions::new(self, self.made(symbol, code, out)?);
        // SAFETY: see `compile`.
        let code = unsafe { (self.call.op_options_set_name)(options.raw, name.as_ptr()) };
        self.check("e5rt_precompiled_compute_op_create_options_set_operation_name", code)?;
        // SAFETY: see `compile`.
        let code = unsafe { (self.call.op_options_set_allocate)(options.raw, 1) };
        self.check("e5rt_precompiled_compute_op_create_options_set_allocate_intermediate_buffers", code)?;
        Ok(options)
    }

    /// Loads a program into the engine, if there is a place for it.
    pub(crate) fn operation(&'static self, options: &OpOptions) -> Result<Operation, AneError> {
        let limit = self.places.limit();
        self.places.take().map_err(|loaded| AneError::Budget { loaded, limit })?;
        let mut out: Handle = std::ptr::null_mut();
        // SAFETY: see `compile`.
        let code = unsafe { (self.call.operation_create)(&raw mut out, options.raw) };
        let symbol = "e5rt_execution_stream_operation_create_precompiled_compute_operation_with_options";
        let made = self.made(symbol, code, out);
        if made.is_err() {
            self.places.give();
        }
        let refused = |failure: Failure| match failure.text.to_ascii_lowercase().contains("re-compile") {
            true => AneError::Recompile(failure),
            false => AneError::Call(failure),
        };
        Ok(Operation { raw: Some(RawOperation::new(self, made.map_err(refused)?)), api: self })
    }

    pub(crate) fn port(
        &'static self,
        operation: &Operation,
        name: &CStr,
        input: bool,
    ) -> Result<Port, Failure> {
        let (symbol, retain) = match input {
            true => ("e5rt_execution_stream_operation_retain_input_port", self.call.operation_input),
            false => ("e5rt_execution_stream_operation_retain_output_port", self.call.operation_output),
        };
        let mut out: Handle = std::ptr::null_mut();
        // SAFETY: see `compile`.
        let code = unsafe { retain(operation.raw(), name.as_ptr(), &raw mut out) };
        Ok(Port::new(self, self.made(symbol, code, out)?))
    }

    pub(crate) fn bind(&self, port: &Port, buffer: &BufferHandle) -> Result<(), Failure> {
        // SAFETY: see `compile`.
        let code = unsafe { (self.call.port_bind)(port.raw, buffer.shared.raw.raw) };
        self.check("e5rt_io_port_bind_buffer_object", code)
    }

    /// Makes a compiler, and lets it go: buffers that are made before one are reported to crash.
    fn come_up(&'static self) {
        if self.up.swap(true, Ordering::AcqRel) {
            return;
        }
        let (cache, mut out) = (text(&std::env::temp_dir().to_string_lossy()), std::ptr::null_mut());
        // SAFETY: see `compile`.
        let code = unsafe { (self.call.config_create)(&raw mut out) };
        let Ok(raw) = self.made("e5rt_e5_compiler_config_options_create", code, out) else { return };
        let config = Config::new(self, raw);
        // SAFETY: see `compile`.
        unsafe { (self.call.config_set_cache)(config.raw, cache.as_ptr()) };
        out = std::ptr::null_mut();
        // SAFETY: see `compile`.
        let code = unsafe { (self.call.compiler_create)(&raw mut out, config.raw) };
        if let Ok(raw) = self.made("e5rt_e5_compiler_create_with_config", code, out) {
            drop(Compiler::new(self, raw));
        }
    }

    /// Zeroed memory that host and engine see, of `room` bytes, of which the caller has the first.
    pub(crate) fn buffer(&'static self, bytes: usize, room: usize) -> Result<Buffer, AneError> {
        self.here()?;
        self.come_up();
        let mut out: Handle = std::ptr::null_mut();
        // SAFETY: see `compile`.
        let code = unsafe { (self.call.buffer_alloc)(&raw mut out, room as u64, limits::HOST_VISIBLE) };
        let raw = RawBuffer::new(self, self.made("e5rt_buffer_object_alloc", code, out)?);
        let mut pointer: Handle = std::ptr::null_mut();
        // SAFETY: see `compile`.
        let code = unsafe { (self.call.buffer_pointer)(raw.raw, &raw mut pointer) };
        let pointer = self.made("e5rt_buffer_object_get_data_ptr", code, pointer)?.cast::<u8>();
        // SAFETY: the buffer was made with so many bytes, and its pointer stays for its life (reference).
        unsafe { pointer.write_bytes(0, room) };
        Ok(Buffer::new(raw, pointer, bytes))
    }

    pub(crate) fn stream(&'static self) -> Result<Stream, Failure> {
        let mut out: Handle = std::ptr::null_mut();
        // SAFETY: see `compile`.
        let code = unsafe { (self.call.stream_create)(&raw mut out) };
        Ok(Stream::new(self, self.made("e5rt_execution_stream_create", code, out)?))
    }

    pub(crate) fn encode(&self, stream: &Stream, operation: &Operation) -> Result<(), Failure> {
        // SAFETY: see `compile`.
        let code = unsafe { (self.call.stream_encode)(stream.raw, operation.raw()) };
        self.check("e5rt_execution_stream_encode_operation", code)
    }

    #[inline]
    pub(crate) fn execute(&self, stream: &Stream) -> Result<(), Failure> {
        // SAFETY: see `compile`.
        let code = unsafe { (self.call.stream_execute)(stream.raw) };
        self.check("e5rt_execution_stream_execute_sync", code)
    }

    /// Makes a stream forget what was encoded; `None` where the library cannot.
    pub(crate) fn reset(&self, stream: &Stream) -> Option<Result<(), Failure>> {
        let reset = self.call.stream_reset?;
        // SAFETY: see `compile`.
        let code = unsafe { reset(stream.raw) };
        Some(self.check("e5rt_execution_stream_reset", code))
    }

    /// Starts a stream; `block` is called once when it is done, on another thread. `None` where the library cannot.
    pub(crate) fn submit(
        &self,
        stream: &Stream,
        block: &super::system::Block,
    ) -> Option<Result<(), Failure>> {
        let submit = self.call.stream_submit?;
        // SAFETY: see `compile`. The block stays in its place until it has been called, which its owner sees to.
        let code = unsafe { submit(stream.raw, block.pointer()) };
        Some(self.check("e5rt_execution_stream_submit_async", code))
    }
}

fn text(plain: &str) -> CString {
    CString::new(plain).unwrap_or_default()
}
