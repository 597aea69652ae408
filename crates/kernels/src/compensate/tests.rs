use super::*;
use proptest::prelude::*;

/// Rows that depend on each other, as what layers read does.
fn rows(seed: u64, count: usize, columns: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    let mut rows = Vec::new();
    for _ in 0..count {
        let common = next();
        rows.extend((0..columns).map(|at| (common + 0.5 * next()) * (1.0 + at as f32 / 2.0)));
    }
    rows
}

/// The sum of squares of `X d`, and of what damping adds to it, from its definition.
fn length(rows: &[f32], damping: f64, d: &[f64]) -> f64 {
    let products = rows.chunks(d.len()).map(|row| row.iter().zip(d).map(|(x, d)| f64::from(*x) * d).sum());
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let mean = squares(&mut rows.iter().map(|x| f64::from(*x))) / d.len() as f64;
    products.map(|product: f64| product * product).sum::<f64>()
        + damping * mean * squares(&mut d.iter().copied())
}

fn moments(rows: &[f32], columns: usize, damping: f64) -> Option<Moments> {
    let mut lower = vec![0.0; columns * columns];
    add_moments(&Pool::new(2), rows, columns, &mut lower);
    Moments::new(&lower, columns, damping)
}

const TABLE: [f32; 16] =
    [-2.0, -1.5, -1.25, -1.0, -0.75, -0.5, -0.25, -0.125, 0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0];

fn off(weights: &[f32], stands: Codes<'_>, codes: &[i8]) -> Vec<f64> {
    weights.iter().zip(codes).map(|(w, &code)| f64::from(*w) - stands.value(0, code)).collect()
}

#[test]
fn moments_are_those_of_the_definition() {
    let (columns, seen) = (37, rows(5, 41, 37));
    let found = moments(&seen, columns, 0.01).unwrap();
    let d: Vec<f64> = (0..columns).map(|at| (at as f64).sin()).collect();
    let want = length(&seen, 0.01, &d);
    assert!((found.length(&Pool::new(2), &d) - want).abs() <= 1e-10 * want);
    // What was divided out of the factor is its diagonal.
    for k in 0..columns {
        assert_eq!(found.factor[k * columns + k], 1.0);
    }
}

/// Tiny problems against every choice that there is: never better than the best, seldom worse.
#[test]
fn codes_are_nearly_the_best_of_all() {
    let (mut best, mut chosen, mut plain, mut alone) = (0.0, 0.0, 0.0, 0.0);
    for seed in 0..24 {
        let (seen, weights) = (rows(seed, 12, 3), rows(seed + 100, 1, 3));
        let (found, stands) = (moments(&seen, 3, 0.0).unwrap(), Codes::Table(&TABLE));
        let error = |codes: &[i8]| length(&seen, 0.0, &off(&weights, stands, codes));
        let all = (0..16 * 16 * 16).map(|n| [n % 16, n / 16 % 16, n / 256].map(|code: i32| code as i8));
        let least = all.map(|codes| error(&codes)).fold(f64::INFINITY, f64::min);
        let mut codes: Vec<i8> = weights.iter().map(|w| stands.nearest(0, f64::from(*w))).collect();
        let start = error(&codes);
        // Without exchanges, which hide what they make up for.
        alone += error(&found.compensated(&weights, 0, stands));
        let said = found.choose(&Pool::new(1), &weights, stands, &mut codes);
        let got = error(&codes);
        assert!((said - got).abs() <= 1e-9 * got.max(1e-12), "{seed}: {said}, {got}");
        assert!(
            least <= got * (1.0 + 1e-9) && got <= start * (1.0 + 1e-9),
            "{seed}: {least}, {got}, {start}"
        );
        (best, chosen, plain) = (best + least, chosen + got, plain + start);
    }
    assert!(alone <= 0.6 * plain, "{alone}, {plain}");
    assert!(chosen <= 1.3 * best && plain >= 3.0 * best, "{best}, {chosen}, {plain}");
}

#[test]
fn what_cannot_be_factored_is_refused() {
    assert!(moments(&[0.0; 12], 3, 0.01).is_none());
    assert!(moments(&[f32::NAN; 12], 3, 0.01).is_none());
    // Columns that are the same need the damping.
    assert!(moments(&[1.0; 12], 3, 0.01).is_some());
}

/// A column that was hardly seen could make up for anything on what was seen.
#[test]
fn columns_that_were_hardly_seen_stay_near_their_values() {
    let mut seen = rows(3, 24, 8);
    seen.chunks_mut(8).enumerate().for_each(|(at, row)| row[5] = if at == 2 { 1e-3 } else { 0.0 });
    let (weights, scales) = (rows(4, 6, 8), [0.02; 6]);
    let stands = Codes::Scaled(&scales);
    let mut codes: Vec<i8> = weights.iter().map(|w| stands.nearest(0, f64::from(*w))).collect();
    let start = codes.clone();
    moments(&seen, 8, 0.01).unwrap().choose(&Pool::new(1), &weights, stands, &mut codes);
    assert_ne!(codes, start);
    for row in 0..6 {
        let at = row * 8 + 5;
        assert!((codes[at] - start[at]).abs() <= 1, "{row}: {} instead of {}", codes[at], start[at]);
    }
}

proptest! {
    #[test]
    fn choosing_makes_nothing_worse(
        seed in any::<u64>(),
        columns in 1usize..40,
        count in 1usize..20,
        outputs in 1usize..20,
        scaled in any::<bool>(),
    ) {
        let (seen, weights) = (rows(seed, count, columns), rows(seed ^ 77, outputs, columns));
        let Some(found) = moments(&seen, columns, 0.01) else { return Ok(()) };
        let scales: Vec<f32> = (0..outputs).map(|row| 0.02 + row as f32 * 0.001).collect();
        let stands = if scaled { Codes::Scaled(&scales) } else { Codes::Table(&TABLE) };
        let nearest = |at: usize| stands.nearest(at / columns, f64::from(weights[at]));
        let start: Vec<i8> = (0..weights.len()).map(nearest).collect();
        let error = |codes: &[i8]| -> f64 {
            let value = |at: usize| f64::from(weights[at]) - stands.value(at / columns, codes[at]);
            let d: Vec<f64> = (0..weights.len()).map(value).collect();
            d.chunks(columns).map(|d| length(&seen, 0.01, d)).sum()
        };
        let mut codes = start.clone();
        let said = found.choose(&Pool::new(1), &weights, stands, &mut codes);
        prop_assert!(error(&codes) <= error(&start) * (1.0 + 1e-9) + 1e-12);
        prop_assert!((said - error(&codes)).abs() <= 1e-6 * said + 1e-9);
        prop_assert!(codes.iter().all(|&code| code != -128));
        // Threads change nothing.
        let mut others = start;
        found.choose(&Pool::new(3), &weights, stands, &mut others);
        prop_assert_eq!(codes, others);
    }
}
