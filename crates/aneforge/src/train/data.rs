//! Which examples are in which batch.

use aneforge_tensor::random::word;

/// Batches of a fixed number of examples, in an order of their own in each epoch, that depends on the seed and the epoch alone.
/// What is left at the end of an epoch and fills no batch is left out.
///
/// ```
/// use aneforge::train::Batches;
/// let mut batches = Batches::new(10, 4, 1).ok_or("fits")?;
/// let first: Vec<usize> = batches.next_batch().to_vec();
/// batches.next_batch();
/// assert_eq!((batches.epoch(), batches.per_epoch()), (0, 2));
/// batches.next_batch();
/// assert_eq!(batches.epoch(), 1);
/// // Where it was is all that has to be kept.
/// let mut again = Batches::new(10, 4, 1).ok_or("fits")?;
/// again.seek(0);
/// assert_eq!(again.next_batch(), first);
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Debug)]
pub struct Batches {
    order: Vec<usize>,
    size: usize,
    seed: u64,
    /// Batches handed out so far.
    done: u64,
    /// The epoch that `order` is of.
    ordered: u64,
}

impl Batches {
    /// Of `size` of `examples` examples; `None` where they do not fill one.
    pub fn new(examples: usize, size: usize, seed: u64) -> Option<Batches> {
        if size == 0 || examples < size {
            return None;
        }
        let mut batches = Batches { order: (0..examples).collect(), size, seed, done: 0, ordered: 0 };
        batches.shuffle(0);
        Some(batches)
    }

    /// How many there are in an epoch.
    pub fn per_epoch(&self) -> u64 {
        (self.order.len() / self.size) as u64
    }

    /// The epoch of the last batch that was handed out.
    pub fn epoch(&self) -> u64 {
        self.done.saturating_sub(1) / self.per_epoch()
    }

    /// How many have been handed out.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Goes on as if so many had been handed out.
    pub fn seek(&mut self, done: u64) {
        self.done = done;
    }

    /// The examples of the next batch.
    pub fn next_batch(&mut self) -> &[usize] {
        let (epoch, at) = (self.done / self.per_epoch(), self.done % self.per_epoch());
        if epoch != self.ordered {
            self.shuffle(epoch);
        }
        self.done += 1;
        let from = at as usize * self.size;
        &self.order[from..from + self.size]
    }

    /// Fisher and Yates' shuffle of the sorted order.
    fn shuffle(&mut self, epoch: u64) {
        self.order.sort_unstable();
        let stream = word(self.seed, epoch);
        for last in (1..self.order.len()).rev() {
            let other = (word(stream, last as u64) % (last as u64 + 1)) as usize;
            self.order.swap(last, other);
        }
        self.ordered = epoch;
    }
}
