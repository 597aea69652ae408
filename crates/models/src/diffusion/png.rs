//! Pictures as PNG, with texts that say what they were drawn by.

use super::error::DiffusionError;
use crate::vision::Picture;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

/// Bytes before the second chunk: the signature, and the header with its length, name and checksum.
const HEAD: usize = 8 + 4 + 4 + 13 + 4;

/// The file of a picture, with these texts by their keywords, of Latin letters, up to 79 of them.
pub fn encode(picture: &Picture, texts: &[(&str, &str)]) -> Result<Vec<u8>, DiffusionError> {
    let mut whole = Vec::new();
    let (width, height) = (extent(picture.width()), extent(picture.height()));
    let encoder = PngEncoder::new(&mut whole);
    let written = encoder.write_image(picture.rgb(), width, height, ExtendedColorType::Rgb8);
    written.map_err(|e| DiffusionError::Asked(format!("the picture cannot be written: {e}")))?;
    let mut file = whole[..HEAD].to_vec();
    texts.iter().for_each(|(keyword, text)| file.extend(chunk(keyword, text)));
    file.extend_from_slice(&whole[HEAD..]);
    Ok(file)
}

fn extent(of: usize) -> u32 {
    u32::try_from(of).expect("invariant: a picture's extents fit")
}

/// A chunk `iTXt` that is not compressed and of no language.
fn chunk(keyword: &str, text: &str) -> Vec<u8> {
    let mut data = b"iTXt".to_vec();
    data.extend_from_slice(keyword.as_bytes());
    // Behind the keyword: its end, no compression, its method, no language, no translation.
    data.extend_from_slice(&[0; 5]);
    data.extend(text.bytes().filter(|byte| *byte != 0));
    let length = u32::try_from(data.len() - 4).expect("invariant: a text of a file's size");
    let sum = crc32fast::hash(&data);
    [&length.to_be_bytes()[..], &data, &sum.to_be_bytes()].concat()
}
