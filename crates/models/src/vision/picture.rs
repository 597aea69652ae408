//! Pictures as the networks take them: decoded, turned upright, resized and cut.

use super::processor::{Centre, Filter, Processor, Resize};
use aneforge_formats::{FileError, given};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::codecs::png::PngEncoder;
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageReader, Limits};
use std::io::Cursor;
use std::path::Path;

/// The most bytes that a picture's file may have.
const MOST_FILE: u64 = 1 << 28;
/// The most rows and columns of a picture, and the most bytes that decoding one may take: more than cameras make, and less than
/// what small files are made to ask for.
const MOST_SIDE: u32 = 1 << 15;
const MOST_BYTES: u64 = 1 << 30;

/// A file is no picture that can be used. The file's fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PictureError {
    /// It could not be opened.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is none of the kinds that are read, or damaged.
    #[error("`{name}` cannot be read as a picture: {why}; JPEG, PNG, WebP and BMP are read")]
    Decode {
        /// The file.
        name: String,
        /// What the decoder says.
        why: String,
    },
    /// It has more pixels than can be used.
    #[error(
        "`{name}` has {width} by {height} pixels, and {MOST_SIDE} by {MOST_SIDE} and {most} bytes are the most; make it smaller"
    )]
    Large {
        /// The file.
        name: String,
        /// Its columns.
        width: usize,
        /// Its rows.
        height: usize,
        /// The most bytes.
        most: u64,
    },
    /// There are no pixels, or not as many as its size says.
    #[error(
        "a picture of {width} by {height} pixels has 3 bytes for each, got {got}; give at least one pixel, as red, green, blue"
    )]
    Pixels {
        /// The columns.
        width: usize,
        /// The rows.
        height: usize,
        /// The bytes that were given.
        got: usize,
    },
}

/// A picture: rows of red, green and blue bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Picture {
    /// A picture of rows of red, green and blue bytes.
    pub fn new(width: usize, height: usize, rgb: Vec<u8>) -> Result<Picture, PictureError> {
        if width.max(height) > MOST_SIDE as usize {
            return Err(PictureError::Large { name: "pixels".into(), width, height, most: MOST_BYTES });
        }
        let want = width.checked_mul(height).and_then(|pixels| pixels.checked_mul(3));
        if want != Some(rgb.len()) || rgb.is_empty() {
            return Err(PictureError::Pixels { width, height, got: rgb.len() });
        }
        Ok(Picture { width, height, rgb })
    }

    /// Reads a JPEG, PNG, WebP or BMP, by what is in it and not by its name. It is turned as its Exif data says; what is
    /// transparent is taken as it is stored, and grey becomes all three colours.
    pub fn open(path: impl AsRef<Path>) -> Result<Picture, PictureError> {
        let path = path.as_ref();
        Picture::decode(&path.display().to_string(), &given(path, MOST_FILE)?)
    }

    /// Reads the bytes of a file; `name` is for messages.
    pub fn decode(name: &str, bytes: &[u8]) -> Result<Picture, PictureError> {
        Picture::decode_within(name, bytes, MOST_BYTES)
    }

    /// The same of a picture that takes no more than so many bytes once it is decoded.
    pub fn decode_within(name: &str, bytes: &[u8], most: u64) -> Result<Picture, PictureError> {
        let most = most.min(MOST_BYTES);
        let fail =
            |why: image::ImageError| PictureError::Decode { name: name.to_owned(), why: why.to_string() };
        let unread = |e: std::io::Error| fail(image::ImageError::IoError(e));
        if is_cut(bytes) {
            let why = "the file ends within the picture; download or copy it again".into();
            return Err(PictureError::Decode { name: name.to_owned(), why });
        }
        let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(unread)?;
        let mut decoder = reader.into_decoder().map_err(fail)?;
        let (width, height) = decoder.dimensions();
        if width > MOST_SIDE || height > MOST_SIDE || decoder.total_bytes() > most {
            let (width, height) = (width as usize, height as usize);
            return Err(PictureError::Large { name: name.to_owned(), width, height, most });
        }
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(2 * most);
        decoder.set_limits(limits).map_err(fail)?;
        // A picture whose Exif data cannot be read is as it is.
        let turned = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
        let mut image = DynamicImage::from_decoder(decoder).map_err(fail)?;
        image.apply_orientation(turned);
        let rgb = image.into_rgb8();
        Picture::new(rgb.width() as usize, rgb.height() as usize, rgb.into_raw())
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Rows of red, green and blue bytes.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The same with so many columns and rows. Filters are as wide as what becomes a pixel, and of columns and rows those are first
    /// that leave less, as Pillow has it: results are its own to two in 255.
    pub fn resized(&self, width: usize, height: usize, filter: Filter) -> Picture {
        if filter == Filter::Nearest {
            return self.stretched(width, height, ResizeAlg::Nearest);
        }
        let filter = match filter {
            Filter::Bicubic => FilterType::CatmullRom,
            Filter::Lanczos => FilterType::Lanczos3,
            Filter::Nearest | Filter::Bilinear => FilterType::Bilinear,
        };
        let alg = ResizeAlg::Convolution(filter);
        let between = if width * self.height <= self.width * height {
            (width, self.height)
        } else {
            (self.width, height)
        };
        self.stretched(between.0, between.1, alg).stretched(width, height, alg)
    }

    fn stretched(&self, width: usize, height: usize, alg: ResizeAlg) -> Picture {
        if (width, height) == (self.width, self.height) {
            return self.clone();
        }
        let side = |n: usize| u32::try_from(n).expect("invariant: pictures have fewer rows and columns");
        let from = ImageRef::new(side(self.width), side(self.height), &self.rgb, PixelType::U8x3);
        let from = from.expect("invariant: as many bytes as pixels");
        let mut to = Image::new(side(width), side(height), PixelType::U8x3);
        let options = ResizeOptions::new().resize_alg(alg);
        Resizer::new().resize(&from, &mut to, &options).expect("invariant: both are of bytes in threes");
        Picture { width, height, rgb: to.into_vec() }
    }

    /// The part of so many columns and rows in the middle; black where the picture is smaller.
    pub fn cropped(&self, width: usize, height: usize, centre: Centre) -> Picture {
        let begin = |whole: usize, part: usize| centre.begin(whole as i64 - part as i64);
        let (left, top) = (begin(self.width, width), begin(self.height, height));
        let mut rgb = vec![0; 3 * width * height];
        for (row, line) in rgb.chunks_exact_mut(3 * width).enumerate() {
            let from = usize::try_from(top + row as i64).ok().filter(|&y| y < self.height);
            let Some(from) = from else { continue };
            let source = &self.rgb[3 * from * self.width..][..3 * self.width];
            let (to, from) = (usize::try_from(-left).unwrap_or(0), usize::try_from(left).unwrap_or(0));
            let count = (width - to.min(width)).min(self.width - from.min(self.width));
            line[3 * to..][..3 * count].copy_from_slice(&source[3 * from..][..3 * count]);
        }
        Picture { width, height, rgb }
    }

    /// As `processor` says, in bytes.
    pub fn prepared(&self, processor: &Processor) -> Picture {
        let (w, h) = (self.width, self.height);
        let resized = match processor.resize {
            Resize::Keep => self.clone(),
            Resize::To { width, height } => self.resized(width, height, processor.filter),
            Resize::Shortest(side) => {
                // The longer side is rounded down, but is never nothing.
                let longer = |long: usize, short: usize| (side * long / short).max(1);
                let (width, height) = if w < h { (side, longer(h, w)) } else { (longer(w, h), side) };
                // Of a picture like a line no more is made than the part that is kept.
                self.within(width, height, processor)
            }
        };
        match processor.crop {
            Some((width, height)) => resized.cropped(width, height, processor.centre),
            None => resized,
        }
    }

    /// Resizes, but first cuts what is so long that all but its middle would be cut off again.
    fn within(&self, width: usize, height: usize, processor: &Processor) -> Picture {
        const LONG: usize = 1 << 14;
        if width.max(height) <= LONG {
            return self.resized(width, height, processor.filter);
        }
        let part = |whole: usize, to: usize| if to > LONG { (whole * LONG / to).max(1) } else { whole };
        let cut = self.cropped(part(self.width, width), part(self.height, height), processor.centre);
        cut.resized(width.min(LONG), height.min(LONG), processor.filter)
    }

    /// The bytes of a PNG of it.
    pub fn png(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let (width, height) = (self.width as u32, self.height as u32);
        PngEncoder::new(&mut bytes)
            .write_image(&self.rgb, width, height, ExtendedColorType::Rgb8)
            .expect("invariant: memory takes what is written, and the pixels are as many as the size says");
        bytes
    }

    /// All red values, then all green, then all blue ones.
    pub fn planes(&self) -> Vec<u8> {
        (0..3).flat_map(|channel| self.rgb.iter().skip(channel).step_by(3).copied()).collect()
    }
}

/// Whether these are of a JPEG that ends within its picture, whose rest decoders fill with grey: one without the mark of its end
/// behind the first scan, in which that mark cannot be.
fn is_cut(bytes: &[u8]) -> bool {
    let Some(mut rest) = bytes.strip_prefix(b"\xff\xd8") else { return false };
    // What precedes the scan says how long it is; a small picture in Exif data has an end of its own.
    while let [0xff, kind, high, low, ..] = *rest {
        if kind == 0xda {
            return !rest.windows(2).any(|mark| mark == b"\xff\xd9");
        }
        let length = 2 + usize::from(u16::from_be_bytes([high, low]));
        let Some(next) = rest.get(length..) else { return true };
        rest = next;
    }
    false
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({} x {})", self.width, self.height)
    }
}
