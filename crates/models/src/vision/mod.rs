//! Networks that look at pictures: from a file to labels, or to what they know of it.
//!
//! | module | holds |
//! |---|---|
//! | [`picture`] | files to pixels: decoded, turned, resized, cut |
//! | [`processor`] | what is done to pixels before a network sees them |
//! | [`network`] | which network a checkpoint is of, and its graph |
//! | [`folded`] | convolutions with their normalisation folded in |
//! | [`efficientnet`] | EfficientNet-lite |
//! | [`heat`] | where a network looks |
//! | [`mobilenet`] | MobileNetV3 |
//! | [`vit`] | vision transformers |
//! | [`convnext`] | ConvNeXt |
//! | [`clip`] | what CLIP and SigLIP make of pictures |

pub mod clip;
mod compare;
pub mod convnext;
pub mod efficientnet;
mod error;
pub mod folded;
pub mod heat;
pub mod mobilenet;
pub mod network;
pub mod picture;
pub mod processor;
mod stack;
pub mod vit;

pub use compare::Clip;
pub use error::VisionError;
pub use heat::Looks;
pub use network::Network;
pub use picture::{Picture, PictureError};
pub use processor::{Processor, ProcessorError};

use crate::MOST_TEXT;
use crate::encoder::Files;
use crate::programs::Programs;
use crate::resolve::{HubOptions, Reads, resolve};
use crate::weights::{Beyond, Stored};
use aneforge::compile::compile;
use aneforge::device::{self, Device};
use aneforge::ir::types::{Caller, TensorType};
use aneforge::ir::var::Var;
use aneforge::passes::{CompileOptions, Compression};
use aneforge::session::Session;
use aneforge::target::Target;
use aneforge::{CompileError, Feed, RunError};
use aneforge_formats::{Checkpoint, FileError, read};
use aneforge_tensor::{DType, Shape};
use folded::{Folded, constant};
use serde_json::Value;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What messages call the place where its nodes are made, which is no line of the user's.
const MADE_HERE: Caller = Caller::new("<vision>", 0);
/// The classes of ImageNet, a line each, in the order of its 1,000 numbers.
const IMAGENET: &str = include_str!("../../assets/imagenet.txt");
/// How the names of files of weights end.
const ENDINGS: [&str; 4] = ["safetensors", "pth", "pt", "bin"];
/// The most pictures of one program.
const MOST: usize = 8;

/// How a network is loaded.
#[derive(Clone)]
pub struct VisionOptions {
    /// The chip to compile for.
    pub target: Target,
    /// The device to run on; by default that of the machine, as [`device::default`] gives it.
    pub device: Option<Arc<dyn Device>>,
    /// In which form weights are stored; by default as they are.
    pub compression: Option<Compression>,
    /// How pictures are prepared; by default as the files beside the weights say, and as is usual for the network where they do not.
    pub processor: Option<Processor>,
    /// Where models are downloaded from.
    pub hub: HubOptions,
}

impl Default for VisionOptions {
    fn default() -> VisionOptions {
        let (target, hub) = (Target::default(), HubOptions::default());
        VisionOptions { target, device: None, compression: None, processor: None, hub }
    }
}

/// A class that a picture may be of.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// Its number.
    pub index: usize,
    /// What it is called.
    pub label: String,
    /// How likely it is.
    pub probability: f32,
}

/// A pretrained network that looks at pictures.
///
/// Pictures are prepared on the host as bytes; that they are numbers, and which, is the beginning of the program, which is one for
/// as many pictures as it is given at a time, up to eight.
///
/// ```no_run
/// use aneforge_models::vision::{Picture, Vision, VisionOptions};
///
/// let mut network = Vision::load("resnet18.pth", VisionOptions::default())?;
/// for class in network.classify(&[Picture::open("cat.jpg")?], 5)?.remove(0) {
///     println!("{:5.1} % {}", 100.0 * class.probability, class.label);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Vision {
    name: String,
    place: PathBuf,
    network: Network,
    weights: Folded,
    processor: Processor,
    labels: Vec<String>,
    device: Arc<dyn Device>,
    options: CompileOptions,
    programs: Programs<(usize, DType, Gives)>,
    files: Files,
}

/// What a program gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gives {
    /// Features, and logits where there are classes.
    Knowledge,
    /// Where it looks.
    Looks,
}

/// What a program gives for one picture.
struct Row {
    logits: Option<Vec<f32>>,
    features: Vec<f32>,
}

impl Vision {
    /// Loads a network from a file of weights (safetensors, or what `torch.save` wrote), from a directory in the layout of
    /// `transformers` or `timm`, or by its hub id. Nothing is compiled yet, and no weight is read.
    pub fn load(name_or_path: &str, options: VisionOptions) -> Result<Vision, VisionError> {
        options.target.runs_programs()?;
        let path = Path::new(name_or_path);
        // No hub id ends so: a file that is not there is told as one.
        let named = path.extension().is_some_and(|end| ENDINGS.iter().any(|known| end == *known));
        let place = if path.is_file() {
            path.to_owned()
        } else if named && !path.exists() {
            return Err(FileError::new(path, std::io::ErrorKind::NotFound.into()).into());
        } else {
            resolve(name_or_path, Reads::Pictures, &options.hub)?
        };
        let files = Files::of(&place).map_err(Box::new)?;
        let checkpoint = Checkpoint::open(&place)?;
        let config = described(&place, "config.json")?;
        let fail = |why: String| VisionError::Described { place: place.clone(), why };
        let network = Network::of(&checkpoint, &config).map_err(fail)?;
        let network = network.ok_or_else(|| VisionError::Unknown(place.clone()))?;
        let processor = match options.processor {
            Some(processor) => processor,
            None => Processor::read(&place)?.unwrap_or_else(|| network.processor()),
        };
        let Some((width, height)) = processor.size() else { return Err(VisionError::Size(place)) };
        if let Some(why) = network.unfit(width, height).or_else(|| processor.beyond_half()) {
            return Err(fail(why));
        }
        let labels = labels(&config, &network);
        let weights = network.weights(Stored::new(checkpoint, &network.name()))?;
        let device = options.device.map_or_else(device::default, Ok)?;
        let compile = CompileOptions::target(options.target).compression(options.compression);
        let (name, programs) = (name_or_path.to_owned(), Programs::new(4));
        Ok(Vision {
            name,
            place,
            network,
            weights,
            processor,
            labels,
            device,
            options: compile,
            programs,
            files,
        })
    }

    /// The `most` likely classes of each picture, the likeliest first.
    pub fn classify(&mut self, pictures: &[Picture], most: usize) -> Result<Vec<Vec<Class>>, VisionError> {
        let logits = self.logits(pictures)?;
        Ok(logits.iter().map(|logits| self.ranked(logits, most)).collect())
    }

    /// The likeliest classes by their logits.
    pub fn ranked(&self, logits: &[f32], most: usize) -> Vec<Class> {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let shares: Vec<f32> = logits.iter().map(|v| (v - largest).exp()).collect();
        let total: f32 = shares.iter().sum();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        let class = |&index: &usize| Class {
            index,
            label: self.labels.get(index).cloned().unwrap_or_else(|| format!("class {index}")),
            probability: shares[index] / total,
        };
        order.iter().take(most).map(class).collect()
    }

    /// A number per class for each picture.
    pub fn logits(&mut self, pictures: &[Picture]) -> Result<Vec<Vec<f32>>, VisionError> {
        let name = self.network.name();
        let rows = self.rows(pictures)?;
        rows.into_iter().map(|row| row.logits.ok_or(VisionError::Unclassified(name.clone()))).collect()
    }

    /// A number per class for each picture that was [prepared](Picture::prepared) for the network already, as other threads may do.
    pub fn logits_of_prepared(&mut self, pictures: &[&Picture]) -> Result<Vec<Vec<f32>>, VisionError> {
        let ((width, height), name) = (self.size(), self.network.name());
        let mut all = Vec::with_capacity(pictures.len());
        for part in pictures.chunks(MOST) {
            let count = part.len();
            if let Some(other) =
                part.iter().find(|picture| (picture.width(), picture.height()) != (width, height))
            {
                let got = other.rgb().len();
                return Err(VisionError::Values { count: 1, got, height, width });
            }
            let bytes: Vec<u8> = part.iter().flat_map(|picture| picture.planes()).collect();
            for row in self.run(count, Feed::U8(&bytes))? {
                all.push(row.logits.ok_or_else(|| VisionError::Unclassified(name.clone()))?);
            }
        }
        Ok(all)
    }

    /// What the network knows of each picture, before a classifier reads it.
    pub fn features(&mut self, pictures: &[Picture]) -> Result<Vec<Vec<f32>>, VisionError> {
        Ok(self.rows(pictures)?.into_iter().map(|row| row.features).collect())
    }

    /// How much the network looks at each part of a picture as it is prepared: in the last layer, what stands for the whole picture.
    pub fn looks(&mut self, picture: &Picture) -> Result<Looks, VisionError> {
        let Some([rows, columns]) = self.network.parts(self.size()) else {
            return Err(VisionError::Blind(self.network.name()));
        };
        let (width, height) = self.size();
        let bytes = picture.prepared(&self.processor).planes();
        let session = self.compiled(1, DType::U8, Gives::Looks)?;
        session.set(0, Feed::U8(&bytes), &[1, 3, height, width])?;
        session.execute()?;
        let mut values = vec![0.0; session.output(0).len()];
        session.read(0, &mut values);
        Ok(Looks::new(values.len() / (rows * columns), rows, columns, values))
    }

    /// The same in colours on the picture, as it is prepared.
    pub fn heat_map(&mut self, picture: &Picture) -> Result<Picture, VisionError> {
        let looks = self.looks(picture)?;
        Ok(looks.over(&picture.prepared(&self.processor)))
    }

    fn rows(&mut self, pictures: &[Picture]) -> Result<Vec<Row>, VisionError> {
        let mut rows = Vec::with_capacity(pictures.len());
        for part in pictures.chunks(MOST) {
            let bytes: Vec<u8> =
                part.iter().flat_map(|picture| picture.prepared(&self.processor).planes()).collect();
            rows.extend(self.run(part.len(), Feed::U8(&bytes))?);
        }
        Ok(rows)
    }

    /// Logits of pictures that are prepared and normalised already: `[N, 3, H, W]` in row-major order.
    pub fn run_normalized(&mut self, count: usize, values: &[f32]) -> Result<Vec<Vec<f32>>, VisionError> {
        let (width, height) = self.size();
        let each = 3 * width * height;
        if values.len() != count * each {
            let got = values.len();
            return Err(VisionError::Values { count, got, height, width });
        }
        let mut all = Vec::with_capacity(count);
        for part in values.chunks((MOST * each).max(1)) {
            let rows = self.run(part.len() / each, Feed::F32(part))?;
            all.extend(rows.into_iter().map(|row| row.logits.unwrap_or(row.features)));
        }
        Ok(all)
    }

    fn run(&mut self, count: usize, feed: Feed<'_>) -> Result<Vec<Row>, VisionError> {
        let (width, height) = self.size();
        let dtype = if matches!(feed, Feed::U8(_)) { DType::U8 } else { DType::F16 };
        let session = self.program(count, dtype)?;
        session.set(0, feed, &[count, 3, height, width])?;
        session.execute()?;
        let outputs: Vec<Vec<f32>> = (0..session.plan().outputs.len())
            .map(|at| {
                let mut values = vec![0.0; session.output(at).len()];
                session.read(at, &mut values);
                values
            })
            .collect();
        let row = |at: usize| {
            let of = |values: &Vec<f32>| {
                values.chunks_exact(values.len() / count).nth(at).unwrap_or_default().to_vec()
            };
            match &outputs[..] {
                [features, logits] => Row { logits: Some(of(logits)), features: of(features) },
                [features, ..] => Row { logits: None, features: of(features) },
                [] => unreachable!("a network makes something"),
            }
        };
        Ok((0..count).map(row).collect())
    }

    /// The program for so many pictures, of bytes or of numbers, compiled and loaded if it is not yet.
    pub fn program(&mut self, count: usize, dtype: DType) -> Result<&mut Session, VisionError> {
        self.compiled(count, dtype, Gives::Knowledge)
    }

    fn compiled(&mut self, count: usize, dtype: DType, gives: Gives) -> Result<&mut Session, VisionError> {
        let Vision { name, network, weights, processor, device, options, programs, .. } = self;
        let (width, height) = processor.size().expect("invariant: looked at when it was loaded");
        programs.get((count, dtype, gives), || {
            let outputs = MADE_HERE.scope(|| {
                let shape =
                    Shape::new(&[count, 3, height, width]).map_err(|e| VisionError::Shape(e.to_string()))?;
                let x = Var::input_of(TensorType { dtype, shape });
                let x = if dtype == DType::U8 { normalized(&x, processor) } else { x };
                let made = network.build(&x, weights)?;
                if let Some(key) = network.foreign(&weights.stored) {
                    let (network, key) = (network.name(), key.to_owned());
                    return Err(VisionError::Foreign { directory: name.clone(), network, key });
                }
                Ok::<_, VisionError>(match gives {
                    Gives::Knowledge => std::iter::once(made.features).chain(made.logits).collect(),
                    Gives::Looks => made.looks.into_iter().collect::<Vec<Var>>(),
                })
            })?;
            let plan = compile(&outputs, options).map_err(|error| beyond_half(&weights.stored, error))?;
            Ok(Session::new(plan, device.clone())?)
        })
    }

    /// Columns and rows of prepared pictures.
    pub fn size(&self) -> (usize, usize) {
        self.processor.size().expect("invariant: looked at when it was loaded")
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// How pictures are prepared.
    pub fn processor(&self) -> &Processor {
        &self.processor
    }

    /// What the classes are called, where that is known.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The files that it was loaded from.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The chip it is compiled for.
    pub fn target(&self) -> Target {
        self.options.target
    }

    /// The device it runs on.
    pub fn device(&self) -> &dyn Device {
        &*self.device
    }
}

/// Bytes `x` as the network wants them: `(scale x - mean) / std`, in one product and one sum.
fn normalized(x: &Var, processor: &Processor) -> Var {
    let Processor { scale, mean, std, .. } = processor;
    let factors: Vec<f32> = std.iter().map(|std| scale / std).collect();
    let offsets: Vec<f32> = mean.iter().zip(std).map(|(mean, std)| -mean / std).collect();
    x.cast() * constant(&[1, 3, 1, 1], &factors) + constant(&[1, 3, 1, 1], &offsets)
}

/// The compiler knows constants by number; whoever wrote the file knows them by name.
fn beyond_half(stored: &Stored, error: CompileError) -> VisionError {
    match stored.beyond_half() {
        Some(Beyond { directory, key, value, at }) => VisionError::Beyond { directory, key, value, at },
        None => RunError::from(error).into(),
    }
}

/// What a file of this name says, such as `config.json`; null where there is none.
fn described(place: &Path, name: &str) -> Result<Value, VisionError> {
    let path = place.join(name);
    if !path.is_file() {
        return Ok(Value::Null);
    }
    let fail = |e: serde_json::Error| VisionError::Json { path: path.clone(), why: e.to_string() };
    serde_json::from_slice(&read(&path, MOST_TEXT)?).map_err(fail)
}

/// What the classes are called: as `config.json` says, else as ImageNet's are where there are as many.
fn labels(config: &Value, network: &Network) -> Vec<String> {
    let classes = network.classes();
    let numbered = (0..classes).map_while(|index| config["id2label"][index.to_string()].as_str());
    let named: Vec<String> = numbered.map(str::to_owned).collect();
    if named.len() == classes {
        return named;
    }
    let listed = config["label_names"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let listed: Vec<String> = listed.map(str::to_owned).collect();
    match classes == IMAGENET.lines().count() {
        _ if listed.len() == classes => listed,
        true => IMAGENET.lines().map(str::to_owned).collect(),
        false => Vec::new(),
    }
}

impl fmt::Debug for Vision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (width, height) = self.size();
        let (name, network, device) = (&self.name, self.network.name(), self.device.title());
        write!(
            f,
            "Vision({name}, {network} for {width} x {height} pixels, target {}, device {device})",
            self.options.target
        )
    }
}
