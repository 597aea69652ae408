//! What is done to a picture before a network sees it, as the files beside its weights say.

use crate::MOST_TEXT;
use aneforge_formats::{FileError, read};
use serde_json::Value;
use std::path::Path;

/// ImageNet's mean colour and its deviation, by which most networks normalise.
pub const IMAGENET: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
/// The mean colour and its deviation of what CLIP was trained with.
pub const CLIP: ([f32; 3], [f32; 3]) =
    ([0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_6, 0.275_777_1]);
/// The largest side that a picture is resized to; far more than networks take.
pub(super) const LARGEST: usize = 2048;
/// The largest number of half precision.
const HALF: f32 = 65504.0;

/// How a picture becomes what a network takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Processor {
    /// What size it is brought to.
    pub resize: Resize,
    /// By which filter.
    pub filter: Filter,
    /// Columns and rows of the middle part that is kept; all of it where there are none.
    pub crop: Option<(usize, usize)>,
    /// Where that part begins.
    pub centre: Centre,
    /// Bytes are multiplied with this,
    pub scale: f32,
    /// the mean of each colour is taken away,
    pub mean: [f32; 3],
    /// and what is left is divided by its deviation.
    pub std: [f32; 3],
}

/// What size a picture is brought to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// It stays as it is.
    Keep,
    /// Its shorter side has so many pixels then, and the longer one keeps its share.
    Shortest(usize),
    /// Exactly this.
    To {
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
    },
}

/// The filters of Pillow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The pixel that is nearest.
    Nearest,
    /// A triangle.
    Bilinear,
    /// A cubic with `a = -1/2`.
    Bicubic,
    /// A windowed sinc of three lobes.
    Lanczos,
}

/// On which side of the middle a part begins where it cannot be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Centre {
    /// Before it, as `transformers` has it.
    Floor,
    /// At the even place, as `torchvision` and `timm` have it.
    Even,
}

impl Centre {
    /// The first pixel of a part where so many are left out on both sides together.
    pub(super) fn begin(self, rest: i64) -> i64 {
        match self {
            Centre::Floor => rest.div_euclid(2),
            Centre::Even => (rest as f64 / 2.0).round_ties_even() as i64,
        }
    }
}

/// A description of how to prepare pictures is not what it should be. The file's fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessorError {
    /// It could not be opened.
    #[error(transparent)]
    File(#[from] FileError),
    /// It says something that is not known here, or not what it should.
    #[error("`{file}`: {why}")]
    Field {
        /// The file.
        file: String,
        /// What is wrong, and what to do.
        why: String,
    },
}

impl Processor {
    /// What `torchvision` does for its ImageNet networks: the shorter side to `side`, and the middle of `size` by `size`.
    pub fn torchvision(side: usize, size: usize) -> Processor {
        let (mean, std) = IMAGENET;
        Processor {
            resize: Resize::Shortest(side),
            filter: Filter::Bilinear,
            crop: Some((size, size)),
            centre: Centre::Even,
            scale: 1.0 / 255.0,
            mean,
            std,
        }
    }

    /// Columns and rows of what comes out, where that does not depend on the picture.
    pub fn size(&self) -> Option<(usize, usize)> {
        match (self.crop, self.resize) {
            (Some(size), _) => Some(size),
            (None, Resize::To { width, height }) => Some((width, height)),
            (None, _) => None,
        }
    }

    /// What is wrong with its numbers, if half precision, in which bytes become numbers, does not hold them.
    pub(super) fn beyond_half(&self) -> Option<String> {
        let Processor { scale, mean, std, .. } = self;
        let holds = |(mean, std): (&f32, &f32)| {
            let (factor, offset) = (scale / std, mean / std);
            factor > HALF.recip() / 256.0 && 255.0 * factor + offset.abs() <= HALF
        };
        (!mean.iter().zip(std).all(holds)).then(|| {
            format!(
                "with a scale of {scale}, means {mean:?} and deviations {std:?} bytes become numbers that half precision does not \
                 hold; correct them in preprocessor_config.json or config.json"
            )
        })
    }

    /// What a directory says: `preprocessor_config.json` of `transformers`, or `pretrained_cfg` in the `config.json` of `timm`.
    /// `None` where there is neither.
    pub fn read(directory: &Path) -> Result<Option<Processor>, ProcessorError> {
        let of = |name: &str| -> Result<Option<(String, Value)>, ProcessorError> {
            let path = directory.join(name);
            if !path.exists() {
                return Ok(None);
            }
            let file = path.display().to_string();
            let json = serde_json::from_slice(&read(&path, MOST_TEXT)?);
            let fail = |e: serde_json::Error| ProcessorError::Field {
                file: file.clone(),
                why: format!("is not valid JSON: {e}; download it again"),
            };
            let json = json.map_err(fail)?;
            Ok(Some((file, json)))
        };
        let told = |(file, read): (String, Result<Processor, String>)| {
            read.map(Some).map_err(|why| ProcessorError::Field { file, why })
        };
        if let Some((file, json)) = of("preprocessor_config.json")? {
            return told((file, transformers(&json)));
        }
        match of("config.json")? {
            Some((file, json)) if json["pretrained_cfg"].is_object() => {
                told((file, timm(&json["pretrained_cfg"])))
            }
            _ => Ok(None),
        }
    }
}

/// A number of pixels.
fn pixels(name: &str, value: &Value) -> Result<usize, String> {
    let side = value.as_u64().and_then(|side| usize::try_from(side).ok());
    side.filter(|side| (1..=LARGEST).contains(side))
        .ok_or_else(|| format!("{name} is {value}; it must be a whole number from 1 to {LARGEST}"))
}

/// Three numbers, one for each colour; one number stands for all.
fn colours(name: &str, value: &Value) -> Result<[f32; 3], String> {
    let numbers: Option<Vec<f32>> = match value {
        Value::Array(items) => items.iter().map(|item| item.as_f64().map(|v| v as f32)).collect(),
        other => other.as_f64().map(|v| vec![v as f32; 3]),
    };
    let three = numbers.and_then(|numbers| <[f32; 3]>::try_from(numbers).ok());
    three
        .filter(|all| all.iter().all(|v| v.is_finite()))
        .ok_or_else(|| format!("{name} is {value}; it must be three numbers"))
}

fn deviations(name: &str, value: &Value) -> Result<[f32; 3], String> {
    let std = colours(name, value)?;
    match std.iter().all(|&v| v > 0.0) {
        true => Ok(std),
        false => Err(format!("{name} is {value}; deviations must be above 0")),
    }
}

/// The filter that Pillow has under a number.
fn numbered(value: &Value) -> Result<Filter, String> {
    Ok(match value.as_u64() {
        None if value.is_null() => Filter::Bilinear,
        Some(0) => Filter::Nearest,
        Some(1) => Filter::Lanczos,
        Some(2) => Filter::Bilinear,
        Some(3) => Filter::Bicubic,
        _ => {
            return Err(format!(
                "resample is {value}; 0 (nearest), 1 (Lanczos), 2 (bilinear) and 3 (bicubic) are known"
            ));
        }
    })
}

/// A size as columns and rows, from a number, `{"height", "width"}` or `[height, width]`.
fn both(name: &str, value: &Value) -> Result<(usize, usize), String> {
    match value {
        Value::Object(sides) if sides.contains_key("height") => {
            Ok((pixels(name, &value["width"])?, pixels(name, &value["height"])?))
        }
        Value::Array(sides) if sides.len() == 2 => Ok((pixels(name, &sides[1])?, pixels(name, &sides[0])?)),
        Value::Object(sides) if sides.contains_key("shortest_edge") => {
            pixels(name, &value["shortest_edge"]).map(|side| (side, side))
        }
        other => pixels(name, other).map(|side| (side, side)),
    }
}

/// The description in `transformers`' files. What is absent is as the class of the name has it.
fn transformers(json: &Value) -> Result<Processor, String> {
    if !json.is_object() {
        return Err("it must be an object of JSON; download it again".into());
    }
    let class =
        ["image_processor_type", "feature_extractor_type"].iter().find_map(|name| json[name].as_str());
    let class = class.unwrap_or_default();
    let is = |name: &str| class.starts_with(name);
    let on = |name: &str, default: bool| match &json[name] {
        Value::Null => Ok(default),
        Value::Bool(on) => Ok(*on),
        other => Err(format!("{name} is {other}; it must be true or false")),
    };
    let mut resize = Resize::Keep;
    let mut crop = match on("do_center_crop", is("CLIP") || is("Bit"))? {
        true if json["crop_size"].is_null() => Some((224, 224)),
        true => Some(both("crop_size", &json["crop_size"])?),
        false => None,
    };
    if on("do_resize", true)? {
        let size = &json["size"];
        // A single number is the shorter side to those that cut the middle out, and both sides to others.
        let shortest = match size {
            Value::Object(sides) => sides.contains_key("shortest_edge"),
            _ => is("CLIP") || is("Bit") || is("ConvNext"),
        };
        let (width, height) = if size.is_null() { (224, 224) } else { both("size", size)? };
        resize = if shortest { Resize::Shortest(width) } else { Resize::To { width, height } };
        if is("ConvNext") {
            (resize, crop) = cut_of(json, width)?;
        }
    }
    let scale = match (on("do_rescale", true)?, &json["rescale_factor"]) {
        (false, _) => 1.0,
        (true, Value::Null) => 1.0 / 255.0,
        (true, factor) => {
            factor.as_f64().ok_or_else(|| format!("rescale_factor is {factor}; it must be a number"))? as f32
        }
    };
    let (mut mean, mut std) = ([0.0; 3], [1.0; 3]);
    if on("do_normalize", true)? {
        (mean, std) = ([0.5; 3], [0.5; 3]);
        if !json["image_mean"].is_null() {
            mean = colours("image_mean", &json["image_mean"])?;
        }
        if !json["image_std"].is_null() {
            std = deviations("image_std", &json["image_std"])?;
        }
    }
    let filter = match &json["resample"] {
        Value::Null if is("CLIP") || is("Bit") || is("Siglip") => Filter::Bicubic,
        given => numbered(given)?,
    };
    Ok(Processor { resize, filter, crop, centre: Centre::Floor, scale, mean, std })
}

/// ConvNeXt's way: below 384 pixels the middle of a larger picture, from there on the whole picture in that size.
fn cut_of(json: &Value, side: usize) -> Result<(Resize, Option<(usize, usize)>), String> {
    if side >= 384 {
        return Ok((Resize::To { width: side, height: side }, None));
    }
    let share = share(&json["crop_pct"], 224.0 / 256.0)?;
    Ok((Resize::Shortest((side as f64 / share) as usize), Some((side, side))))
}

/// Which share of a side is kept.
fn share(value: &Value, default: f64) -> Result<f64, String> {
    let share = if value.is_null() { Some(default) } else { value.as_f64() };
    share
        .filter(|share| (0.5..=1.0).contains(share))
        .ok_or_else(|| format!("crop_pct is {value}; it must be from 0.5 to 1"))
}

/// The description in `timm`'s files.
fn timm(json: &Value) -> Result<Processor, String> {
    let size = match &json["input_size"] {
        Value::Array(sides) if sides.len() == 3 => both("input_size", &Value::Array(sides[1..].to_vec()))?,
        other => return Err(format!("input_size is {other}; it must be [channels, height, width]")),
    };
    if let Some(mode @ ("border" | "squash")) = json["crop_mode"].as_str() {
        return Err(format!("crop_mode is `{mode}`; only `center` is known"));
    }
    let share = share(&json["crop_pct"], 0.875)?;
    let filter = match json["interpolation"].as_str() {
        Some("bicubic") => Filter::Bicubic,
        None | Some("bilinear") => Filter::Bilinear,
        Some("lanczos") => Filter::Lanczos,
        Some("nearest") => Filter::Nearest,
        Some(other) => {
            return Err(format!(
                "interpolation is `{other}`; bicubic, bilinear, lanczos and nearest are known"
            ));
        }
    };
    let (mean, std) = IMAGENET;
    let mean = if json["mean"].is_null() { mean } else { colours("mean", &json["mean"])? };
    let std = if json["std"].is_null() { std } else { deviations("std", &json["std"])? };
    let (width, height) = size;
    let grown = |side: usize| (side as f64 / share).floor() as usize;
    let resize = match width == height {
        true => Resize::Shortest(grown(width)),
        false => Resize::To { width: grown(width), height: grown(height) },
    };
    Ok(Processor { resize, filter, crop: Some(size), centre: Centre::Even, scale: 1.0 / 255.0, mean, std })
}
