//! Which network a checkpoint is of, and what it makes of pictures.

use super::clip::{OF_TEXTS, Tower};
use super::convnext::ConvNext;
use super::efficientnet::{self, Lite};
use super::folded::Folded;
use super::mobilenet::MobileNet;
use super::processor::{CLIP, Centre, Filter, LARGEST, Processor, Resize};
use super::vit::{self, Vit};
use crate::resnet::{self, Depth};
use crate::weights::{Stored, WeightError};
use aneforge::Var;
use aneforge_formats::Checkpoint;
use serde_json::Value;

/// What a network makes of pictures `[N, 3, H, W]`.
pub struct Made {
    /// A number per class `[N, classes]`, if it classifies.
    pub logits: Option<Var>,
    /// What it knows of each picture `[N, D]`, before a classifier reads it.
    pub features: Var,
    /// How much what stands for the whole picture looks at each patch in the last layer, `[N, heads, patches]` row by row, where
    /// there is such a thing.
    pub looks: Option<Var>,
}

/// A network, as its weights and their description say.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Network {
    /// A residual network, in `torchvision`'s and `timm`'s names.
    ResNet {
        /// How deep.
        depth: Depth,
        /// Its classes.
        classes: usize,
    },
    /// An EfficientNet-lite.
    EfficientNetLite(Lite),
    /// A MobileNetV3.
    MobileNet(MobileNet),
    /// A vision transformer.
    Vit(Vit),
    /// A ConvNeXt.
    ConvNext(ConvNext),
    /// What CLIP or SigLIP looks at pictures with.
    Tower(Tower),
}

impl Network {
    /// The network of these weights, by their names and shapes, and by what `config.json` says (nothing, where it is not an object);
    /// `None` if it is none that is known, and why not where it is known and not followed.
    pub fn of(checkpoint: &Checkpoint, config: &Value) -> Result<Option<Network>, String> {
        let shape = |name: &str| {
            let tensor = checkpoint.contains(name).then(|| checkpoint.tensor(name).ok())??;
            Some(tensor.shape().dims().to_vec())
        };
        // These have filters without weights between the same weights.
        if let Some(name) = config["architecture"].as_str()
            && ["resnetaa", "resnetblur"].iter().any(|other| name.starts_with(other))
        {
            return Err(format!(
                "it is `{name}`, whose filters against aliasing are not known here; take a plain ResNet"
            ));
        }
        if let Some(mobile) = MobileNet::of(&shape) {
            // These have the same weights, but zeros on other sides of a picture and another normalisation.
            return match config["architecture"].as_str().filter(|name| name.starts_with("tf_")) {
                Some(name) => Err(format!(
                    "it is `{name}`, converted from TensorFlow; take `{}`, which is trained in PyTorch",
                    &name[3..]
                )),
                None => Ok(Some(Network::MobileNet(mobile))),
            };
        }
        if let (Some([classes, _]), Some(depth)) = (shape("fc.weight").as_deref(), resnet_depth(&shape)) {
            return Ok(Some(Network::ResNet { depth, classes: *classes }));
        }
        let prefix = |name: &str| {
            let before = checkpoint.names().filter_map(|key| key.strip_suffix(name));
            before.filter(|p| p.is_empty() || p.ends_with('.')).min_by_key(|p| p.len()).map(str::to_owned)
        };
        if let Some(lite) = Lite::of(&shape) {
            return Ok(Some(Network::EfficientNetLite(lite)));
        }
        if let Some(tower) = Tower::of(&shape, &prefix, config) {
            return tower.map(|tower| Some(Network::Tower(tower)));
        }
        if let Some(convnext) = ConvNext::of(&shape, &prefix, config) {
            return Ok(Some(Network::ConvNext(convnext)));
        }
        Vit::of(&shape, &prefix).map(|vit| vit.described_by(config).map(Network::Vit)).transpose()
    }

    /// Why it takes no pictures of so many columns and rows, if it does not.
    pub(super) fn unfit(&self, width: usize, height: usize) -> Option<String> {
        if [width, height].iter().any(|side| !(1..=LARGEST).contains(side)) {
            return Some(format!(
                "pictures come out in {width} by {height} pixels, and 1 to {LARGEST} are possible"
            ));
        }
        match self {
            Network::Vit(vit) => vit.unfit(width, height),
            Network::Tower(tower) => vit::uneven(tower.patch(), width, height),
            _ => None,
        }
    }

    /// The first weight that is no part of this network: what the file is of computes something else then. Those that only training
    /// needs, or other tasks, are none.
    pub(super) fn foreign<'a>(&self, stored: &'a Stored) -> Option<&'a str> {
        const APART: [&str; 4] = ["pooler.", "decoder.", "n_averaged", "lm_head."];
        const TRAINING: [&str; 5] =
            ["num_batches_tracked", "mask_token", "position_ids", "total_ops", "total_params"];
        let texts: &[&str] = if let Network::Tower(_) = self { &OF_TEXTS } else { &[] };
        let of_texts = |name: &str| texts.iter().any(|part| name.starts_with(part));
        let apart = |name: &str| {
            APART.iter().any(|part| name.starts_with(part))
                || TRAINING.iter().any(|part| name.ends_with(part))
        };
        let mut others = stored.untaken().filter(|name| !of_texts(name));
        others.find(|name| !apart(name.strip_prefix(stored.prefix()).unwrap_or(name)))
    }

    /// Rows and columns of the parts of a picture of so many columns and rows that it looks at; `None` if it looks at none more than
    /// at others.
    pub(super) fn parts(&self, (width, height): (usize, usize)) -> Option<[usize; 2]> {
        let patch = match self {
            Network::Vit(vit) => vit.patch(),
            Network::Tower(tower) => tower.patch(),
            _ => return None,
        };
        Some([height / patch, width / patch])
    }

    /// What it is called.
    pub fn name(&self) -> String {
        match self {
            Network::ResNet { depth, .. } => format!("ResNet-{}", depth.layers()),
            Network::EfficientNetLite(_) => "EfficientNet-lite".into(),
            Network::MobileNet(mobile) => mobile.name().into(),
            Network::Vit(vit) => vit.name(),
            Network::ConvNext(convnext) => convnext.name(),
            Network::Tower(tower) => tower.name(),
        }
    }

    /// How many classes it has; 0 if it does not classify.
    pub fn classes(&self) -> usize {
        match self {
            Network::ResNet { classes, .. } => *classes,
            Network::EfficientNetLite(lite) => lite.classes(),
            Network::MobileNet(mobile) => mobile.classes(),
            Network::Vit(vit) => vit.classes(),
            Network::ConvNext(convnext) => convnext.classes(),
            Network::Tower(_) => 0,
        }
    }

    /// How pictures are prepared for it where no file says so.
    pub fn processor(&self) -> Processor {
        match self {
            Network::ResNet { .. } | Network::MobileNet(_) => Processor::torchvision(256, 224),
            Network::ConvNext(_) => Processor::torchvision(236, 224),
            Network::Tower(tower) => {
                let side = tower.side();
                let (clip, base) = (tower.is_clip(), Processor::torchvision(side, side));
                let (mean, std) = if clip { CLIP } else { ([0.5; 3], [0.5; 3]) };
                let (resize, crop) = match clip {
                    true => (Resize::Shortest(side), Some((side, side))),
                    false => (Resize::To { width: side, height: side }, None),
                };
                let (filter, centre) = (Filter::Bicubic, Centre::Floor);
                Processor { resize, crop, filter, centre, mean, std, ..base }
            }
            Network::EfficientNetLite(lite) => {
                let side = lite.side();
                let filter = Filter::Bicubic;
                // 32 pixels less than the shorter side are looked at.
                let base = Processor::torchvision(side + 32, side);
                Processor { filter, scale: 1.0, mean: [127.0; 3], std: [128.0; 3], ..base }
            }
            Network::Vit(vit) => {
                let side = vit.side();
                let (resize, centre) = (Resize::To { width: side, height: side }, Centre::Floor);
                let base = Processor::torchvision(side, side);
                Processor { resize, crop: None, centre, mean: [0.5; 3], std: [0.5; 3], ..base }
            }
        }
    }

    /// Its weights, with normalisations folded in as it has them.
    pub fn weights(&self, stored: Stored) -> Result<Folded, WeightError> {
        Ok(match self {
            Network::ResNet { .. } => Folded::new(stored, resnet::EPS, resnet_norm),
            Network::EfficientNetLite(_) => Folded::new(stored, efficientnet::EPS, |_| None),
            Network::MobileNet(mobile) => Folded::new(stored, mobile.eps(), |_| None),
            Network::Vit(vit) => Folded::new(stored.beside(&vit.first())?, 0.0, |_| None),
            Network::ConvNext(convnext) => Folded::new(stored.beside(&convnext.first())?, 0.0, |_| None),
            Network::Tower(tower) => Folded::new(stored.beside(tower.first())?, 0.0, |_| None),
        })
    }

    /// Its graph for pictures `x`, normalised.
    pub fn build(&self, x: &Var, weights: &mut Folded) -> Result<Made, WeightError> {
        match self {
            Network::ResNet { depth, classes } => {
                let (logits, features) = resnet::with_features(*depth, x, *classes, weights)?;
                Ok(Made { logits: Some(logits), features, looks: None })
            }
            Network::EfficientNetLite(lite) => lite.build(x, weights),
            Network::MobileNet(mobile) => mobile.build(x, weights),
            Network::Vit(vit) => vit.build(x, &mut weights.stored),
            Network::ConvNext(convnext) => convnext.build(x, &mut weights.stored),
            Network::Tower(tower) => tower.build(x, &mut weights.stored),
        }
    }
}

/// The depth whose blocks are there.
fn resnet_depth(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Option<Depth> {
    let has = |name: String| shape(&name).is_some();
    let blocks: [usize; 4] = std::array::from_fn(|stage| {
        (0..).take_while(|block| has(format!("layer{}.{block}.conv1.weight", stage + 1))).count()
    });
    let bottleneck = has("layer1.0.conv3.weight".into());
    Depth::ALL.into_iter().find(|depth| depth.blocks() == blocks && (depth.expansion() > 1) == bottleneck)
}

/// The normalisation behind a convolution of a residual network.
fn resnet_norm(conv: &str) -> Option<String> {
    if let Some(block) = conv.strip_suffix("downsample.0") {
        return Some(format!("{block}downsample.1"));
    }
    let (block, number) = conv.rsplit_once("conv")?;
    Some(format!("{block}bn{number}"))
}

/// A linear layer by its name.
pub(super) fn linear(x: &Var, stored: &mut Stored, name: &str, to: usize) -> Result<Var, WeightError> {
    let from = x.shape().dims().last().copied().unwrap_or(0);
    let weight = Var::constant(stored.tensor(&format!("{name}.weight"), &[to, from])?);
    let bias = Var::constant(stored.tensor(&format!("{name}.bias"), &[to])?);
    Ok(x.linear(&weight, Some(&bias)))
}
