//! The page of the measured model of costs: its constants and their evidence, and the rows that it is held to.

#[path = "../../../crates/aneforge/tests/it/cost_rows.rs"]
mod cost_rows;

use aneforge::target::cost::{BAND_ELSEWHERE, COLD_FIRST_CALL_US, MEASURED, package};
use anyhow::Result;
use cost_rows::Row;
use std::fmt::Write;

const INTRODUCTION: &str = "\
# Costs

<!-- Written by `cargo xtask gen` from crates/aneforge/src/target/cost and crates/aneforge/tests/silicon. Do not edit. -->

What a call may cost on the engine, from a graph's shapes and the forms of its weights. `estimate` and `estimate_report` in
Python, `target::cost::measured` in Rust, `aneforge explain` and `aneforge diagnose --all-chips` show it. Every number is of
others: the public guide arXiv 2606.22283 (chapters are `c10`), which measured an M1, an M1 Max, an M2 Pro and an M5 Pro, and the
times that ANEForge 0.4.0 ships. This project has run nothing on an engine, and put the figures together to the model below.

## The model

For one program, in microseconds:

    floor + ports / Bp + sum over nodes of max(weights / Bw, arithmetic / P, spill / Bd) + norms / Bn

- *ports*: bytes of the graph's inputs and results. Values between nodes count as nothing while they are small.
- *weights*: bytes of a node's constants as they are stored: 2 per value, 1 in int8, 1/2 in a 4-bit table, 1/8 and 2 for every value
  that is kept in sparse ones. A form that the chip's family expands when it loads a program counts in full: int8 on an A13,
  blocks everywhere (the program adds zero to them, as products are not known to take them), and any encoded weight of a convolution
  that takes steps or is dilated.
- *arithmetic*: multiplications and additions of products and convolutions. Other ops count as nothing.
- A product whose weight is larger than the resident size (in half precision) has rates of its own for both.
- *spill*: the result of a node, written and read, if it is a value between nodes of at least the spill size. What a function of
  single elements is applied to is none: the engine does both at once.
- *norms*: what `rms_norm` and `layer_norm` go over, where rows are so long that reductions take another route (192 elements, 384
  from A15 on).
- A native layer is a program of its own. Every program after the first costs another floor, and what crosses between two goes through
  the ports of both. Layers that were measured (attention, `argmax`, `topk`, on an M5 Pro) take what they took there.

`low` and `high` are the time divided and multiplied by the band, and `high` has the loaded floor besides. `package::estimate` and
`package::estimate_on` (in Python `estimate(..., model=\"package\")`) are ANEForge's own formulas, which `tune` and `compile(opt=1)` go by,
as their choices are pinned to it.
";

const SCALED: &str = "
## Other chips

`h13g` is an M1's Max and has the same row. All others are scaled from the chip of their family's row: floors by the clock, arithmetic by
(cores x effective clock)^0.56, which is what separates the M1 from the M5 Pro; rates of weights and memory stay, unless three quarters of
the chip's memory (68, 100 or 125 GB/s for four cores, by generation) are less; ports and norms stay. A15 (M3), the M4 and everything
above the M5 Pro are unmeasured.
";

const PLACE: &str = "
## Whether the engine is the place

`estimate_report` says where a graph is computed fastest and where it takes the least energy, by the nearest workload that was measured on
both sides; the two often differ.

| what | fastest | least energy | evidence |
|---|---|---|---|
| a processor needs less than half of the floor: flops / 1.9 TFLOP/s + bytes / 130 GB/s + 10 us | cpu | not known | M5 Pro's processor, 64x256x256 in 26 us on an M1 (c9, c11); the half is assumed |
| more than half of the bytes are weights of products with at most 16 rows | gpu | gpu | 2.7 times as fast for 4.6 times less energy, decoding on an M5 Pro (c14) |
| attention to 512 keys or more | gpu | engine | 2.1 times, M1 (c11) |
| attention in batches of 6 or more, blocks of an encoder of 23 or more | gpu | engine, up to 256 | M5 Pro (c11) |
| mostly products, the largest of 256 rows or more and 2048 by 2048 or more | gpu | engine | 2.0 times on an M1, 2.8 on an M5 Pro; error 33 times smaller on a GPU at 2048 (c11) |
| on A13, mostly products, the largest of 128 rows or more and 1024 by 1024 or more | gpu | engine | 1.7 times, M1 (c11) |
| mostly convolutions | engine | engine | 2.1 to 6.1 times, 6 to 14 times less energy, M1 and M5 Pro (c11, c13) |
| short attention | engine | engine | a tie on M1, faster on M5 Pro (c11) |
| anything else | engine | not known | nothing like it was measured |
";

const LIMITS: &str = "
## Limits of all this

- Three machines of one laboratory, minima and medians mixed, no spread reported. The constants were set on the rows that they are judged
  by: the errors above are of a fit. Of a near twin of the model, fitted to random halves of the rows (six splits), the other halves
  were off by 1.11 to 1.22 times in the mean and 1.96 at most on M1, and by 1.07 to 1.09 and 1.49 on M5 Pro.
- M1 and M1 Max are pooled, and nobody knows which row is whose. Shapes of some rows are inferred; such rows say so.
- Not in the model, by evidence: passes over output channels (a 1x1 convolution of 256 channels takes 61 us a layer in a stack on an M1
  where the model has 12), slower arithmetic of large products on M5 Pro (two rows disagree), attention, transposes, resizes, ops that
  are written with many others. M1 and M2 norms of long rows are taken from the M5 Pro.
- A second program, a busy machine and an idle engine are not in it. Reported: a second process more than doubles the median; a pause of
  0.1 s adds 0.5 ms, one below 1 s makes a call 1.2 to 1.7 times as long, and one of 5 s took 260 ms once (they disagree).
- Cuts: 190 us and the ports by the model on an M1, 0.76 ms for 1 MB by the guide, 0.72 ms each in one network by a community report.
- Power mixes readings of the engine's rail and of the package.
- The guide disagrees with itself on some of this: a chain of products slows down to 4.8 TFLOP/s at values of 2 MiB, and eight products
  whose values are exactly that large ran at 8.1; the roof of convolutions on an M5 Pro is 18.8 or 14.3; bytes multiply 1.4 times as
  fast as halves, or equally; from 192 to 256 channels the time doubles, or triples.
";

/// The page.
pub fn text() -> Result<String> {
    let mut page = String::from(INTRODUCTION);
    constants(&mut page)?;
    page += SCALED;
    let times = cost_rows::times();
    validation(&mut page, &times)?;
    energy(&mut page, &cost_rows::powers())?;
    page += PLACE;
    page += LIMITS;
    Ok(page)
}

fn constants(page: &mut String) -> Result<()> {
    writeln!(page, "\n## Constants\n")?;
    let chips: Vec<String> = MEASURED.iter().map(|c| format!("{} ({})", c.chip, c.machines)).collect();
    writeln!(page, "Each with how it is known and from where.\n\n| | unit | {} |", chips.join(" | "))?;
    writeln!(page, "|---|---|---|---|---|")?;
    let rows = MEASURED.each_ref().map(|chip| chip.named());
    for (at, (name, unit, _)) in rows[0].iter().enumerate() {
        let cells = rows.iter().map(|row| {
            let figure = row[at].2;
            format!("{} [{}] {}", rounded(figure.value), figure.tag.name(), figure.source)
        });
        writeln!(page, "| {name} | {unit} | {} |", cells.collect::<Vec<_>>().join(" | "))?;
    }
    writeln!(
        page,
        "\nThe band of a chip that was measured is the worst of rows that a near twin of the model was not fitted to, and {BAND_ELSEWHERE} elsewhere and where a term was not measured on the chip. \
         A call after some seconds without one may take {} ms more, which is in no estimate.",
        COLD_FIRST_CALL_US / 1e3
    )?;
    Ok(())
}

fn rounded(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').into()
}

/// By what factor a ratio is off.
fn off(ratio: f64) -> f64 {
    ratio.max(1.0 / ratio)
}

/// How far ratios are off: the geometric mean, the worst, and how many are within a half.
fn summary(ratios: &[f64]) -> String {
    let logs = ratios.iter().map(|&ratio| off(ratio).ln());
    let mean = (logs.sum::<f64>() / ratios.len() as f64).exp();
    let worst = ratios.iter().map(|&ratio| off(ratio)).fold(1.0, f64::max);
    let near = ratios.iter().filter(|&&ratio| off(ratio) <= 1.5).count();
    format!("{mean:.2} / {worst:.2} / {near} of {}", ratios.len())
}

fn validation(page: &mut String, rows: &[Row]) -> Result<()> {
    let mut table = String::new();
    let mut found = Vec::new();
    for row in rows {
        let graph = row.graph();
        let time = row.time(&row.estimate());
        let theirs = package::estimate_on(&graph, row.target, row.text.ends_with("int8"))?;
        let ratios = [time, theirs].map(|us| us / row.measured);
        found.push((row.target, ratios));
        let harness = if row.loaded { " (loaded)" } else { "" };
        let notes: Vec<&str> = [row.note, row.reason].into_iter().filter(|note| !note.is_empty()).collect();
        writeln!(
            table,
            "| {}{harness} | `{}` | {} | {time:.0} | {:.2} | {:.2} | {} | {} | {} |",
            row.target,
            row.text,
            row.measured,
            ratios[0],
            ratios[1],
            row.source,
            row.tag,
            notes.join("; ")
        )?;
    }
    writeln!(page, "\n## Against what was measured\n")?;
    writeln!(
        page,
        "Geometric mean of the error / the worst / rows within a factor of 1.5. `crates/aneforge/tests/it/measured.rs` holds the model to \
         it, and shows that it is worse without any of its terms.\n"
    )?;
    writeln!(page, "| chip | this model | ANEForge's formula |\n|---|---|---|")?;
    for chip in MEASURED.iter().map(|c| Some(c.chip)).chain([None]) {
        let of = |which: usize| -> Vec<f64> {
            let rows = found.iter().filter(|(target, _)| chip.is_none_or(|chip| target.name() == chip));
            rows.map(|(_, ratios)| ratios[which]).collect()
        };
        writeln!(page, "| {} | {} | {} |", chip.unwrap_or("all"), summary(&of(0)), summary(&of(1)))?;
    }
    writeln!(
        page,
        "\nEvery row; times in microseconds, ratios by the measured time. `same` and `valid` are paddings, `s2` a step, `x16` a chain of as \
         many. ANEForge's formula has no term for 4-bit and sparse weights.\n"
    )?;
    writeln!(page, "| chip | graph | measured | estimate | ratio | ANEForge's | source | tag | note |")?;
    writeln!(page, "|---|---|---|---|---|---|---|---|---|\n{}", table.trim_end())?;
    Ok(())
}

fn energy(page: &mut String, rows: &[Row]) -> Result<()> {
    writeln!(page, "\n## Energy\n")?;
    writeln!(
        page,
        "The time by watts: those of a program that runs, more for the share of the time in which it computes, and more for the share in \
         which it reads weights. On an M5 Pro one reading sets all (2289 GFLOP/s per watt of 16 convolutions). Watts against readings:\n"
    )?;
    writeln!(
        page,
        "| chip | graph | measured | estimate | ratio | source | tag | note |\n|---|---|---|---|---|---|---|---|"
    )?;
    for row in rows {
        let estimate = row.estimate();
        let watts = estimate.millijoules * 1e3 / row.time(&estimate);
        writeln!(
            page,
            "| {} | `{}` | {} | {watts:.2} | {:.2} | {} | {} | {} |",
            row.target,
            row.text,
            row.measured,
            watts / row.measured,
            row.source,
            row.tag,
            [row.note, row.reason].concat()
        )?;
    }
    Ok(())
}
