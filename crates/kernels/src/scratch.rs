//! Working memory that routines borrow.

/// Working memory, reused from call to call.
///
/// It grows when a routine needs more than it has; reserve the maximum of the `*_scratch` functions beforehand
/// and no routine allocates.
#[derive(Debug, Default)]
pub struct Scratch {
    buffer: Vec<f32>,
}

const LINE: usize = 16;

impl Scratch {
    /// An empty scratch.
    #[must_use]
    pub fn new() -> Scratch {
        Scratch::default()
    }

    /// A scratch that holds `len` values without growing.
    #[must_use]
    pub fn with_capacity(len: usize) -> Scratch {
        let mut scratch = Scratch::new();
        scratch.reserve(len);
        scratch
    }

    /// A scratch that holds `len` values without growing, or `None` where there is no memory for them.
    #[must_use]
    pub fn try_with_capacity(len: usize) -> Option<Scratch> {
        let buffer = bytemuck::allocation::try_zeroed_slice_box(len.checked_add(LINE)?).ok()?;
        Some(Scratch { buffer: buffer.into_vec() })
    }

    /// Makes room for `len` values.
    pub fn reserve(&mut self, len: usize) {
        if self.buffer.len() < len + LINE {
            self.buffer.resize(len + LINE, 0.0);
        }
    }

    /// How many values it holds without growing.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.buffer.len().saturating_sub(LINE)
    }

    /// `len` values of unspecified content that start on a cache line.
    pub(crate) fn take(&mut self, len: usize) -> &mut [f32] {
        self.reserve(len);
        let skip = self.buffer.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        &mut self.buffer[skip..skip + len]
    }
}
