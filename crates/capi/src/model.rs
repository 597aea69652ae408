//! Compiled models: files that `aneforge compile -o` and `Plan::save` write; see `include/aneforge.h`.
//!
//! A small set that stays: load, look at, set, run, get, and what went wrong as a text. Models are used from one thread at a time. Each
//! function's contract is that of [`crate::dispatch`].

use crate::error::guarded;
use crate::names::{self, text};
use aneforge::{DType, Feed, Plan, Session, TensorType};
use std::ffi::{CString, c_char, c_int, c_void};

/// A model that is loaded.
pub struct Model {
    session: Session,
    names: [Vec<CString>; 2],
    placement: CString,
}

/// The version of this library.
#[unsafe(no_mangle)]
pub extern "C" fn aneforge_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The model behind a pointer.
///
/// # Safety
/// It is null, or one that was opened and not closed, and used by nobody else.
unsafe fn model<'a>(at: *mut Model) -> Result<&'a mut Model, String> {
    // SAFETY: the caller's.
    unsafe { at.as_mut() }.ok_or_else(|| "the model is null".into())
}

impl Model {
    fn open(path: &str, device: Option<&str>) -> Result<Model, String> {
        let device = names::device(device)?;
        let plan = Plan::load(path).map_err(|error| error.to_string())?;
        let session = Session::new(plan, &device).map_err(|error| error.to_string())?;
        let plan = session.plan();
        let name = |name: &str, at: usize| {
            CString::new(if name.is_empty() { at.to_string() } else { name.to_owned() }).unwrap_or_default()
        };
        let inputs = plan.feeds.iter().enumerate().map(|(at, feed)| name(&feed.name, at)).collect();
        let results = match &plan.results {
            aneforge::plan::Results::Named(names) => names.clone(),
            _ => vec![String::new(); plan.returned().len()],
        };
        let outputs = results.iter().enumerate().map(|(at, result)| name(result, at)).collect();
        let placed: Vec<String> = session.placement().into_iter().map(|receipt| receipt.device).collect();
        let placement = CString::new(placed.join(", ")).unwrap_or_default();
        Ok(Model { names: [inputs, outputs], session, placement })
    }

    fn ty(&self, side: usize, index: usize) -> Result<TensorType, String> {
        let plan = self.session.plan();
        let (what, ty, count) = match side {
            0 => ("input", plan.feeds.get(index).map(|feed| feed.ty), plan.feeds.len()),
            _ => ("output", plan.returned().get(index).map(|(ty, _)| *ty), plan.returned().len()),
        };
        ty.ok_or_else(|| format!("there is no {what} {index}; the model has {count}"))
    }

    fn feed(&mut self, index: usize, feed: Feed<'_>) -> Result<(), String> {
        let dims = self.ty(0, index)?.shape;
        if feed.len() != dims.count() {
            return Err(format!("input {index} has {} values, got {}", dims.count(), feed.len()));
        }
        self.session.set(index, feed, dims.dims()).map_err(|error| error.to_string())
    }
}

/// Loads the file at `path` onto `device`: `"ane"`, `"host"`, or null for the default. Null after an error.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aneforge_open(path: *const c_char, device: *const c_char) -> *mut Model {
    guarded(std::ptr::null_mut(), || {
        // SAFETY: the caller's.
        let path = unsafe { text("the path", path) }?;
        // SAFETY: the caller's.
        let device = if device.is_null() { None } else { Some(unsafe { text("the device", device) }?) };
        Ok(Box::into_raw(Box::new(Model::open(path, device)?)))
    })
}

/// Closes a model. Null is closed already.
///
/// # Safety
/// See the module; the model is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aneforge_close(of: *mut Model) {
    if !of.is_null() {
        // SAFETY: the caller's; it was made as a box.
        let model = unsafe { Box::from_raw(of) };
        guarded((), || {
            drop(model);
            Ok(())
        });
    }
}

/// Where it runs, such as `ane` or `host`, one word for each of its programs with `, ` between; it stays as long as the model.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aneforge_placement(of: *mut Model) -> *const c_char {
    // SAFETY: the caller's.
    guarded(std::ptr::null(), || Ok(unsafe { model(of) }?.placement.as_ptr()))
}

/// How many inputs there are.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aneforge_input_count(of: *mut Model) -> usize {
    // SAFETY: the caller's.
    guarded(0, || Ok(unsafe { model(of) }?.names[0].len()))
}

/// How many outputs there are.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aneforge_output_count(of: *mut Model) -> usize {
    // SAFETY: the caller's.
    guarded(0, || Ok(unsafe { model(of) }?.names[1].len()))
}

/// # Safety
/// See the module.
unsafe fn name(of: *mut Model, side: usize, index: usize) -> *const c_char {
    guarded(std::ptr::null(), || {
        // SAFETY: the caller's.
        let model = unsafe { model(of) }?;
        model.ty(side, index)?;
        Ok(model.names[side][index].as_ptr())
    })
}

/// The name of an input, or its number; it stays as long as the model.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aneforge_input_name(of: *mut Model, index: usize) -> *const c_char {
    // SAFETY: the caller's.
    unsafe { name(of, 0, index) }
}

/// The name of an output, or its number.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aneforge_output_name(of: *mut Model, index: usize) -> *const c_char {
    // SAFETY: the caller's.
    unsafe { name(of, 1, index) }
}

/// # Safety
/// See the module.
unsafe fn shape(of: *mut Model, side: usize, index: usize, dims: *mut usize, room: usize) -> c_int {
    guarded(-1, || {
        // SAFETY: the caller's.
        let ty = unsafe { model(of) }?.ty(side, index)?;
        let rank = ty.shape.rank();
        if room < rank {
            return Err(format!("the shape has {rank} extents, and there is room for {room}"));
        }
        if dims.is_null() && rank > 0 {
            return Err("the place for the extents is null".into());
        }
        for (at, &extent) in ty.shape.dims().iter().enumerate() {
            // SAFETY: there is room for so many.
            unsafe { *dims.add(at) = extent };
        }
        c_int::try_from(rank).map_err(|error| error.to_string())
    })
}

/// Writes an input's extents to `dims`, at most `room`: how many there are, or -1.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aneforge_input_shape(
    of: *mut Model,
    index: usize,
    dims: *mut usize,
    room: usize,
) -> c_int {
    // SAFETY: the caller's.
    unsafe { shape(of, 0, index, dims, room) }
}

/// Writes an output's extents to `dims`, at most `room`: how many there are, or -1.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aneforge_output_shape(
    of: *mut Model,
    index: usize,
    dims: *mut usize,
    room: usize,
) -> c_int {
    // SAFETY: the caller's.
    unsafe { shape(of, 1, index, dims, room) }
}

/// Values of the caller.
///
/// # Safety
/// There are `count` at `at`.
unsafe fn values<'a, T>(at: *const T, count: usize) -> Result<&'a [T], String> {
    if at.is_null() {
        return Err("the values are null".into());
    }
    if !at.is_aligned() {
        return Err(format!("the values are at {at:p}, which is no multiple of {}", align_of::<T>()));
    }
    if count.checked_mul(size_of::<T>()).is_none_or(|bytes| bytes > isize::MAX as usize) {
        return Err(format!("{count} values are more than memory has"));
    }
    // SAFETY: the caller's.
    Ok(unsafe { std::slice::from_raw_parts(at, count) })
}

/// Gives an input these values, rounded to half precision: 0, or -1.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aneforge_set(of: *mut Model, index: usize, data: *const f32, count: usize) -> c_int {
    guarded(-1, || {
        // SAFETY: the caller's.
        let (model, values) = unsafe { (model(of)?, values(data, count)?) };
        model.feed(index, Feed::F32(values)).map(|()| 0)
    })
}

/// Gives an image input these bytes: 0, or -1.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aneforge_set_bytes(
    of: *mut Model,
    index: usize,
    data: *const u8,
    count: usize,
) -> c_int {
    guarded(-1, || {
        // SAFETY: the caller's.
        let (model, values) = unsafe { (model(of)?, values(data, count)?) };
        model.feed(index, Feed::U8(values)).map(|()| 0)
    })
}

/// Runs once on what the inputs hold, and waits: 0, or -1.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aneforge_run(of: *mut Model) -> c_int {
    // SAFETY: the caller's.
    guarded(-1, || unsafe { model(of) }?.session.execute().map(|()| 0).map_err(|error| error.to_string()))
}

/// Copies an output in single precision; `count` is how many values it has: 0, or -1.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aneforge_get(of: *mut Model, index: usize, data: *mut f32, count: usize) -> c_int {
    guarded(-1, || {
        // SAFETY: the caller's.
        let model = unsafe { model(of) }?;
        let want = model.ty(1, index)?.shape.count();
        if want != count {
            return Err(format!("output {index} has {want} values, and {count} were asked for"));
        }
        if data.is_null() {
            return Err("the place for the values is null".into());
        }
        if !data.is_aligned() {
            return Err(format!(
                "the place for the values is {data:p}, which is no multiple of {}",
                align_of::<f32>()
            ));
        }
        // SAFETY: there is room for so many.
        let to = unsafe { std::slice::from_raw_parts_mut(data, count) };
        model.session.read(index, to);
        Ok(0)
    })
}

/// Where an input's half-precision values (bytes, of an image) lie, and how many bytes there are: filled by the caller, they are not
/// copied. Null after an error, as of an input that nothing reads.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aneforge_input_view(of: *mut Model, index: usize, bytes: *mut usize) -> *mut c_void {
    guarded(std::ptr::null_mut(), || {
        // SAFETY: the caller's.
        let model = unsafe { model(of) }?;
        let count = model.ty(0, index)?.bytes();
        let buffer = model.session.input_buffer(index).ok_or("no op reads this input")?;
        if !bytes.is_null() {
            // SAFETY: the caller's.
            unsafe { *bytes = count };
        }
        Ok(buffer.expose().cast())
    })
}

/// Where an output's half-precision values lie, and how many bytes there are. A run writes over them.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aneforge_output_view(
    of: *mut Model,
    index: usize,
    bytes: *mut usize,
) -> *const c_void {
    guarded(std::ptr::null(), || {
        // SAFETY: the caller's.
        let model = unsafe { model(of) }?;
        let ty = model.ty(1, index)?;
        debug_assert_eq!(ty.dtype, DType::F16);
        let buffer = model.session.output_buffer(index).ok_or("there is no such output")?;
        if !bytes.is_null() {
            // SAFETY: the caller's.
            unsafe { *bytes = ty.bytes() };
        }
        Ok(buffer.expose().cast_const().cast())
    })
}
