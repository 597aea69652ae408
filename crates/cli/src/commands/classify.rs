//! `aneforge classify`: what is on pictures.

use crate::context::Context;
use crate::output;
use aneforge::artifact::replace;
use aneforge_models::resolve::{HubOptions, truth};
use aneforge_models::vision::{Class, Clip, Network, Picture, Vision, VisionOptions};
use anyhow::Result;
use clap::builder::RangedU64ValueParser;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What follows the options in `aneforge help classify`.
pub const JSON: &str = "\
JSON keys:
  model, network          what was loaded, and which network it is
  target, device          what it was compiled for and ran on
  pictures                for each picture: file, and its likeliest classes, each with index, label and probability";

/// Pictures that run together.
const TOGETHER: usize = 8;

/// Say what is on pictures, with a pretrained network
///
/// Reads JPEG, PNG, WebP and BMP, turned as their Exif data says, and prepares them as the files beside the weights say.
#[derive(clap::Args)]
pub struct Args {
    /// File of weights (.safetensors, or .pth, which is read and never run), directory with config.json and weights, or a hub id
    /// such as timm/resnet50.tv_in1k. ResNet, EfficientNet-lite, MobileNetV3, ViT, DeiT, DINOv2, ConvNeXt, and CLIP and SigLIP with --label
    #[arg(short, long, value_name = "FILE_DIR_OR_HUB_ID")]
    model: String,

    /// The pictures, or folders with pictures
    #[arg(value_name = "PICTURE", required = true)]
    pictures: Vec<PathBuf>,

    /// Print so many classes of each
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    top: usize,

    /// Say how well this text describes a picture, with CLIP or SigLIP; give it once for each text
    #[arg(long = "label", value_name = "TEXT")]
    labels: Vec<String>,

    /// Write where the network looks, in colours on each picture, into this folder as NAME.png. ViT, DeiT, DINOv2, CLIP and SigLIP
    #[arg(long, value_name = "DIR")]
    heat_maps: Option<PathBuf>,

    /// Never download: use a directory, or what the hub's cache holds
    #[arg(long, env = "HF_HUB_OFFLINE", value_parser = truth,
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    offline: bool,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    let files = files(&args.pictures)?;
    let options = VisionOptions {
        target: context.target,
        device: Some(context.device()?),
        compression: context.compression,
        hub: HubOptions { offline: args.offline, progress: context.progress(), ..HubOptions::default() },
        ..VisionOptions::default()
    };
    let mut model = Model::load(&args.model, options, &args.labels)?;
    let mut maps = args.heat_maps.as_deref().map_or(Ok(Vec::new()), |dir| maps(dir, &files))?.into_iter();
    let bar = context.bar("classifying", files.len());
    let mut rows = Vec::with_capacity(files.len());
    for part in files.chunks(TOGETHER) {
        let pictures: Vec<Picture> = part.iter().map(Picture::open).collect::<Result<_, _>>()?;
        let classes = model.classify(&pictures, args)?;
        rows.extend(part.iter().zip(classes));
        for (picture, path) in pictures.iter().zip(maps.by_ref()) {
            let map = model.vision_mut().heat_map(picture)?;
            replace(&path, |out| out.write_all(&map.png()))?;
        }
        bar.inc(part.len() as u64);
    }
    bar.finish_and_clear();
    if context.json {
        let class = |class: &Class| json!({ "index": class.index, "label": class.label, "probability": class.probability });
        let row = |(file, classes): &(&PathBuf, Vec<Class>)| json!({ "file": file.display().to_string(), "classes": classes.iter().map(class).collect::<Vec<Value>>() });
        let value = json!({
            "model": args.model,
            "network": model.vision().network().name(),
            "target": model.vision().target().name(),
            "device": model.vision().device().title(),
            "pictures": rows.iter().map(row).collect::<Vec<Value>>(),
        });
        return output::print_json(out, &value);
    }
    for (file, classes) in rows {
        writeln!(out, "{}", file.display())?;
        for Class { label, probability, .. } in classes {
            writeln!(out, "  {:5.1} %  {label}", 100.0 * probability)?;
        }
    }
    Ok(())
}

/// A network with classes of its own, or a model that compares pictures with texts.
enum Model {
    Classes(Box<Vision>),
    Texts(Box<Clip>),
}

impl Model {
    fn load(name: &str, options: VisionOptions, labels: &[String]) -> Result<Model> {
        if !labels.is_empty() {
            return Ok(Model::Texts(Box::new(Clip::load(name, options)?)));
        }
        let network = Vision::load(name, options)?;
        match network.network() {
            Network::Tower(tower) => Err(crate::exit::misuse(format!(
                "{} has no classes of its own; name texts with --label",
                if tower.is_clip() { "CLIP" } else { "SigLIP" }
            ))),
            _ => Ok(Model::Classes(Box::new(network))),
        }
    }

    fn vision(&self) -> &Vision {
        match self {
            Model::Classes(network) => network,
            Model::Texts(clip) => clip.vision(),
        }
    }

    fn vision_mut(&mut self) -> &mut Vision {
        match self {
            Model::Classes(network) => network,
            Model::Texts(clip) => clip.vision_mut(),
        }
    }

    fn classify(&mut self, pictures: &[Picture], args: &Args) -> Result<Vec<Vec<Class>>> {
        match self {
            Model::Classes(network) => Ok(network.classify(pictures, args.top)?),
            Model::Texts(clip) => {
                let mut rows = clip.classify(pictures, &args.labels)?;
                rows.iter_mut().for_each(|row| row.truncate(args.top));
                Ok(rows)
            }
        }
    }
}

/// What the heat map of each picture is called.
fn maps(folder: &Path, files: &[PathBuf]) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)
        .map_err(|e| crate::exit::file(format!("{} cannot be made: {e}", folder.display())))?;
    let mut taken = BTreeSet::new();
    let path = |file: &PathBuf| {
        let name = Path::new(file.file_stem().unwrap_or_default()).with_extension("png");
        match taken.insert(name.clone()) {
            true => Ok(folder.join(name)),
            false => Err(crate::exit::misuse(format!(
                "two pictures would have the heat map {}; give them names of their own",
                folder.join(name).display()
            ))),
        }
    };
    files.iter().map(path).collect()
}

/// The pictures, those of folders in the order of their names.
fn files(given: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in given {
        match path.is_dir() {
            true => files.extend(of_folder(path)?),
            false => files.push(path.clone()),
        }
    }
    Ok(files)
}

fn of_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let found = crate::data::images::images_in(folder)?;
    match found.is_empty() {
        true => Err(crate::exit::file(format!(
            "{}: has no pictures (.png, .jpg, .jpeg, .webp, .bmp); name some",
            folder.display()
        ))),
        false => Ok(found),
    }
}
