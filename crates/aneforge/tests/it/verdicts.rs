//! What became of every contradiction between sources on the engine: `tests/silicon/verdicts.toml`.

use std::collections::BTreeSet;
use std::path::Path;

const TABLE: &str = include_str!("../silicon/verdicts.toml");

/// The sheets, and how many rows each has.
const SHEETS: [(&str, usize); 5] =
    [("numerics", 14), ("families", 39), ("compiler", 21), ("runtime", 15), ("performance", 10)];

/// The texts of a verdict, by key.
fn verdicts() -> Vec<Vec<(&'static str, String)>> {
    let tables = TABLE.split("[[verdict]]").skip(1);
    let field = |line: &'static str| {
        let (key, value) = line.split_once(" = ").unwrap_or_else(|| panic!("no field: {line}"));
        (key, value.trim_matches('"').replace("\\\"", "\""))
    };
    tables.map(|table| table.lines().filter(|line| !line.is_empty()).map(field).collect()).collect()
}

#[test]
fn every_row_has_a_verdict_and_a_sentence() {
    let mut places = Vec::new();
    let mut sentences = BTreeSet::new();
    for verdict in verdicts() {
        let keys: Vec<&str> = verdict.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, ["sheet", "row", "topic", "verdict", "sentence"]);
        let [sheet, row, topic, word, sentence] = [0, 1, 2, 3, 4].map(|at| verdict[at].1.clone());
        assert!(
            ["adopted", "rejected", "open", "already so"].contains(&word.as_str()),
            "{sheet} {row}: {word}"
        );
        assert!(
            topic.len() > 2 && sentence.len() > 40 && sentence.ends_with('.'),
            "{sheet} {row}: {sentence}"
        );
        assert!(sentences.insert(sentence), "{sheet} {row} repeats another's sentence");
        places.push((sheet, row.parse::<usize>().unwrap()));
    }
    let want = SHEETS.iter().flat_map(|(sheet, rows)| (1..=*rows).map(|row| ((*sheet).to_owned(), row)));
    assert_eq!(places, want.collect::<Vec<_>>());
}

/// Files that sentences name are there.
#[test]
fn sentences_name_files_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut named = 0;
    for verdict in verdicts() {
        for path in verdict[4].1.split('`').skip(1).step_by(2).filter(|part| part.contains('/')) {
            assert!(root.join(path).is_file(), "{} {}: no {path}", verdict[0].1, verdict[1].1);
            named += 1;
        }
    }
    assert!(named > 70, "{named}");
}
