//! Native layers: property lists, what they compute, and how their operands lie.
//!
//! What each kind is given and gives is written here apart from the library's own writer of such documents, from the same account.

use crate::foundation::{Kind, Ref, string, surface};
use crate::registry::Memory;
use crate::{broken, faults};
use aneforge::nn::{Attention, sdpa};
use aneforge::{CompileOptions, Feed, Plan, Session, Shape, Var, compile, f16};
use plist::{Dictionary, Value};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A port: its symbol, and batches, channels, height and width.
#[derive(Clone, Debug)]
struct Port {
    symbol: String,
    extents: [usize; 4],
}

/// A layer that compiles.
pub(crate) struct Layer {
    pub(crate) kind: String,
    pub(crate) plan: Arc<Plan>,
    inputs: Vec<Port>,
    output: Port,
    /// Whether the result is bytes, of which each row has as many as two-byte elements would take twice.
    flags: bool,
}

type Weights = [(String, Vec<u8>)];

fn dict<'a>(value: Option<&'a Value>, what: &str) -> Result<&'a Dictionary, String> {
    value.and_then(Value::as_dictionary).ok_or_else(|| format!("{what} is no dictionary"))
}

fn list<'a>(of: &'a Dictionary, key: &str) -> Result<&'a [Value], String> {
    of.get(key).and_then(Value::as_array).map(Vec::as_slice).ok_or_else(|| format!("{key} is no array"))
}

fn word<'a>(of: &'a Dictionary, key: &str) -> Result<&'a str, String> {
    of.get(key).and_then(Value::as_string).ok_or_else(|| format!("{key} is no string"))
}

fn size(of: &Dictionary, key: &str) -> Result<usize, String> {
    let value =
        of.get(key).and_then(Value::as_unsigned_integer).ok_or_else(|| format!("{key} is no integer"))?;
    Ok(value as usize)
}

fn yes(of: &Dictionary, key: &str) -> bool {
    of.get(key).and_then(Value::as_boolean).unwrap_or(false)
}

fn real(of: &Dictionary, key: &str) -> Result<f64, String> {
    match of.get(key) {
        Some(Value::Real(value)) => Ok(*value),
        // Taken for a bit pattern, or nothing; the layer then does nothing, which no error says.
        _ => Err(format!("{key} is no real")),
    }
}

fn half(of: &Dictionary, key: &str) -> Result<f64, String> {
    Ok(f16::from_bits(size(of, key)? as u16).to_f64())
}

fn only<'a>(values: &'a [Value], what: &str) -> Result<&'a Value, String> {
    match values {
        [value] => Ok(value),
        _ => Err(format!("{what} has {} entries", values.len())),
    }
}

impl Layer {
    /// Reads a document, as strictly as the account of it goes.
    pub(crate) fn read(document: &[u8], weights: &Weights) -> Result<Layer, String> {
        let root = Value::from_reader(std::io::Cursor::new(document)).map_err(|error| error.to_string())?;
        let root = dict(Some(&root), "the document")?;
        if word(root, "Version")? != "1.0.10" {
            return Err("another version of the schema".into());
        }
        let network =
            only(list(root, "Networks")?, "Networks")?.as_string().ok_or("a network has no name")?.to_owned();
        let procedure = dict(Some(only(list(root, "ProcedureList")?, "ProcedureList")?), "the procedure")?;
        let operation =
            dict(Some(only(list(procedure, "OperationList")?, "OperationList")?), "the operation")?;
        if word(operation, "NetworkName")? != network {
            return Err("the operation is of another network".into());
        }
        let network = dict(root.get(&network), "the network")?;
        let named =
            only(list(network, "Units")?, "Units")?.as_string().ok_or("a unit has no name")?.to_owned();
        let unit = dict(network.get(&named), "the unit")?;
        if word(unit, "Name")? != named {
            return Err("the unit has another name than its key".into());
        }
        let inputs = fed(procedure, operation, &named)?;
        let constant = constant(network, weights)?;
        bottoms(unit, &inputs, constant.as_ref())?;
        let output = dict(Some(only(list(procedure, "OutputList")?, "OutputList")?), "the output")?;
        let symbol = word(output, "OutputName")?.to_owned();
        let about = dict(network.get(&symbol), "the network's output")?;
        if word(about, "Bottom")? != named || word(output, "Name")? != named {
            return Err("the output is of another unit".into());
        }
        let kind = word(unit, "Type")?.to_owned();
        let params = dict(unit.get("Params"), "Params")?;
        let leaves: Vec<Var> = inputs.iter().map(|port| Var::input(shape(&port.extents))).collect();
        let made = built(&kind, params, &leaves, constant.as_ref())?;
        let made = made.check().map_err(|error| error.to_string()).map(|_| made)?;
        let extents = result(&kind, &made, &inputs);
        let flags = kind == "RadiusSearch";
        let options = CompileOptions { target: faults::chip(), ..CompileOptions::default() };
        let plan = compile(&[made], &options).map_err(|error| error.to_string())?;
        Ok(Layer { kind, plan: Arc::new(plan), inputs, output: Port { symbol, extents }, flags })
    }
}

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).unwrap_or_else(|_| broken("a netplist with too many elements"))
}

fn fed(procedure: &Dictionary, operation: &Dictionary, unit: &str) -> Result<Vec<Port>, String> {
    let port = |value: &Value| {
        let of = dict(Some(value), "an input")?;
        if word(of, "Name")? != unit || word(of, "OperationName")? != word(operation, "OperationName")? {
            return Err("an input is of another unit".to_owned());
        }
        if (word(of, "InputType")?, size(of, "InputDepth")?, size(of, "InputInterleave")?)
            != ("Float16", 1, 1)
        {
            return Err("an input is not half precision, without depth and interleave".into());
        }
        let keys = ["BatchSize", "InputChannels", "InputHeight", "InputWidth"];
        let mut extents = [0; 4];
        for (extent, key) in extents.iter_mut().zip(keys) {
            *extent = size(of, key)?;
        }
        Ok(Port { symbol: word(of, "InputName")?.to_owned(), extents })
    };
    list(procedure, "InputList")?.iter().map(port).collect()
}

/// The name of a constant, its type, and its two bytes.
fn constant(network: &Dictionary, weights: &Weights) -> Result<Option<(String, String, [u8; 2])>, String> {
    let files = list(network, "Weights")?;
    let missing =
        files.iter().find(|file| weights.iter().all(|(name, _)| Some(name.as_str()) != file.as_string()));
    if let Some(file) = missing {
        return Err(format!("no weight file {file:?}"));
    }
    let Some(constants) = network.get("Constants") else { return Ok(None) };
    let name = only(constants.as_array().ok_or("Constants is no array")?, "Constants")?;
    let name = name.as_string().ok_or("a constant has no name")?;
    let of = dict(network.get(name), "the constant")?;
    let file =
        files.get(size(of, "ConstantIndex")?).and_then(Value::as_string).ok_or("a constant has no file")?;
    let (_, bytes) = weights.iter().find(|(name, _)| name == file).ok_or("a constant has no file")?;
    let bytes = bytes.as_slice().try_into().map_err(|_| "a constant is one element of two bytes")?;
    Ok(Some((name.to_owned(), word(of, "ConstantType")?.to_owned(), bytes)))
}

fn bottoms(
    unit: &Dictionary,
    inputs: &[Port],
    constant: Option<&(String, String, [u8; 2])>,
) -> Result<(), String> {
    let bottoms = list(unit, "Bottom")?;
    let types = list(unit, "InputType")?;
    if bottoms.len() != types.len() {
        return Err("a unit has another number of types than operands".into());
    }
    let known =
        inputs.iter().map(|port| port.symbol.as_str()).chain(constant.map(|(name, ..)| name.as_str()));
    let known: Vec<&str> = known.collect();
    match bottoms.iter().find(|bottom| !bottom.as_string().is_some_and(|name| known.contains(&name))) {
        Some(bottom) => Err(format!("nothing is called {bottom:?}")),
        None if bottoms.len() != known.len() => Err("something is fed that nothing reads".into()),
        None => Ok(()),
    }
}

/// What a layer computes of its operands, as they lie.
fn built(
    kind: &str,
    params: &Dictionary,
    x: &[Var],
    constant: Option<&(String, String, [u8; 2])>,
) -> Result<Var, String> {
    let extents = |at: usize| -> [usize; 4] { std::array::from_fn(|axis| x[at].shape()[axis]) };
    let turned = |at: usize| x[at].transpose(&[0, 2, 1, 3]);
    let cloud = |at: usize| x[at].reshape(&[3, extents(at)[3] as i64]).transpose(&[1, 0]);
    let matrix = |at: usize| x[at].reshape(&[extents(at)[1] as i64, extents(at)[3] as i64]);
    let line = |at: usize| x[at].reshape(&[-1]);
    let max = |key: &str| word(params, key).map(|text| text == "Max");
    Ok(match kind {
        "SDPA" => {
            if !yes(params, "SubtractMax") {
                return Err("a softmax without its greatest value subtracted is wrong on the engine".into());
            }
            let (_, ty, bytes) = constant.ok_or("the scale must be a constant")?;
            if ty != "Float16" {
                return Err("the scale is no half-precision number".into());
            }
            let scale = f16::from_le_bytes(*bytes).to_f64();
            // Queries lie in channels.
            let mask = x.get(3).map(|mask| mask.transpose(&[0, 2, 1, 3]));
            let options = Attention { mask: mask.as_ref(), scale: Some(scale), ..Attention::default() };
            sdpa(&turned(0), &turned(1), &turned(2), &options)
        }
        "GlobalArgMinMax" if max("Type")? => {
            matrix(0).argmax(i64::from(word(params, "Dimension")? == "Width"))
        }
        "TopK" => line(0).reshape(&[1, -1]).topk(size(params, "K")?, max("Type")?),
        "Sort" => {
            let descending = word(params, "Direction")? == "Descending";
            line(0).reshape(&[1, -1]).sort(descending, yes(params, "Indices"))
        }
        "CrossProduct" => line(0).cross_product(&line(1)),
        "CrossCorrelation" => {
            let template = [size(params, "TemplateHeight")? as i64, size(params, "TemplateWidth")? as i64];
            let [.., height, width] = extents(0);
            x[0].reshape(&[height as i64, width as i64]).cross_correlation(&x[1].reshape(&template))
        }
        "CostVolume" => line(0).cost_volume(&line(1), size(params, "DisparityRange")?),
        "FurthestPointSampling" => cloud(0).fps(size(params, "CentroidCount")?),
        "RadiusSearch" => cloud(1).radius_search(&cloud(0), real(params, "Radius")?),
        _ => return moved(kind, params, x, constant),
    })
}

/// The same of layers that normalise, and of those that only bring elements to other places.
fn moved(
    kind: &str,
    params: &Dictionary,
    x: &[Var],
    constant: Option<&(String, String, [u8; 2])>,
) -> Result<Var, String> {
    let line = |at: usize| x[at].reshape(&[-1]);
    Ok(match kind {
        "MinMaxNormalization" => x[0].minmax_norm(word(params, "Dimension")?, half(params, "Epsilon")?),
        "LocalResponseNormalization" => {
            let channels = size(params, "KernelChannel")?;
            if channels != x[0].shape()[1] {
                return Err("channels beyond the window would pass through unchanged".into());
            }
            x[0].lrn(half(params, "Alpha")? / channels as f64, real(params, "Beta")?, real(params, "K")?)
        }
        "SpaceToChannel" => x[0].space_to_channel(square(params)?),
        "ChannelToSpace" => x[0].channel_to_space(square(params)?),
        "SpaceToBatch" => x[0].space_to_batch(size(params, "FactorY")?, size(params, "FactorX")?),
        "BatchToSpace" => x[0].batch_to_space(size(params, "FactorY")?, size(params, "FactorX")?),
        "Flatten" if word(params, "Mode")? == "NCHW" => line(0),
        "InputView" => line(0).input_view(size(params, "Offset")?, size(params, "Size")?),
        "DynamicSlice" => {
            let (_, ty, bytes) = constant.ok_or("the start must be a constant")?;
            if ty != "UInt16" {
                return Err("the start is no 16-bit number".into());
            }
            line(0).dynamic_slice(usize::from(u16::from_le_bytes(*bytes)))
        }
        "ScaledElementWise" => {
            line(0).scaled_elementwise(&line(1), word(params, "Type")?, half(params, "Scale")?)
        }
        other => return Err(format!("no layer {other} with these parameters")),
    })
}

fn square(params: &Dictionary) -> Result<usize, String> {
    let (x, y) = (size(params, "FactorX")?, size(params, "FactorY")?);
    if x == y && size(params, "FactorZ")? == 1 { Ok(x) } else { Err("blocks are not square".into()) }
}

/// Batches, channels, height and width of what a layer makes.
fn result(kind: &str, made: &Var, inputs: &[Port]) -> [usize; 4] {
    let s = made.shape();
    match kind {
        "SDPA" => [1, s[2], s[1], s[3]],
        "GlobalArgMinMax" if s[0] == 1 && inputs[0].extents[1] != 1 => [1, 1, 1, s[1]],
        "GlobalArgMinMax" => {
            if s.rank() == 2 && s[1] == 1 {
                [1, s[0], 1, 1]
            } else {
                [1, 1, 1, s.count()]
            }
        }
        "CrossProduct" => [1, 3, 1, 1],
        "CrossCorrelation" => [1, 1, s[0], s[1]],
        "CostVolume" => [1, s[0], 1, s[1]],
        "FurthestPointSampling" => [1, 3, 1, s[0]],
        "RadiusSearch" => [1, 1, s[0], s[1]],
        _ if s.rank() == 4 => [s[0], s[1], s[2], s[3]],
        _ => [1, 1, 1, s.count()],
    }
}

/// Bytes from one batch, channel and row to the next: rows begin at multiples of 64 bytes.
fn strides(port: &Port) -> [usize; 3] {
    let [_, channels, height, width] = port.extents;
    let row = if faults::is_dense() { width * 2 } else { (width * 2).next_multiple_of(64) };
    [channels * height * row, height * row, row]
}

/// What a model says of itself once it is loaded. Inputs are in another order than in the document.
pub(crate) fn attributes(layer: &Layer) -> Ref {
    let dictionary = |pairs: Vec<(&str, Ref)>| {
        Ref::new(Kind::Dictionary(pairs.into_iter().map(|(key, value)| (string(key), value)).collect()))
    };
    let number = |n: usize| Ref::new(Kind::Number(n as i64));
    let live = |port: &Port| {
        let [batches, channels, height, width] = port.extents;
        let [batch, plane, row] = strides(port);
        dictionary(vec![
            ("Symbol", string(&port.symbol)),
            ("Batches", number(batches)),
            ("Channels", number(channels)),
            ("Depth", number(1)),
            ("Height", number(height)),
            ("Width", number(width)),
            ("BatchStride", number(batch)),
            ("DepthStride", number(batch)),
            ("PlaneStride", number(plane)),
            ("RowStride", number(row)),
            ("Type", string("Float16")),
        ])
    };
    let inputs = layer.inputs.iter().rev().map(live).collect();
    let network = dictionary(vec![
        ("LiveInputList", Ref::new(Kind::Array(inputs))),
        ("LiveOutputList", Ref::new(Kind::Array(vec![live(&layer.output)]))),
    ]);
    dictionary(vec![("NetworkStatusList", Ref::new(Kind::Array(vec![network])))])
}

/// Compares surfaces with ports, before the engine would find out by stopping the machine.
pub(crate) fn check(layer: &Layer, inputs: &[Ref], outputs: &[Ref]) {
    if (inputs.len(), outputs.len()) != (layer.inputs.len(), 1) {
        broken("a request has another number of surfaces than the model has ports");
    }
    let ports = layer.inputs.iter().rev().zip(inputs).chain([(&layer.output, &outputs[0])]);
    for (port, object) in ports {
        let (want, got) = (strides(port)[0] * port.extents[0], surface("map", object.at()).bytes);
        if got < want {
            broken(&format!(
                "machine panic: DART fault: {} takes {want} bytes, its surface has {got}",
                port.symbol
            ));
        }
    }
}

/// Calls `each` with the place of every row in a surface and its number.
fn rows(port: &Port, mut each: impl FnMut(usize, usize)) {
    let [batches, channels, height, _] = port.extents;
    let [batch, plane, row] = strides(port);
    let places =
        (0..batches).flat_map(|b| (0..channels).flat_map(move |c| (0..height).map(move |h| (b, c, h))));
    places.enumerate().for_each(|(number, (b, c, h))| each(b * batch + c * plane + h * row, number));
}

#[expect(clippy::mut_from_ref, reason = "memory of a surface is shared with whoever locks it")]
fn bytes(memory: &Memory) -> &mut [u8] {
    // SAFETY: so many bytes; a model is evaluated by one caller at a time, under its lock.
    unsafe { std::slice::from_raw_parts_mut(memory.at.load(Ordering::Relaxed), memory.bytes) }
}

/// Evaluates from surfaces to a surface.
pub(crate) fn run(
    layer: &Layer,
    session: &mut Session,
    inputs: &[Ref],
    outputs: &[Ref],
) -> Result<(), String> {
    for (index, port) in layer.inputs.iter().enumerate() {
        let from = bytes(surface("evaluate", inputs[inputs.len() - 1 - index].at()));
        let width = port.extents[3];
        let mut values = vec![f16::ZERO; port.extents.iter().product()];
        rows(port, |at, number| {
            let row = &mut values[number * width..][..width];
            row.copy_from_slice(bytemuck::cast_slice(&from[at..at + 2 * width]));
        });
        session.set(index, Feed::F16(&values), &port.extents).map_err(|error| error.to_string())?;
    }
    session.execute().map_err(|error| error.to_string())?;
    let values = laid(layer, &session.output(0));
    let to = bytes(surface("evaluate", outputs[0].at()));
    let width = layer.output.extents[3];
    rows(&layer.output, |at, number| {
        let row = &values[number * width..][..width];
        if layer.flags {
            row.iter()
                .zip(&mut to[at..at + width])
                .for_each(|(value, byte)| *byte = u8::from(value.to_f32() != 0.0));
        } else {
            to[at..at + 2 * width].copy_from_slice(bytemuck::cast_slice(row));
        }
    });
    Ok(())
}

/// The values of the host's result in the order in which the layer leaves them.
fn laid(layer: &Layer, values: &[f16]) -> Vec<f16> {
    let [_, channels, height, width] = layer.output.extents;
    match layer.kind.as_str() {
        // Heads and positions are exchanged.
        "SDPA" => {
            let at = |i: usize| {
                let (position, rest) = (i / (height * width), i % (height * width));
                (rest / width * channels + position) * width + rest % width
            };
            (0..values.len()).map(|i| values[at(i)]).collect()
        }
        "FurthestPointSampling" => (0..values.len()).map(|i| values[i % width * 3 + i / width]).collect(),
        _ => values.to_vec(),
    }
}
