//! Native layers: programs that are property lists, which the engine's own framework compiles and runs.

use crate::capture::captured;
use crate::error::{AneError, Failure};
use crate::framework::Framework;
use crate::limits;
use crate::sys::Handle;
use crate::sys::foundation::{Surface, Value};
use crate::sys::objc::{Object, Runtime};
use crate::watchdog::Flight;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A native layer that is to be compiled.
#[derive(Clone, Copy, Debug)]
pub struct NativeSource<'a> {
    /// The property list.
    pub document: &'a [u8],
    /// Weight files by the names that the document has for them. An empty one is legal, and may be needed.
    pub weights: &'a [(String, Vec<u8>)],
    /// The symbols that are fed, in the caller's order.
    pub inputs: &'a [&'a str],
    /// The symbols that come back.
    pub outputs: &'a [&'a str],
}

/// What a loaded model says of a port: extents, and how many bytes apart they lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// Its symbol in the document.
    pub symbol: String,
    /// Batches, depth, channels, height, width.
    pub extents: [usize; 5],
    /// Bytes from one batch, depth, channel and row to the next.
    pub strides: [usize; 4],
    /// Bytes of an element.
    pub element: usize,
}

/// Keys of extents in what a model says of itself, in the order of [`Live::extents`]. Reference (runs on device).
pub const EXTENTS: [&str; 5] = ["Batches", "Depth", "Channels", "Height", "Width"];
/// Keys of strides, in the order of [`Live::strides`]. Reference (runs on device).
pub const STRIDES: [&str; 4] = ["BatchStride", "DepthStride", "PlaneStride", "RowStride"];
/// The file that the document is written to before it is compiled. Reference (runs on device).
pub const DOCUMENT_FILE: &str = "net.plist";

impl Live {
    /// Bytes of its values, dense.
    pub fn dense(&self) -> usize {
        self.extents.iter().product::<usize>() * self.element
    }

    /// Bytes of its surface.
    fn surface(&self) -> usize {
        self.strides[0].saturating_mul(self.extents[0])
    }

    /// Whether its values lie dense in its surface.
    fn is_dense(&self) -> bool {
        let [batches, depth, channels, height, width] = self.extents;
        let row = width * self.element;
        let plane = height * row;
        let [batch, deep, channel, down] = self.strides;
        (height == 1 || down == row)
            // On the wire, depth is within a channel.
            && (channels == 1 || (channel == plane && depth == 1))
            && (depth == 1 || deep == plane)
            && (batches == 1 || batch == depth * channels * plane)
    }

    /// Why a surface cannot be laid out so: what a model says of itself is not trusted.
    fn refused(&self) -> Option<String> {
        let Live { symbol, extents, strides, element } = self;
        let [batches, depth, channels, height, width] = *extents;
        let last = [(batches, strides[0]), (depth, strides[1]), (channels, strides[2]), (height, strides[3])];
        let end = last.iter().try_fold(width.checked_mul(*element)?, |end, (count, stride)| {
            end.checked_add(count.checked_sub(1)?.checked_mul(*stride)?)
        });
        match end {
            Some(end) if end <= self.surface() => None,
            _ => Some(format!("{symbol} is {extents:?} of {element} bytes with strides {strides:?}")),
        }
    }

    /// Calls `each` with the place of every row in the surface and among the dense values.
    fn rows(&self, mut each: impl FnMut(usize, usize, usize)) {
        let [batches, depth, channels, height, width] = self.extents;
        let bytes = width * self.element;
        let mut dense = 0;
        for b in 0..batches {
            // In the order of values on the host: batch, channel, depth, row.
            for c in 0..channels {
                for d in 0..depth {
                    for h in 0..height {
                        let at = b * self.strides[0]
                            + d * self.strides[1]
                            + c * self.strides[2]
                            + h * self.strides[3];
                        each(at, dense, bytes);
                        dense += bytes;
                    }
                }
            }
        }
    }
}

struct Port {
    live: Live,
    surface: Surface,
    _wrapped: Object,
}

/// A native layer, loaded into the engine. Fields are released in the order in which they stand.
pub struct NativeModel {
    held: Held,
    options: Value,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// Where each of the caller's inputs and outputs is among them.
    order: [Vec<usize>; 2],
    runtime: &'static Runtime,
    flight: Arc<Flight>,
    _slot: Slot,
}

/// A model that is loaded. It is unmapped and unloaded before anything of it is released.
struct Held {
    /// What is mapped.
    request: Option<Object>,
    model: Object,
    runtime: &'static Runtime,
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.runtime.here().is_err() {
            return;
        }
        let _pool = self.runtime.pool();
        self.runtime.unload(&self.model, self.request.as_ref(), limits::QUALITY_OF_SERVICE);
    }
}

/// A place among the programs of the process.
struct Slot(Arc<Framework>);

impl Slot {
    fn take(framework: &Arc<Framework>) -> Result<Slot, AneError> {
        let places = &framework.e5rt.places;
        let limit = places.limit();
        places.take().map_err(|loaded| AneError::Budget { loaded, limit })?;
        Ok(Slot(Arc::clone(framework)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.e5rt.places.give();
    }
}

impl NativeModel {
    /// Compiles a document, loads it, and makes the memory of its ports.
    pub fn load(
        framework: &Arc<Framework>,
        source: &NativeSource<'_>,
        call_limit: Duration,
    ) -> Result<NativeModel, AneError> {
        let runtime = framework.native()?;
        runtime.here()?;
        let slot = Slot::take(framework)?;
        let _pool = runtime.pool();
        let model = described(runtime, source)?;
        let options = runtime.foundation.dictionary(&[])?;
        let quality = limits::QUALITY_OF_SERVICE;
        let prepare = |selector| {
            let (done, output) = captured(|| runtime.prepare(&model, selector, quality, options.raw));
            done.map_err(|failure| AneError::Compile { failure, output })
        };
        prepare(c"compileWithQoS:options:error:")?;
        prepare(c"loadWithQoS:options:error:")?;
        let mut held = Held { request: None, model, runtime };
        let attributes = runtime.ask(&held.model, c"modelAttributes");
        let attributes =
            attributes.ok_or_else(|| AneError::Description("it has no modelAttributes".into()))?;
        let inputs = ports(runtime, attributes, "LiveInputList")?;
        let outputs = ports(runtime, attributes, "LiveOutputList")?;
        let order = [placed(&inputs, source.inputs)?, placed(&outputs, source.outputs)?];
        let request = requested(runtime, &inputs, &outputs)?;
        runtime.map(&held.model, &request)?;
        held.request = Some(request);
        let flight = Flight::new(call_limit);
        Ok(NativeModel { held, options, inputs, outputs, order, runtime, flight, _slot: slot })
    }

    /// What the model says of an input, by the caller's order.
    pub fn input(&self, index: usize) -> Option<&Live> {
        Some(&self.inputs[*self.order[0].get(index)?].live)
    }

    /// What the model says of an output, by the caller's order.
    pub fn output(&self, index: usize) -> Option<&Live> {
        Some(&self.outputs[*self.order[1].get(index)?].live)
    }

    /// Writes an input: its values dense, in the order batch, channel, depth, row, column.
    pub fn write(&mut self, index: usize, values: &[u8]) -> Result<(), AneError> {
        let count = self.order[0].len();
        let at = *self.order[0].get(index).ok_or(AneError::Port { what: "input", index, count })?;
        let Port { live, surface, .. } = &mut self.inputs[at];
        let (want, got) = (live.dense(), values.len());
        if want != got {
            return Err(AneError::Values { port: live.symbol.clone(), want, got });
        }
        let dense = live.is_dense();
        surface.write(|to| match dense {
            true => to[..got].copy_from_slice(values),
            false => {
                to.fill(0);
                live.rows(|at, from, bytes| to[at..at + bytes].copy_from_slice(&values[from..from + bytes]));
            }
        })
    }

    /// Runs once, and waits.
    pub fn evaluate(&mut self) -> Result<(), AneError> {
        if self.flight.hung() {
            return Err(AneError::Hung(self.flight.limit()));
        }
        self.runtime.here()?;
        let _pool = self.runtime.pool();
        self.flight.begin();
        let quality = limits::QUALITY_OF_SERVICE;
        let request = self.held.request.as_ref().expect("invariant: a model is mapped when it is made");
        let done = self.runtime.evaluate(&self.held.model, quality, self.options.raw, request);
        self.flight.end();
        if self.flight.hung() {
            return Err(AneError::Hung(self.flight.limit()));
        }
        done.map_err(AneError::Call)
    }

    /// Reads an output: its values dense, in the order batch, channel, depth, row, column.
    pub fn read(&self, index: usize, values: &mut [u8]) -> Result<(), AneError> {
        let count = self.order[1].len();
        let at = *self.order[1].get(index).ok_or(AneError::Port { what: "output", index, count })?;
        let Port { live, surface, .. } = &self.outputs[at];
        let (want, got) = (live.dense(), values.len());
        if want != got {
            return Err(AneError::Values { port: live.symbol.clone(), want, got });
        }
        let dense = live.is_dense();
        surface.read(|from| match dense {
            true => values.copy_from_slice(&from[..got]),
            false => live.rows(|at, to, bytes| values[to..to + bytes].copy_from_slice(&from[at..at + bytes])),
        })
    }
}

impl fmt::Debug for NativeModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let live = |ports: &[Port]| ports.iter().map(|port| port.live.clone()).collect::<Vec<_>>();
        f.debug_struct("NativeModel")
            .field("inputs", &live(&self.inputs))
            .field("outputs", &live(&self.outputs))
            .finish()
    }
}

/// A model of a document, whose files are where the service reads them.
fn described(runtime: &Runtime, source: &NativeSource<'_>) -> Result<Object, AneError> {
    let foundation = &runtime.foundation;
    let mut kept = Vec::new();
    let mut files: Vec<(Handle, Handle)> = Vec::new();
    let (offset, offset_key, data_key) =
        (foundation.number(0)?, foundation.string("offset")?, foundation.string("data")?);
    for (name, bytes) in source.weights {
        let (name, data) = (foundation.string(name)?, foundation.data(bytes)?);
        let file = foundation.dictionary(&[(offset_key.raw, offset.raw), (data_key.raw, data.raw)])?;
        files.push((name.raw, file.raw));
        kept.extend([name, data, file]);
    }
    let (document, weights) = (foundation.data(source.document)?, foundation.dictionary(&files)?);
    let descriptor = runtime.descriptor(document.raw, weights.raw)?;
    let model = runtime.make(c"_ANEInMemoryModel", c"inMemoryModelWithDescriptor:", descriptor.handle())?;
    let place = runtime.ask(&model, c"localModelPath").and_then(|path| foundation.text(path));
    if let Some(place) = place.filter(|place| !place.is_empty()) {
        write_files(Path::new(&place), source)?;
    }
    Ok(model)
}

/// The service reads a model from the disk, so its files are there before it is compiled.
fn write_files(place: &Path, source: &NativeSource<'_>) -> Result<(), AneError> {
    let failed = |action, path: &Path, error: std::io::Error| AneError::Io {
        action,
        path: path.to_owned(),
        why: error.to_string(),
    };
    std::fs::create_dir_all(place).map_err(|error| failed("make folder", place, error))?;
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let own = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let weights = source.weights.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    for (name, bytes) in weights.chain([(DOCUMENT_FILE, source.document)]) {
        let (path, aside) = (place.join(name), place.join(format!(".{name}.{own}")));
        let written = std::fs::write(&aside, bytes).and_then(|()| std::fs::rename(&aside, &path));
        written.map_err(|error| failed("write", &path, error))?;
    }
    Ok(())
}

/// The ports of one kind, in the order in which the model lists them, each with memory of the size that the model says.
fn ports(runtime: &'static Runtime, attributes: Handle, list: &str) -> Result<Vec<Port>, AneError> {
    let foundation = &runtime.foundation;
    let networks = foundation.get(attributes, "NetworkStatusList").map(|list| foundation.values(list));
    let network = networks.and_then(|all| all.first().copied());
    let network = network.ok_or_else(|| AneError::Description("it has no NetworkStatusList".into()))?;
    let live = foundation.get(network, list).map(|list| foundation.values(list)).unwrap_or_default();
    if live.is_empty() {
        return Err(AneError::Description(format!("its {list} is empty or missing")));
    }
    let port = |about: &Handle| {
        let live = live_of(runtime, *about);
        if let Some(why) = live.refused() {
            return Err(AneError::Description(why));
        }
        let surface = foundation.surface(live.surface().max(live.dense()))?;
        let wrapped = runtime.make(c"_ANEIOSurfaceObject", c"objectWithIOSurface:", surface.handle())?;
        Ok(Port { live, surface, _wrapped: wrapped })
    };
    live.iter().map(port).collect()
}

/// What a model says of one port; what it does not say is as the reference takes it.
fn live_of(runtime: &Runtime, about: Handle) -> Live {
    let foundation = &runtime.foundation;
    let size = |key: &str| {
        foundation.get(about, key).and_then(|value| foundation.size(value)).filter(|&size| size > 0)
    };
    let extents = EXTENTS.map(|key| size(key).unwrap_or(1));
    let mut strides = [limits::UNSAID_STRIDE; 4];
    for (at, key) in STRIDES.iter().enumerate() {
        strides[at] = size(key).unwrap_or(if at == 0 { limits::UNSAID_STRIDE } else { strides[at - 1] });
    }
    let text = |key: &str| foundation.get(about, key).and_then(|value| foundation.text(value));
    let element = match text("Type").as_deref() {
        Some("Float32" | "Int32" | "UInt32") => 4,
        Some("Int8" | "UInt8") => 1,
        _ => 2,
    };
    Live { symbol: text("Symbol").unwrap_or_default(), extents, strides, element }
}

/// Where each symbol is among the ports.
fn placed(ports: &[Port], symbols: &[&str]) -> Result<Vec<usize>, AneError> {
    let known = || ports.iter().map(|port| port.live.symbol.clone()).collect::<Vec<_>>().join(", ");
    let place = |symbol: &&str| {
        let found = ports.iter().position(|port| port.live.symbol == **symbol);
        found.ok_or_else(|| AneError::Description(format!("it has no port {symbol}, but {}", known())))
    };
    symbols.iter().map(place).collect()
}

fn requested(runtime: &Runtime, inputs: &[Port], outputs: &[Port]) -> Result<Object, AneError> {
    let foundation = &runtime.foundation;
    let indices = |ports: &[Port]| {
        (0..ports.len()).map(|at| foundation.number(at as i64)).collect::<Result<Vec<_>, _>>()
    };
    let raw = |values: &[Value]| values.iter().map(|value| value.raw).collect::<Vec<_>>();
    let surfaces = |ports: &[Port]| ports.iter().map(|port| port._wrapped.handle()).collect::<Vec<_>>();
    let (fed, got) = (indices(inputs)?, indices(outputs)?);
    let arrays = [
        foundation.array(&surfaces(inputs))?,
        foundation.array(&raw(&fed))?,
        foundation.array(&surfaces(outputs))?,
        foundation.array(&raw(&got))?,
    ];
    let procedure = foundation.number(0)?;
    let [a, b, c, d] = arrays.each_ref().map(|array| array.raw);
    runtime.request([a, b, c, d, procedure.raw])
}

/// A failure's text is the error's description.
impl Failure {
    /// The kernel's status that the text has, with its public name.
    pub fn kernel_status(&self) -> Option<(u32, &'static str)> {
        let lower = self.text.to_ascii_lowercase();
        let at = lower.find("0xe0000")?;
        let digits = lower.get(at + 2..at + 10)?;
        let code = u32::from_str_radix(digits, 16).ok()?;
        Some((code, limits::kernel_status(code)?))
    }
}
