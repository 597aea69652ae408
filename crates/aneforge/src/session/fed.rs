//! Writing inputs, and what half precision loses of them.

use super::{RunError, Session};
use crate::device::{Beyond, Feed, FeedError};
use crate::ir::types::counted;
use aneforge_tensor::{DType, Tensor};
use std::fmt;

/// An input that was fed finite values which half precision cannot hold: they became infinities.
#[derive(Clone, Debug, PartialEq)]
pub struct Unheld {
    /// Its number.
    pub input: usize,
    /// Its name, if it has one.
    pub name: String,
    /// How many values, the first time.
    pub values: usize,
    /// The one of the greatest magnitude, the first time.
    pub largest: f64,
    /// How many times such were fed.
    pub calls: u64,
}

impl Unheld {
    /// What to do about it.
    pub const REMEDY: &'static str = "half precision ends at 65504, and they are infinite in it; scale the array down \
        before it is fed, as in array / 16, and the result up again";
}

impl fmt::Display for Unheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unheld { input, name, values, largest, .. } = self;
        let name = if name.is_empty() { String::new() } else { format!(" ({name})") };
        let beyond = match *values {
            1 => format!("a value beyond half precision, {largest}"),
            _ => format!("{} beyond half precision, the largest {largest}", counted(*values, "value")),
        };
        write!(f, "input {input}{name} was fed {beyond}")
    }
}

impl Session {
    /// Writes an input: checked, converted to the port's type and rounded once. Finite values of which that makes
    /// infinities are logged, once for each input, and listed by [`Session::unheld`].
    pub fn set(&mut self, index: usize, feed: Feed<'_>, shape: &[usize]) -> Result<(), RunError> {
        self.set_while(index, feed, shape, &mut || true)
    }

    /// The same, as long as `go_on` says so, which is asked every few milliseconds; the error is then
    /// [`RunError::Stopped`], and what the input holds means nothing.
    pub fn set_while(
        &mut self,
        index: usize,
        feed: Feed<'_>,
        shape: &[usize],
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<(), RunError> {
        let count = RunError::Count { want: self.plan.feeds.len(), got: index + 1 };
        let want = self.plan.feeds.get(index).ok_or(count)?.ty;
        if shape != want.shape.dims() || feed.len() != want.shape.count() {
            return Err(RunError::Shape { index, want: want.shape, got: shape.to_vec() });
        }
        let Some(buffer) = &self.inputs[index] else {
            return if takes_any(want.dtype, &feed) {
                Ok(())
            } else {
                Err(RunError::DType { index, want: want.dtype, got: feed.dtype() })
            };
        };
        let beyond = buffer.write_while(feed, go_on).map_err(|error| match error {
            FeedError::DType { want, got } => RunError::DType { index, want, got },
            FeedError::Stopped => RunError::Stopped { index },
            FeedError::Count { .. } => unreachable!("the length was compared"),
        })?;
        if let Some(beyond) = beyond {
            self.lost(index, beyond);
        }
        Ok(())
    }

    fn lost(&mut self, input: usize, Beyond { values, largest }: Beyond) {
        if let Some(known) = self.unheld.iter_mut().find(|known| known.input == input) {
            known.calls += 1;
            return;
        }
        let name = self.plan.feeds[input].name.clone();
        let unheld = Unheld { input, name, values, largest, calls: 1 };
        tracing::warn!("{unheld}; {}", Unheld::REMEDY);
        self.unheld.push(unheld);
    }

    /// Inputs that were fed finite values which half precision cannot hold.
    ///
    /// ```
    /// use aneforge::{CompileOptions, Session, Shape, Tensor, Var, compile, device};
    /// let x = Var::input(Shape::new(&[2])?);
    /// let plan = compile(&[x.muls(0.5)], &CompileOptions::default())?;
    /// let mut session = Session::new(plan, device::named("host")?)?;
    /// session.run(&[Tensor::from_slice(Shape::new(&[2])?, &[1.0f32, 1e5])?])?;
    /// let unheld = session.unheld().first().ok_or("all can be held")?;
    /// assert_eq!((unheld.input, unheld.values, unheld.largest), (0, 1, 1e5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn unheld(&self) -> &[Unheld] {
        &self.unheld
    }
}

/// Whether a port of this type takes such values.
fn takes_any(port: DType, feed: &Feed<'_>) -> bool {
    port == DType::F16 || matches!((port, feed), (DType::U8, Feed::U8(_)))
}

/// A tensor as a feed, where one has its element type.
pub(super) fn feed_of(tensor: &Tensor) -> Option<Feed<'_>> {
    match tensor.dtype() {
        DType::F16 => tensor.as_slice().map(Feed::F16),
        DType::F32 => tensor.as_slice().map(Feed::F32),
        DType::F64 => tensor.as_slice().map(Feed::F64),
        DType::U8 => Some(Feed::U8(tensor.bytes())),
        _ => None,
    }
}
