//! What `doctor` asks is what this library takes from reports, all of it.

use aneforge::doctor::{PROBES, UNPROBED};
use std::collections::BTreeSet;

/// Files with numbers that are taken from reports about the engine.
const FILES: [&str; 9] = [
    include_str!("../../src/ir/numerics.rs"),
    include_str!("../../src/target/cost/package.rs"),
    include_str!("../../src/target/cost/rates.rs"),
    include_str!("../../src/target/floors.rs"),
    include_str!("../../src/target/functions.rs"),
    include_str!("../../src/target/layers.rs"),
    include_str!("../../src/target/limits.rs"),
    include_str!("../../src/target/streams.rs"),
    include_str!("../../../ane/src/limits.rs"),
];

#[test]
fn every_number_has_a_probe_or_a_reason_why_not() {
    let mut constants = BTreeSet::new();
    for line in FILES.iter().flat_map(|file| file.lines()) {
        let name = line.strip_prefix("pub const ").and_then(|rest| rest.split(':').next());
        constants.extend(name.filter(|name| !name.starts_with("fn ")));
    }
    assert!(constants.len() >= 22, "{constants:?}");
    let probed = |name: &str| PROBES.iter().any(|probe| probe.about.ends_with(name));
    let excused = |name: &str| UNPROBED.iter().any(|(known, _)| *known == name);
    let forgotten: Vec<_> = constants.iter().filter(|name| !probed(name) && !excused(name)).collect();
    assert_eq!(forgotten, Vec::<&&str>::new(), "without a probe, and without a reason");
    let both: Vec<_> = constants.iter().filter(|name| probed(name) && excused(name)).collect();
    assert_eq!(both, Vec::<&&str>::new(), "with both");
}

#[test]
fn probes_are_told_apart_and_say_what_they_expect() {
    let names: BTreeSet<&str> = PROBES.iter().map(|probe| probe.name).collect();
    assert_eq!(names.len(), PROBES.len());
    for probe in PROBES {
        assert!(!probe.about.is_empty() && probe.expected.len() > 10, "{}", probe.name);
    }
    assert!(UNPROBED.iter().all(|(_, why)| why.len() > 10));
}
