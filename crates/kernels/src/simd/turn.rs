//! Matrices of 16-bit values turned about their diagonal, and lines asked for ahead of their use.

use super::Lanes;

/// Rows and columns of a square.
pub(super) const SIDE: usize = 8;

/// `target[column * pitch + row] = rows[row][column]` for every row and the columns below `columns`. Rows may be
/// longer.
#[inline(always)]
pub(crate) fn turn<L: Lanes>(rows: &[&[u16]], columns: usize, target: &mut [u16], pitch: usize) {
    if rows.is_empty() || columns == 0 {
        return;
    }
    let shortest = rows.iter().fold(usize::MAX, |shortest, row| shortest.min(row.len()));
    assert!(shortest >= columns, "invariant: rows of all columns");
    assert!(target.len() >= (columns - 1) * pitch + rows.len(), "invariant: room for all columns");
    if rows.len() < SIDE || shortest < SIDE {
        for (row, values) in rows.iter().enumerate() {
            for (column, value) in values[..columns].iter().enumerate() {
                target[column * pitch + row] = *value;
            }
        }
        return;
    }
    let tall = if rows.len() < L::TALL { SIDE } else { L::TALL };
    for row in starts(rows.len(), tall) {
        let rows = &rows[row..row + tall];
        if columns < SIDE {
            let mut turned = [0; SIDE * MOST];
            // SAFETY: rows hold at least 8 values, and `turned` has room for 8 of at most 32 rows.
            unsafe { turn_some::<L>(rows, 0, turned.as_mut_ptr(), MOST) };
            for (column, turned) in turned.chunks_exact(MOST).take(columns).enumerate() {
                target[column * pitch + row..][..tall].copy_from_slice(&turned[..tall]);
            }
            continue;
        }
        for column in starts(columns, SIDE) {
            // SAFETY: `column + 8 <= columns` and `row + tall` is at most the number of rows: by the asserts, rows hold
            // so many values and `target` has room for them.
            unsafe { turn_some::<L>(rows, column, target.as_mut_ptr().add(column * pitch + row), pitch) };
        }
    }
}

/// Most rows that go together.
const MOST: usize = 32;

/// Where parts of `size` of `0..len` start that cover all of it; the last two may overlap.
#[inline(always)]
fn starts(len: usize, size: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by(size).map(move |start| start.min(len - size))
}

/// Turns 8 columns from `at` on of 8 or [`Lanes::TALL`] rows.
///
/// # Safety
/// Every row holds `at + 8` values, and `target` has room for as many values as rows at `0`, `pitch`, ... `7 * pitch`.
#[inline(always)]
unsafe fn turn_some<L: Lanes>(rows: &[&[u16]], at: usize, target: *mut u16, pitch: usize) {
    match rows.first_chunk() {
        // SAFETY: the caller's promise.
        Some(square) if rows.len() == SIDE => unsafe { turn_square(square, at, target, pitch) },
        // SAFETY: as above.
        _ => unsafe { L::turn_tall(rows, at, target, pitch) },
    }
}

/// Turns 8 columns of 8 rows.
///
/// # Safety
/// Every row holds `at + 8` values, and `target` has room for 8 values at `0`, `pitch`, ... `7 * pitch`.
#[inline(always)]
pub(super) unsafe fn turn_square(rows: &[&[u16]; SIDE], at: usize, target: *mut u16, pitch: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promise.
    unsafe {
        super::x86::turn_8(rows, at, target, pitch);
    }
    #[cfg(not(target_arch = "x86_64"))]
    for (row, values) in rows.iter().enumerate() {
        for (column, value) in values[at..at + SIDE].iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { *target.add(column * pitch + row) = *value };
        }
    }
}

/// `target[column] = [rows[0][column], ...]`; rows are as long as `target`.
#[inline(always)]
pub(crate) fn interleave(rows: [&[u16]; 4], target: &mut [[u16; 4]]) {
    let done = interleave_eights(rows, target);
    for (column, target) in target.iter_mut().enumerate().skip(done) {
        *target = [rows[0][column], rows[1][column], rows[2][column], rows[3][column]];
    }
}

/// Asks for the lines of `places`, which will be read soon.
#[inline(always)]
pub(crate) fn expect_soon<'a, T: 'a>(places: impl IntoIterator<Item = &'a T>) {
    for place in places {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a hint, which any address allows.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = place;
    }
}

/// A value of every line of `data`.
pub(crate) fn lines_of<T>(data: &[T]) -> impl Iterator<Item = &T> {
    data.iter().step_by((64 / size_of::<T>().max(1)).max(1))
}

/// [`interleave`] as far as there are whole eights; returns how far that is.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn interleave_eights(rows: [&[u16]; 4], target: &mut [[u16; 4]]) -> usize {
    let eights = rows.map(|row| row[..target.len()].as_chunks::<SIDE>().0);
    let (targets, _) = target.as_chunks_mut::<SIDE>();
    for (at, target) in targets.iter_mut().enumerate() {
        super::x86::interleave([&eights[0][at], &eights[1][at], &eights[2][at], &eights[3][at]], target);
    }
    targets.len() * SIDE
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn interleave_eights(_: [&[u16]; 4], _: &mut [[u16; 4]]) -> usize {
    0
}
