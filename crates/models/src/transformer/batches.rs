//! Which texts go through which program together.

use std::fmt;

/// Rows of a full batch, texts times tokens: so many that products fill the threads of a processor and the engine, and that
/// what passes between layers stays near them.
const ROWS: usize = 512;
/// The most texts of a batch.
const MOST: usize = 32;

/// The length that a text of `tokens` tokens is padded to: multiples of 4 up to 32, of 8 up to 96, of 16 up to 192, of
/// 32 beyond, and at most `max`.
pub fn bucket(tokens: usize, max: usize) -> usize {
    let step = match tokens {
        0..=32 => 4,
        33..=96 => 8,
        97..=192 => 16,
        _ => 32,
    };
    tokens.max(1).next_multiple_of(step).min(max).max(tokens)
}

/// The texts of a full batch of such a length.
fn full(length: usize) -> usize {
    (ROWS / length).clamp(1, MOST)
}

/// Texts that go through one program together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// For how many texts the program is.
    pub size: usize,
    /// For how many tokens of each it is.
    pub length: usize,
    /// Which texts they are, by their places in what was given; no more than `size`.
    pub texts: Vec<usize>,
}

/// How texts are divided into batches; printing it says which there are, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batches {
    /// In the order in which they run: the longest texts first.
    pub batches: Vec<Batch>,
    /// The tokens of each text.
    pub lengths: Vec<usize>,
    /// The most tokens of a text.
    pub max: usize,
}

impl Batches {
    /// Divides texts of so many tokens.
    ///
    /// Texts are taken by length, the longest first. A batch has the length of the [`bucket`] of its longest text, and is
    /// full with 512 rows of tokens or 32 texts. A text that would be padded by more than a quarter joins no batch of longer
    /// ones. Of what is left over, halves, quarters and so on of a full batch are made, so that there are few programs to
    /// compile; one in four of a batch's places may stay empty for that.
    pub fn of(lengths: &[usize], max: usize) -> Batches {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|&text| std::cmp::Reverse(lengths[text]));
        let mut batches = Vec::new();
        let mut left = &order[..];
        while let [longest, ..] = left {
            let length = bucket(lengths[*longest], max);
            let joins = |&&text: &&usize| {
                let tokens = lengths[text];
                bucket(tokens, max) == length || 4 * tokens >= 3 * length
            };
            let near = left.iter().take(full(length)).take_while(joins).count();
            let mut size = full(length);
            // A half of it, as long as that holds all texts, or more than a quarter of the places would stay empty.
            while size > 1 && (near <= size.div_ceil(2) || 4 * near < 3 * size) {
                size = size.div_ceil(2);
            }
            let (texts, rest) = left.split_at(near.min(size));
            batches.push(Batch { size, length, texts: texts.to_vec() });
            left = rest;
        }
        Batches { batches, lengths: lengths.to_vec(), max }
    }

    /// Tokens of all texts, and rows of all programs that run for them.
    pub fn rows(&self) -> (usize, usize) {
        let rows = self.batches.iter().map(|batch| batch.size * batch.length).sum();
        (self.lengths.iter().sum(), rows)
    }
}

impl fmt::Display for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tokens, rows) = self.rows();
        let share = |used: usize, of: usize| 100 * (of - used.min(of)) / of.max(1);
        let (texts, runs) = (self.lengths.len(), self.batches.len());
        writeln!(f, "{texts} texts of {tokens} tokens in {runs} runs, {} % padding", share(tokens, rows))?;
        let mut at = 0;
        while let Some(first) = self.batches.get(at) {
            let same = |batch: &&Batch| (batch.size, batch.length) == (first.size, first.length);
            let group: Vec<&Batch> = self.batches[at..].iter().take_while(same).collect();
            at += group.len();
            let of: Vec<usize> =
                group.iter().flat_map(|batch| &batch.texts).map(|&text| self.lengths[text]).collect();
            let (least, most) = (of.iter().min().unwrap_or(&0), of.iter().max().unwrap_or(&0));
            let &Batch { size, length, .. } = first;
            write!(
                f,
                "{size:4} x {length:<4} {:3} runs, {:4} texts of {least} to {most} tokens, ",
                group.len(),
                of.len()
            )?;
            write!(f, "{:2} % padding: ", share(of.iter().sum(), group.len() * size * length))?;
            let whole = full(length);
            match (size == whole, whole) {
                (true, 1) => writeln!(f, "one text fills {length} rows")?,
                (true, MOST) => writeln!(f, "the most texts of a batch")?,
                (true, _) => writeln!(f, "{} rows fill the machine", size * length)?,
                (false, _) => writeln!(f, "a part of {whole}, as no more texts are near {length} tokens")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_their_texts_and_grow() {
        assert_eq!(
            [0, 1, 4, 5, 32, 33, 96, 97, 192, 193, 500].map(|n| bucket(n, 512)),
            [4, 4, 4, 8, 32, 40, 96, 112, 192, 224, 512]
        );
        assert_eq!([3, 90, 98].map(|n| bucket(n, 100)), [4, 96, 100]);
        for n in 1..=512 {
            assert!(bucket(n, 512) >= n && bucket(n, 512) >= bucket(n - 1, 512));
        }
    }

    #[test]
    fn every_text_is_in_one_batch_that_holds_it() {
        for seed in 0..200 {
            let random = |i: u64| aneforge_tensor::random::word(seed, i) as usize;
            let lengths: Vec<usize> = (0..random(0) % 150).map(|i| random(i as u64 + 1) % 300).collect();
            let batches = Batches::of(&lengths, 256);
            let mut seen: Vec<usize> = batches.batches.iter().flat_map(|batch| batch.texts.clone()).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
            for Batch { size, length, texts } in &batches.batches {
                assert!(!texts.is_empty() && texts.len() <= *size && size * length <= ROWS.max(*length));
                assert!(4 * texts.len() >= 3 * size, "{size} places for {}", texts.len());
                let longest = texts.iter().map(|&text| lengths[text]).max().unwrap();
                assert_eq!(bucket(longest, 256), *length);
            }
        }
    }

    #[test]
    fn many_texts_fill_batches_and_few_take_parts() {
        let sizes = |lengths: &[usize]| -> Vec<(usize, usize, usize)> {
            let batches = Batches::of(lengths, 256).batches;
            batches.iter().map(|b| (b.size, b.length, b.texts.len())).collect()
        };
        assert_eq!(sizes(&[]), []);
        assert_eq!(sizes(&[13]), [(1, 16, 1)]);
        assert_eq!(sizes(&[30; 21]), [(16, 32, 16), (4, 32, 4), (1, 32, 1)]);
        assert_eq!(sizes(&[30; 15]), [(16, 32, 15)]);
        // A text half as long does not join, one that is nearly as long does.
        assert_eq!(sizes(&[64, 32, 31]), [(1, 64, 1), (2, 32, 2)]);
        assert_eq!(sizes(&[64, 50]), [(2, 64, 2)]);
    }

    #[test]
    fn what_is_printed_says_which_and_why() {
        let mut lengths = vec![31; 16];
        lengths.extend([200, 7]);
        assert_eq!(
            Batches::of(&lengths, 256).to_string(),
            "18 texts of 703 tokens in 3 runs, 5 % padding\n   \
             1 x 224    1 runs,    1 texts of 200 to 200 tokens, 10 % padding: a part of 2, as no more texts are near 224 tokens\n  \
             16 x 32     1 runs,   16 texts of 31 to 31 tokens,  3 % padding: 512 rows fill the machine\n   \
             1 x 8      1 runs,    1 texts of 7 to 7 tokens, 12 % padding: a part of 32, as no more texts are near 8 tokens\n"
        );
    }
}
