//! Folders of images, one for each class.

use super::{Data, classes};
use crate::exit::file;
use anyhow::Result;
use image::DynamicImage;
use image::imageops::FilterType;
use std::fs;
use std::path::{Path, PathBuf};

/// The most bytes of a file.
const MOST: u64 = 1 << 30;

/// The endings of files that are read.
const ENDINGS: [&str; 5] = ["png", "jpg", "jpeg", "webp", "bmp"];

/// Reads all images of the folders in `path`, `size` by `size`, each value from 0 to 255.
pub fn read(path: &Path, size: usize, grey: bool) -> Result<Data> {
    let name = path.display().to_string();
    let folders: Vec<PathBuf> = entries(path)?.into_iter().filter(|entry| entry.is_dir()).collect();
    if folders.len() < 2 {
        let count = folders.len();
        return Err(file(format!(
            "{name}: has {count} folders; there must be one for each of two classes or more"
        )));
    }
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    for folder in folders {
        let class = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let images = images_in(&folder)?;
        if images.is_empty() {
            let folder = folder.display();
            return Err(file(format!(
                "{folder}: has no images; put some there ({}), or remove it",
                ENDINGS.join(", ")
            )));
        }
        for image in images {
            values.extend(pixels(&image, size, grey)?);
            labels.push(class.clone());
        }
    }
    let channels = if grey { 1 } else { 3 };
    let shape = vec![channels, size, size];
    Ok(Data { name, shape, features: Vec::new(), values, targets: classes(labels) })
}

/// The pictures in a folder, by name.
pub fn images_in(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(folder)?.into_iter().filter(|entry| is_image(entry)).collect())
}

/// What is in a folder, by name; hidden files are left out.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let fault = |error| file(format!("cannot read {}: {error}", folder.display()));
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).map_err(fault)? {
        let entry = entry.map_err(fault)?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            all.push(entry.path());
        }
    }
    all.sort();
    Ok(all)
}

fn is_image(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    path.is_file() && ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
}

/// The values of an image, channel by channel.
fn pixels(path: &Path, size: usize, grey: bool) -> Result<Vec<f32>> {
    let fault = |why: String| file(format!("{}: cannot be read as an image: {why}", path.display()));
    let bytes = aneforge_formats::given(path, MOST)?;
    // By what is in the file; endings lie.
    let image = image::load_from_memory(&bytes).map_err(|error| fault(error.to_string()))?;
    let side = u32::try_from(size).map_err(|_| fault("too large".into()))?;
    let image = image.resize_exact(side, side, FilterType::Triangle);
    Ok(match grey {
        true => image.into_luma8().into_raw().into_iter().map(f32::from).collect(),
        false => planes(&image),
    })
}

fn planes(image: &DynamicImage) -> Vec<f32> {
    let image = image.to_rgb8();
    (0..3).flat_map(|channel| image.pixels().map(move |pixel| f32::from(pixel.0[channel]))).collect()
}
