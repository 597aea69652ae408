//! Messages: classes, selectors, and the methods of the engine's private classes.

use crate::e5rt::withheld;
use crate::foundation::{Kind, Ref, look, release, string, under};
use crate::layers::{self, Layer};
use crate::registry::Handle;
use crate::{broken, faults, model, text};
use aneforge::Session;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CString, c_char, c_void};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// A model from its description to its end.
pub(crate) struct ModelState {
    document: Vec<u8>,
    weights: Vec<(String, Vec<u8>)>,
    place: PathBuf,
    compiled: Option<Arc<Layer>>,
    session: Option<Session>,
    mapped: Option<usize>,
}

impl Drop for ModelState {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.place);
        if self.session.is_some() {
            broken("a model was released before it was unloaded");
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// Objects that live until their pool ends.
    static POOLS: RefCell<Vec<Vec<Ref>>> = const { RefCell::new(Vec::new()) };
}

fn autoreleased(object: Ref) -> Handle {
    let at = object.at();
    POOLS.with(|pools| match pools.borrow_mut().last_mut() {
        Some(pool) => pool.push(object),
        None => broken("an object was made without a pool, and leaks"),
    });
    at
}

/// Begins a pool.
#[unsafe(no_mangle)]
pub extern "C" fn objc_autoreleasePoolPush() -> Handle {
    POOLS.with(|pools| {
        pools.borrow_mut().push(Vec::new());
        std::ptr::without_provenance_mut(pools.borrow().len())
    })
}

/// Ends a pool.
#[unsafe(no_mangle)]
pub extern "C" fn objc_autoreleasePoolPop(token: Handle) {
    let pool = POOLS.with(|pools| {
        if pools.borrow().len() != token.addr() {
            broken("objc_autoreleasePoolPop: pools end in the opposite order of their beginning");
        }
        pools.borrow_mut().pop()
    });
    drop(pool);
}

/// Counts an object once more.
#[unsafe(no_mangle)]
pub extern "C" fn objc_retain(object: Handle) -> Handle {
    Ref::hold("objc_retain", object).give()
}

/// Gives a count back.
#[unsafe(no_mangle)]
pub extern "C" fn objc_release(object: Handle) {
    release("objc_release", object);
}

const CLASSES: &[&str] =
    &["_ANEInMemoryModelDescriptor", "_ANEInMemoryModel", "_ANEIOSurfaceObject", "_ANERequest"];

static KNOWN: LazyLock<Vec<Ref>> =
    LazyLock::new(|| CLASSES.iter().map(|name| Ref::new(Kind::Class(name))).collect());

/// The class of this name.
///
/// # Safety
/// `name` ends in a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn objc_getClass(name: *const c_char) -> Handle {
    // SAFETY: the caller's.
    let name = unsafe { text(name) }.unwrap_or_default();
    let at = CLASSES.iter().position(|class| *class == name);
    match at {
        Some(_) if withheld("objc_getClass") => std::ptr::null_mut(),
        Some(at) => KNOWN[at].at(),
        None => std::ptr::null_mut(),
    }
}

fn class_name(object: &Kind) -> &'static str {
    match object {
        Kind::Descriptor { .. } => CLASSES[0],
        Kind::Model(_) => CLASSES[1],
        Kind::Wrapped(_) => CLASSES[2],
        Kind::Request { .. } => CLASSES[3],
        _ => "",
    }
}

/// The class of an object.
#[unsafe(no_mangle)]
pub extern "C" fn object_getClass(object: Handle) -> Handle {
    let name = class_name(&look("object_getClass", object).kind);
    CLASSES.iter().position(|class| *class == name).map_or(std::ptr::null_mut(), |at| KNOWN[at].at())
}

/// Whether objects of a class have a method.
#[unsafe(no_mangle)]
pub extern "C" fn class_respondsToSelector(class: Handle, selector: Handle) -> i8 {
    let Kind::Class(name) = &look("class_respondsToSelector", class).kind else {
        broken("class_respondsToSelector: no class")
    };
    i8::from(
        METHODS
            .iter()
            .any(|(of, method, on, _)| of == name && *on == On::Object && *method == named(selector)),
    )
}

static SELECTORS: LazyLock<Mutex<HashMap<String, &'static CString>>> = LazyLock::new(Mutex::default);

/// The selector of this name: the same for the same name.
///
/// # Safety
/// `name` ends in a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sel_registerName(name: *const c_char) -> Handle {
    // SAFETY: the caller's.
    let name = unsafe { text(name) }.unwrap_or_else(|| broken("sel_registerName: no name"));
    let mut selectors = locked(&SELECTORS);
    let make = || &*Box::leak(Box::new(CString::new(name).expect("invariant: it came as such a text")));
    let selector = *selectors.entry(name.to_owned()).or_insert_with(make);
    selector.as_ptr().cast_mut().cast()
}

fn named(selector: Handle) -> &'static str {
    // SAFETY: selectors come from `sel_registerName`, and stay.
    unsafe { text(selector.cast()) }.unwrap_or_default()
}

/// Finds a method, and goes on there with what the caller gave: as the system's does, in registers and on the stack.
#[cfg(target_arch = "x86_64")]
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn objc_msgSend() {
    core::arch::naked_asm!(
        "push rdi", "push rsi", "push rdx", "push rcx", "push r8", "push r9", "sub rsp, 8",
        "call {find}",
        "mov r11, rax",
        "add rsp, 8", "pop r9", "pop r8", "pop rcx", "pop rdx", "pop rsi", "pop rdi",
        "jmp r11",
        find = sym find,
    )
}

/// Finds a method, and goes on there with what the caller gave: as the system's does, in registers and on the stack.
#[cfg(target_arch = "aarch64")]
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn objc_msgSend() {
    core::arch::naked_asm!(
        "stp x29, x30, [sp, #-80]!",
        "stp x0, x1, [sp, #16]", "stp x2, x3, [sp, #32]", "stp x4, x5, [sp, #48]", "stp x6, x7, [sp, #64]",
        "bl {find}",
        "mov x16, x0",
        "ldp x0, x1, [sp, #16]", "ldp x2, x3, [sp, #32]", "ldp x4, x5, [sp, #48]", "ldp x6, x7, [sp, #64]",
        "ldp x29, x30, [sp], #80",
        "br x16",
        find = sym find,
    )
}

/// What receives a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    Class,
    Object,
}

/// The address of a method.
struct Code(*const c_void);
// SAFETY: addresses of functions.
unsafe impl Sync for Code {}

macro_rules! methods {
    ($($class:literal $on:ident $selector:literal = $function:ident;)*) => {
        static METHODS: &[(&str, &str, On, Code)] =
            &[$(($class, $selector, On::$on, Code($function as *const c_void))),*];
    };
}

methods! {
    "_ANEInMemoryModelDescriptor" Class "modelWithNetworkDescription:weights:optionsPlist:" = describe;
    "_ANEInMemoryModel" Class "inMemoryModelWithDescriptor:" = make;
    "_ANEInMemoryModel" Object "localModelPath" = place;
    "_ANEInMemoryModel" Object "compileWithQoS:options:error:" = compile;
    "_ANEInMemoryModel" Object "loadWithQoS:options:error:" = load;
    "_ANEInMemoryModel" Object "modelAttributes" = attributes;
    "_ANEInMemoryModel" Object "mapIOSurfacesWithRequest:cacheInference:error:" = map;
    "_ANEInMemoryModel" Object "evaluateWithQoS:options:request:error:" = evaluate;
    "_ANEInMemoryModel" Object "unmapIOSurfacesWithRequest:" = unmap;
    "_ANEInMemoryModel" Object "unloadWithQoS:error:" = unload;
    "_ANEIOSurfaceObject" Class "objectWithIOSurface:" = wrap;
    "_ANERequest" Class "requestWithInputs:inputIndices:outputs:outputIndices:procedureIndex:" = request;
}

extern "C" fn find(object: Handle, selector: Handle) -> *const c_void {
    let kind = &look("objc_msgSend", object).kind;
    let (name, on) = match kind {
        Kind::Class(name) => (*name, On::Class),
        other => (class_name(other), On::Object),
    };
    let selector = named(selector);
    if selector == "description" && on == On::Object {
        return description as *const c_void;
    }
    let found =
        METHODS.iter().find(|(class, method, to, _)| *class == name && *method == selector && *to == on);
    match found {
        Some((_, _, _, Code(at))) => *at,
        None => broken(&format!("unrecognized selector {selector} sent to {name}")),
    }
}

type Slot = *mut Handle;

/// Answers no, with a reason.
fn no(error: Slot, why: &str) -> i8 {
    if error.is_null() {
        broken("an error has no place to go");
    }
    // SAFETY: the caller's.
    if !unsafe { *error }.is_null() {
        broken("the place for an error was not nil");
    }
    let text = format!("Error Domain=com.apple.appleneuralengine.espresso Code=1 \"{why}\"");
    // SAFETY: the caller's.
    unsafe { *error = autoreleased(Ref::new(Kind::Error(text))) };
    0
}

extern "C" fn description(object: Handle, _: Handle) -> Handle {
    match &look("description", object).kind {
        Kind::Error(text) => autoreleased(string(text)),
        _ => autoreleased(string("an object")),
    }
}

extern "C" fn describe(_: Handle, _: Handle, document: Handle, weights: Handle, options: Handle) -> Handle {
    const SELECTOR: &str = "modelWithNetworkDescription:weights:optionsPlist:";
    if withheld(SELECTOR) {
        return std::ptr::null_mut();
    }
    if !options.is_null() {
        broken("modelWithNetworkDescription: options are nil where they are known to work");
    }
    let (Kind::Data(document), Kind::Dictionary(files)) =
        (&look(SELECTOR, document).kind, &look(SELECTOR, weights).kind)
    else {
        broken("modelWithNetworkDescription: takes data and a dictionary")
    };
    let file = |(name, file): &(Ref, Ref)| {
        let (Kind::Text(name), Kind::Dictionary(file)) = (name.kind(), file.kind()) else {
            broken("modelWithNetworkDescription: weights are dictionaries by name")
        };
        match (under(file, "offset"), under(file, "data")) {
            (Some(Kind::Number(0)), Some(Kind::Data(bytes))) => (name.clone(), bytes.clone()),
            _ => broken("modelWithNetworkDescription: a weight has an offset of 0 and data"),
        }
    };
    let weights = files.iter().map(file).collect();
    autoreleased(Ref::new(Kind::Descriptor { document: document.clone(), weights }))
}

extern "C" fn make(_: Handle, _: Handle, descriptor: Handle) -> Handle {
    if withheld("inMemoryModelWithDescriptor:") {
        return std::ptr::null_mut();
    }
    let Kind::Descriptor { document, weights } = &look("inMemoryModelWithDescriptor:", descriptor).kind
    else {
        broken("inMemoryModelWithDescriptor: takes a descriptor")
    };
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let place = std::env::temp_dir().join(format!("aneforge-standin-{}-{number}", std::process::id()));
    let state = ModelState {
        document: document.clone(),
        weights: weights.clone(),
        place,
        compiled: None,
        session: None,
        mapped: None,
    };
    autoreleased(Ref::new(Kind::Model(Box::new(Mutex::new(state)))))
}

fn model_of<'a>(symbol: &str, object: Handle) -> MutexGuard<'a, ModelState> {
    match &look(symbol, object).kind {
        Kind::Model(state) => locked(state),
        _ => broken(&format!("{symbol}: no model")),
    }
}

extern "C" fn place(object: Handle, _: Handle) -> Handle {
    let place = model_of("localModelPath", object).place.to_string_lossy().into_owned();
    autoreleased(string(&place))
}

extern "C" fn compile(object: Handle, _: Handle, _: u32, options: Handle, error: Slot) -> i8 {
    const SELECTOR: &str = "compileWithQoS:options:error:";
    if withheld(SELECTOR) {
        return no(error, "ANECCompile() FAILED (a fault on purpose)");
    }
    look(SELECTOR, options);
    faults::print();
    let mut state = model_of(SELECTOR, object);
    let files = state
        .weights
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes))
        .chain([("net.plist", &state.document)]);
    for (name, bytes) in files {
        if std::fs::read(state.place.join(name)).ok().as_ref() != Some(bytes) {
            return no(error, &format!("the service finds no {name}, or another one, where the model is"));
        }
    }
    match Layer::read(&state.document, &state.weights) {
        Ok(layer) if faults::rejects(&layer.kind) => no(error, "ANECCompile() FAILED"),
        Ok(layer) => {
            state.compiled = Some(Arc::new(layer));
            1
        }
        Err(why) => no(error, &format!("ANECCompile() FAILED: {why}")),
    }
}

extern "C" fn load(object: Handle, _: Handle, _: u32, _: Handle, error: Slot) -> i8 {
    const SELECTOR: &str = "loadWithQoS:options:error:";
    if withheld(SELECTOR) {
        return no(error, "Program load failure (0xe00002be)");
    }
    let mut state = model_of(SELECTOR, object);
    let Some(layer) = &state.compiled else { return no(error, "the model is not compiled") };
    match model::session(Arc::clone(&layer.plan)) {
        Ok(session) => {
            state.session = Some(session);
            1
        }
        Err(why) => no(error, &why),
    }
}

extern "C" fn attributes(object: Handle, _: Handle) -> Handle {
    let state = model_of("modelAttributes", object);
    let (Some(layer), Some(_)) = (&state.compiled, &state.session) else { return std::ptr::null_mut() };
    autoreleased(layers::attributes(layer))
}

extern "C" fn wrap(_: Handle, _: Handle, surface: Handle) -> Handle {
    if withheld("objectWithIOSurface:") {
        return std::ptr::null_mut();
    }
    crate::foundation::surface("objectWithIOSurface:", surface);
    autoreleased(Ref::new(Kind::Wrapped(Ref::hold("objectWithIOSurface:", surface))))
}

fn surfaces(array: Handle, indices: Handle) -> Vec<Ref> {
    const SELECTOR: &str = "requestWithInputs:inputIndices:outputs:outputIndices:procedureIndex:";
    let (Kind::Array(wrapped), Kind::Array(indices)) =
        (&look(SELECTOR, array).kind, &look(SELECTOR, indices).kind)
    else {
        broken("requestWithInputs: takes arrays")
    };
    if !indices.iter().enumerate().all(|(at, n)| matches!(n.kind(), Kind::Number(n) if *n == at as i64))
        || indices.len() != wrapped.len()
    {
        broken("requestWithInputs: indices are not 0 and on, one for each surface");
    }
    let surface = |object: &Ref| match object.kind() {
        Kind::Wrapped(surface) => Ref::hold(SELECTOR, surface.at()),
        _ => broken("requestWithInputs: no wrapped surface"),
    };
    wrapped.iter().map(surface).collect()
}

extern "C" fn request(
    _: Handle,
    _: Handle,
    inputs: Handle,
    input_indices: Handle,
    outputs: Handle,
    output_indices: Handle,
    procedure: Handle,
) -> Handle {
    if withheld("requestWithInputs:inputIndices:outputs:outputIndices:procedureIndex:") {
        return std::ptr::null_mut();
    }
    if !matches!(&look("requestWithInputs:", procedure).kind, Kind::Number(0)) {
        broken("requestWithInputs: there is one procedure, of number 0");
    }
    let (inputs, outputs) = (surfaces(inputs, input_indices), surfaces(outputs, output_indices));
    autoreleased(Ref::new(Kind::Request { inputs, outputs }))
}

extern "C" fn map(object: Handle, _: Handle, request: Handle, _: i8, error: Slot) -> i8 {
    const SELECTOR: &str = "mapIOSurfacesWithRequest:cacheInference:error:";
    if withheld(SELECTOR) {
        return no(error, "surface map failure (0xe00002bd)");
    }
    let mut state = model_of(SELECTOR, object);
    let (Kind::Request { inputs, outputs }, Some(layer)) = (&look(SELECTOR, request).kind, &state.compiled)
    else {
        return no(error, "the model is not loaded");
    };
    layers::check(layer, inputs, outputs);
    state.mapped = Some(request.addr());
    1
}

extern "C" fn evaluate(object: Handle, _: Handle, _: u32, _: Handle, request: Handle, error: Slot) -> i8 {
    const SELECTOR: &str = "evaluateWithQoS:options:request:error:";
    if withheld(SELECTOR) {
        return no(error, "ANE evaluate failed (0xe00002d6)");
    }
    let mut state = model_of(SELECTOR, object);
    if state.mapped != Some(request.addr()) {
        return no(error, "the request is not mapped");
    }
    let Kind::Request { inputs, outputs } = &look(SELECTOR, request).kind else {
        broken("evaluate: no request")
    };
    let ModelState { compiled: Some(layer), session: Some(session), .. } = &mut *state else {
        return no(error, "the model is not loaded");
    };
    if !faults::executes() {
        return 1;
    }
    layers::run(layer, session, inputs, outputs).map_or_else(|why| no(error, &why), |()| 1)
}

extern "C" fn unmap(object: Handle, _: Handle, request: Handle) {
    let mut state = model_of("unmapIOSurfacesWithRequest:", object);
    if state.mapped.take() != Some(request.addr()) {
        broken("unmapIOSurfacesWithRequest: the request is not mapped");
    }
}

extern "C" fn unload(object: Handle, _: Handle, _: u32, error: Slot) -> i8 {
    let mut state = model_of("unloadWithQoS:error:", object);
    if state.mapped.is_some() {
        broken("unloadWithQoS: surfaces are mapped; unmap them first");
    }
    if state.session.take().is_none() {
        return no(error, "the model is not loaded");
    }
    1
}
