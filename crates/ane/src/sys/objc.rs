//! Private classes of the engine's framework, by messages.

use super::Handle;
use super::foundation::Foundation;
use super::table::{Library, Missing, functions};
use crate::Libraries;
use crate::error::{AneError, Failure};
use std::ffi::{CStr, c_char};

type Text = *const c_char;
type Slot = *mut Handle;
/// The system's truth value, one byte on arm64.
type Bool = i8;

functions! {
    /// Functions of the Objective-C runtime.
    ObjcFunctions, OBJC {
        Hard class = "objc_getClass"(Text) -> Handle, Public;
        Hard class_of = "object_getClass"(Handle) -> Handle, Public;
        Hard responds = "class_respondsToSelector"(Handle, Handle) -> Bool, Public;
        Hard selector = "sel_registerName"(Text) -> Handle, Public;
        Hard send = "objc_msgSend"() -> (), Public;
        Hard retain = "objc_retain"(Handle) -> Handle, Public;
        Hard release = "objc_release"(Handle) -> (), Public;
        Hard push = "objc_autoreleasePoolPush"() -> Handle, Public;
        Hard pop = "objc_autoreleasePoolPop"(Handle) -> (), Public;
    }
}

/// A message: its receiver, its name, the types of what goes with it and comes back, and how that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The class that has it.
    pub class: &'static str,
    /// Its selector.
    pub selector: &'static str,
    /// The types of its arguments, after the receiver and the selector.
    pub arguments: &'static str,
    /// The type of its answer.
    pub returns: &'static str,
}

/// Messages to the engine's private classes; ANEForge 0.4.0 sends them so, on device.
pub const MESSAGES: &[Message] = &[
    message(
        "_ANEInMemoryModelDescriptor",
        "modelWithNetworkDescription:weights:optionsPlist:",
        "id, id, id",
        "id",
    ),
    message("_ANEInMemoryModel", "inMemoryModelWithDescriptor:", "id", "id"),
    message("_ANEInMemoryModel", "localModelPath", "", "id"),
    message("_ANEInMemoryModel", "compileWithQoS:options:error:", "u32, id, *id", "BOOL"),
    message("_ANEInMemoryModel", "loadWithQoS:options:error:", "u32, id, *id", "BOOL"),
    message("_ANEInMemoryModel", "modelAttributes", "", "id"),
    message("_ANEIOSurfaceObject", "objectWithIOSurface:", "IOSurfaceRef", "id"),
    message(
        "_ANERequest",
        "requestWithInputs:inputIndices:outputs:outputIndices:procedureIndex:",
        "id, id, id, id, id",
        "id",
    ),
    message("_ANEInMemoryModel", "mapIOSurfacesWithRequest:cacheInference:error:", "id, BOOL, *id", "BOOL"),
    message("_ANEInMemoryModel", "evaluateWithQoS:options:request:error:", "u32, id, id, *id", "BOOL"),
    message("_ANEInMemoryModel", "unmapIOSurfacesWithRequest:", "id", "void"),
    message("_ANEInMemoryModel", "unloadWithQoS:error:", "u32, *id", "BOOL"),
];

const fn message(
    class: &'static str,
    selector: &'static str,
    arguments: &'static str,
    returns: &'static str,
) -> Message {
    Message { class, selector, arguments, returns }
}

/// The Objective-C runtime with the engine's framework and the values that it takes.
pub(crate) struct Runtime {
    call: ObjcFunctions,
    pub(crate) foundation: Foundation,
}

/// An object that this process owns a count of.
pub(crate) struct Object {
    raw: Handle,
    release: unsafe extern "C" fn(Handle),
}

// SAFETY: objects of the framework are sent messages from one thread at a time, by their owner.
unsafe impl Send for Object {}

impl Object {
    pub(crate) fn handle(&self) -> Handle {
        self.raw
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        if super::is_here() {
            // SAFETY: this owns one count.
            unsafe { (self.release)(self.raw) };
        }
    }
}

/// Objects that messages give live until this ends.
pub(crate) struct Pool<'a> {
    runtime: &'a Runtime,
    token: Handle,
}

impl Drop for Pool<'_> {
    fn drop(&mut self) {
        if super::is_here() {
            // SAFETY: pools end in the opposite order, on the thread that they began on: they are borrowed, and not sent.
            unsafe { (self.runtime.call.pop)(self.token) };
        }
    }
}

fn selector_text(selector: &'static CStr) -> &'static str {
    selector.to_str().expect("invariant: selectors are ASCII")
}

impl Runtime {
    /// Opens the runtime and the framework, which stay open.
    pub(crate) fn open(libraries: &Libraries) -> Result<&'static Runtime, AneError> {
        let open = |path: &std::path::Path| {
            Library::open(path).map_err(|why| AneError::Library { path: path.to_owned(), why })
        };
        let objc = open(&libraries.objc)?;
        // Foundation, so that values are objects; the engine's framework, so that its classes are there.
        open(&libraries.foundation)?;
        open(&libraries.engine)?;
        let missing = |Missing(symbol)| AneError::Symbol {
            path: libraries.objc.clone(),
            symbol,
            without: "native layers do not run on the engine",
        };
        Ok(Box::leak(Box::new(Runtime {
            call: ObjcFunctions::resolve(&|symbol| objc.find(symbol).filter(|_| libraries.has(symbol)))
                .map_err(missing)?,
            foundation: Foundation::open(libraries)?,
        })))
    }

    pub(crate) fn here(&self) -> Result<(), AneError> {
        if super::is_here() { Ok(()) } else { Err(AneError::Forked) }
    }

    pub(crate) fn pool(&self) -> Pool<'_> {
        // SAFETY: it takes nothing.
        Pool { runtime: self, token: unsafe { (self.call.push)() } }
    }

    fn class(&self, name: &'static CStr) -> Result<Handle, AneError> {
        // SAFETY: a text that ends in a zero byte.
        let class = unsafe { (self.call.class)(name.as_ptr()) };
        let text = || format!("there is no class {}", name.to_string_lossy());
        if class.is_null() {
            return Err(Failure { call: "objc_getClass", code: 0, text: text() }.into());
        }
        Ok(class)
    }

    fn selector(&self, name: &'static CStr) -> Handle {
        // SAFETY: a text that ends in a zero byte.
        unsafe { (self.call.selector)(name.as_ptr()) }
    }

    fn responds(&self, object: Handle, selector: Handle) -> bool {
        // SAFETY: the object is alive.
        let class = unsafe { (self.call.class_of)(object) };
        // SAFETY: as above.
        unsafe { (self.call.responds)(class, selector) != 0 }
    }

    /// Counts an object that a message gave, or says that it gave none.
    fn keep(&self, call: &'static str, raw: Handle) -> Result<Object, AneError> {
        if raw.is_null() {
            return Err(Failure { call, code: 0, text: String::new() }.into());
        }
        // SAFETY: the object is alive, as the pool has not ended.
        let raw = unsafe { (self.call.retain)(raw) };
        Ok(Object { raw, release: self.call.release })
    }

    /// What an error says of itself.
    fn error_text(&self, error: Handle) -> String {
        if error.is_null() {
            return "it gives no reason".into();
        }
        let selector = self.selector(c"description");
        // SAFETY: every object has a description, and `send` takes the receiver, the selector and no more.
        let text = unsafe {
            let send: unsafe extern "C" fn(Handle, Handle) -> Handle = std::mem::transmute(self.call.send);
            send(error, selector)
        };
        self.foundation.text(text).unwrap_or_else(|| "its reason cannot be read".into())
    }

    fn answered(&self, call: &'static str, yes: Bool, error: Handle) -> Result<(), Failure> {
        if yes != 0 {
            return Ok(());
        }
        Err(Failure { call, code: -1, text: self.error_text(error) })
    }

    /// `[class selector: a]`
    pub(crate) fn make(
        &self,
        class: &'static CStr,
        selector: &'static CStr,
        argument: Handle,
    ) -> Result<Object, AneError> {
        let (class, name) = (self.class(class)?, self.selector(selector));
        // SAFETY: the method takes one object and gives one.
        let made = unsafe {
            let send: unsafe extern "C" fn(Handle, Handle, Handle) -> Handle =
                std::mem::transmute(self.call.send);
            send(class, name, argument)
        };
        self.keep(selector_text(selector), made)
    }

    /// `[_ANEInMemoryModelDescriptor modelWithNetworkDescription: weights: optionsPlist: nil]`
    pub(crate) fn descriptor(&self, document: Handle, weights: Handle) -> Result<Object, AneError> {
        let selector = c"modelWithNetworkDescription:weights:optionsPlist:";
        let (class, name) = (self.class(c"_ANEInMemoryModelDescriptor")?, self.selector(selector));
        // SAFETY: the method takes three objects, of which the last may be nil, and gives one.
        let made = unsafe {
            let send: unsafe extern "C" fn(Handle, Handle, Handle, Handle, Handle) -> Handle =
                std::mem::transmute(self.call.send);
            send(class, name, document, weights, std::ptr::null_mut())
        };
        self.keep(selector_text(selector), made)
    }

    /// `[object selector]`, which gives an object that lives as long as the pool; `None` if it has no such method or gives nil.
    pub(crate) fn ask(&self, object: &Object, selector: &'static CStr) -> Option<Handle> {
        let name = self.selector(selector);
        self.responds(object.raw, name).then_some(())?;
        // SAFETY: the method takes nothing and gives an object.
        let got = unsafe {
            let send: unsafe extern "C" fn(Handle, Handle) -> Handle = std::mem::transmute(self.call.send);
            send(object.raw, name)
        };
        (!got.is_null()).then_some(got)
    }

    /// `[model compileWithQoS: options: error:]`, and the same of `load`.
    pub(crate) fn prepare(
        &self,
        model: &Object,
        selector: &'static CStr,
        quality: u32,
        options: Handle,
    ) -> Result<(), Failure> {
        let (name, mut error) = (self.selector(selector), std::ptr::null_mut());
        // SAFETY: the methods take a number of 32 bits, an object and a place for an error.
        let yes = unsafe {
            let send: unsafe extern "C" fn(Handle, Handle, u32, Handle, Slot) -> Bool =
                std::mem::transmute(self.call.send);
            send(model.raw, name, quality, options, &raw mut error)
        };
        self.answered(selector_text(selector), yes, error)
    }

    /// `[_ANERequest requestWithInputs: inputIndices: outputs: outputIndices: procedureIndex:]`
    pub(crate) fn request(&self, arguments: [Handle; 5]) -> Result<Object, AneError> {
        let selector = c"requestWithInputs:inputIndices:outputs:outputIndices:procedureIndex:";
        let (class, name) = (self.class(c"_ANERequest")?, self.selector(selector));
        let [inputs, input_indices, outputs, output_indices, procedure] = arguments;
        // SAFETY: the method takes five objects and gives one.
        let made = unsafe {
            let send: unsafe extern "C" fn(Handle, Handle, Handle, Handle, Handle, Handle, Handle) -> Handle =
                std::mem::transmute(self.call.send);
            send(class, name, inputs, input_indices, outputs, output_indices, procedure)
        };
        self.keep(selector_text(selector), made)
    }

    /// `[model mapIOSurfacesWithRequest: cacheInference: YES error:]`
    pub(crate) fn map(&self, model: &Object, request: &Object) -> Result<(), Failure> {
        let selector = c"mapIOSurfacesWithRequest:cacheInference:error:";
        let (name, mut error) = (self.selector(selector), std::ptr::null_mut());
        // SAFETY: the method takes an object, a truth value and a place for an error.
        let yes = unsafe {
            let send: unsafe extern "C" fn(Handle, Handle, Handle, Bool, Slot) -> Bool =
                std::mem::transmute(self.call.send);
            send(model.raw, name, request.raw, 1, &raw mut error)
        };
        self.answered(selector_text(selector), yes, error)
    }

    /// `[model evaluateWithQoS: options: request: error:]`
    pub(crate) fn evaluate(
        &self,
        model: &Object,
        quality: u32,
        options: Handle,
        request: &Object,
    ) -> Result<(), Failure> {
        let selector = c"evaluateWithQoS:options:request:error:";
        let (name, mut error) = (self.selector(selector), std::ptr::null_mut());
        // SAFETY: the method takes a number of 32 bits, two objects and a place for an error.
        let yes = unsafe {
            let send: unsafe extern "C" fn(Handle, Handle, u32, Handle, Handle, Slot) -> Bool =
                std::mem::transmute(self.call.send);
            send(model.raw, name, quality, options, request.raw, &raw mut error)
        };
        self.answered(selector_text(selector), yes, error)
    }

    /// `[model unmapIOSurfacesWithRequest:]` and `[model unloadWithQoS: error:]`, where it has them.
    pub(crate) fn unload(&self, model: &Object, request: Option<&Object>, quality: u32) {
        let unmap = self.selector(c"unmapIOSurfacesWithRequest:");
        if let Some(request) = request
            && self.responds(model.raw, unmap)
        {
            // SAFETY: the method takes an object and gives nothing.
            unsafe {
                let send: unsafe extern "C" fn(Handle, Handle, Handle) = std::mem::transmute(self.call.send);
                send(model.raw, unmap, request.raw);
            }
        }
        let unload = self.selector(c"unloadWithQoS:error:");
        if self.responds(model.raw, unload) {
            let mut error: Handle = std::ptr::null_mut();
            // SAFETY: the method takes a number of 32 bits and a place for an error.
            unsafe {
                let send: unsafe extern "C" fn(Handle, Handle, u32, Slot) -> Bool =
                    std::mem::transmute(self.call.send);
                send(model.raw, unload, quality, &raw mut error);
            }
        }
    }
}
