//! Functions of libraries that are opened at run time: one table that makes the pointers, and can be read.

use super::Handle;

/// Whether a function must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing runs without it.
    Hard,
    /// What needs it is an error that names it.
    Soft,
}

/// How it is known that a function is called so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// ANEForge 0.4.0 calls it so, on device.
    Runs,
    /// Independent public callers call it so, on device.
    Clients,
    /// Said in documents, or read out of compiled callers.
    Said,
    /// A public interface of the system.
    Public,
}

/// A function, as this crate calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name in the library.
    pub symbol: &'static str,
    /// The types of what it is given, by their names in this crate.
    pub arguments: &'static [&'static str],
    /// The type of what it gives; empty for nothing.
    pub returns: &'static str,
    /// Whether it must be there.
    pub need: Need,
    /// How it is known to be called so.
    pub evidence: Evidence,
}

/// A function that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missing(pub(crate) &'static str);

/// Declares a struct of function pointers and the table that says of each what it is.
macro_rules! functions {
    ($(#[$doc:meta])* $name:ident, $table:ident { $($rows:tt)* }) => {
        functions!(@split $(#[$doc])* $name, $table [] $($rows)*);
    };
    (@split $(#[$doc:meta])* $name:ident, $table:ident [$($done:tt)*]) => {
        functions!(@make $(#[$doc])* $name, $table $($done)*);
    };
    (@split $(#[$doc:meta])* $name:ident, $table:ident [$($done:tt)*]
     $need:ident $field:ident = $symbol:literal ($($argument:ty),*) $evidence:ident; $($rest:tt)*) => {
        functions!(@split $(#[$doc])* $name, $table [$($done)* ($need $field $symbol [$($argument),*], i32, $evidence)] $($rest)*);
    };
    (@split $(#[$doc:meta])* $name:ident, $table:ident [$($done:tt)*]
     $need:ident $field:ident = $symbol:literal ($($argument:ty),*) -> $returns:ty, $evidence:ident; $($rest:tt)*) => {
        functions!(@split $(#[$doc])* $name, $table
            [$($done)* ($need $field $symbol [$($argument),*], $returns, $evidence)] $($rest)*);
    };
    (@make $(#[$doc:meta])* $name:ident, $table:ident
     $(($need:ident $field:ident $symbol:literal [$($argument:ty),*], $returns:ty, $evidence:ident))*) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name { $(pub(crate) $field: functions!(@type $need [$($argument),*] $returns),)* }

        impl $name {
            /// Finds every function, or names the first that must be there and is not.
            pub(crate) fn resolve(find: &dyn Fn(&'static str) -> Option<$crate::sys::Handle>) -> Result<$name, $crate::sys::table::Missing> {
                Ok($name { $($field: functions!(@find find $need $symbol [$($argument),*] $returns),)* })
            }
        }

        /// What of the library is called, and how.
        pub const $table: &[$crate::sys::table::Function] = &[$($crate::sys::table::Function {
            symbol: $symbol,
            arguments: &[$(stringify!($argument)),*],
            returns: stringify!($returns),
            need: $crate::sys::table::Need::$need,
            evidence: $crate::sys::table::Evidence::$evidence,
        },)*];
    };
    (@type Hard [$($argument:ty),*] $returns:ty) => { unsafe extern "C" fn($($argument),*) -> $returns };
    (@type Soft [$($argument:ty),*] $returns:ty) => { Option<unsafe extern "C" fn($($argument),*) -> $returns> };
    (@find $find:ident Hard $symbol:literal [$($argument:ty),*] $returns:ty) => {{
        let pointer = $find($symbol).ok_or($crate::sys::table::Missing($symbol))?;
        // SAFETY: the library has a function of this name, and the table says how it is called.
        unsafe { std::mem::transmute::<$crate::sys::Handle, unsafe extern "C" fn($($argument),*) -> $returns>(pointer) }
    }};
    (@find $find:ident Soft $symbol:literal [$($argument:ty),*] $returns:ty) => {
        $find($symbol).map(|pointer| {
            // SAFETY: as above.
            unsafe { std::mem::transmute::<$crate::sys::Handle, unsafe extern "C" fn($($argument),*) -> $returns>(pointer) }
        })
    };
}
pub(crate) use functions;

/// A library that stays open until the process ends: what it has started does not survive its closing.
pub(crate) struct Library {
    inner: std::mem::ManuallyDrop<libloading::os::unix::Library>,
}

impl Library {
    /// Opens a library by its path, which need not be a file: the system's own are in its shared cache.
    pub(crate) fn open(path: &std::path::Path) -> Result<Library, String> {
        use libloading::os::unix::{RTLD_LOCAL, RTLD_NOW};
        super::opened_here();
        // SAFETY: initialisers of the system's libraries, or of the stand-in, run; both may, in any process.
        let opened = unsafe { libloading::os::unix::Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
        let why = |error: libloading::Error| match std::error::Error::source(&error) {
            Some(cause) => cause.to_string(),
            None => error.to_string(),
        };
        Ok(Library { inner: std::mem::ManuallyDrop::new(opened.map_err(why)?) })
    }

    /// Where a symbol lies, under its plain name or with an underscore in front.
    pub(crate) fn find(&self, symbol: &str) -> Option<Handle> {
        let get = |name: &str| {
            // SAFETY: only the address is taken; whoever uses it says what lies there.
            let found = unsafe { self.inner.get::<Handle>(name.as_bytes()) };
            found.ok().map(|symbol| symbol.into_raw().cast()).filter(|at: &Handle| !at.is_null())
        };
        get(symbol).or_else(|| get(&format!("_{symbol}")))
    }
}
