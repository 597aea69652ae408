//! Compiled programs in one file, in folders and in the cache.

use super::portable::{outputs, results};
use super::support::engine;
use aneforge::artifact::{Cache, Collected};
use aneforge::passes::{Compression, Form};
use aneforge::plan::Results;
use aneforge::{
    CompileOptions, Graph, Plan, Routes, Session, Shape, Tensor, TensorType, Var, artifact, compile,
};
use aneforge_tensor::{AlignedBytes, Bytes};
use proptest::prelude::*;
use std::fs;
use std::path::Path;

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).unwrap()
}

/// A plan that is cut at a native layer, with weights in three element types.
fn cut() -> Plan {
    let options = CompileOptions { routes: Routes::Native, ..CompileOptions::default() };
    let plan = compile(&outputs(), &options).unwrap();
    assert!(plan.segments.len() > 1 && plan.n_native() > 0);
    plan
}

fn small() -> Plan {
    let x = Var::named_input(TensorType::f16(shape(&[2, 4])), "image");
    let weight = Tensor::from_slice(shape(&[3, 4]), &(0..12).map(|i| i as f32 * 0.1).collect::<Vec<_>>());
    compile(&[x.linear(&Var::constant(weight.unwrap()), None).relu()], &CompileOptions::default()).unwrap()
}

/// Whether nothing that a user sees of a plan differs.
fn same(a: &Plan, b: &Plan) {
    assert_eq!((a.to_string(), &a.results, &a.weights), (b.to_string(), &b.results, &b.weights));
    for (a, b) in a.segments.iter().zip(&b.segments) {
        assert_eq!((a.text(), a.weight_bytes()), (b.text(), b.weight_bytes()));
        let lines = |s: &aneforge::plan::Segment| s.graph.nodes().map(|(_, n)| n.at).collect::<Vec<_>>();
        assert_eq!(lines(a), lines(b));
    }
}

fn bytes_of(plan: &Plan) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.aneforge");
    plan.save(&path).unwrap();
    fs::read(path).unwrap()
}

fn at_a_boundary(bytes: &[u8]) -> Bytes {
    let mut copy = AlignedBytes::zeroed(bytes.len());
    copy.copy_from_slice(bytes);
    Bytes::new(copy)
}

#[test]
fn a_saved_plan_is_the_one_that_was_compiled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.aneforge");
    let mut plan = cut();
    plan.results = Results::Named(vec!["sorted".into(), "normed".into()]);
    plan.save(&path).unwrap();
    let back = Plan::load(&path).unwrap();
    same(&plan, &back);
    assert_eq!(results(back), results(plan));
    // Equal plans are equal files, whenever they were made.
    let again = Plan::load(&path).unwrap();
    assert_eq!(bytes_of(&again), fs::read(&path).unwrap());
    // It takes the place of another, whole, and leaves nothing beside.
    let other = small();
    other.save(&path).unwrap();
    same(&Plan::load(&path).unwrap(), &other);
    assert_eq!(Plan::load(&path).unwrap().feed("image"), Some(0));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_folder_runs_from_disk_also_when_it_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let mut plan = cut();
    plan.results = Results::Named(vec!["a".into(), "b".into()]);
    artifact::write(&plan, folder.path()).unwrap();
    let back = Plan::load(folder.path()).unwrap();
    same(&plan, &back);
    assert_eq!(results(back), results(plan));
    let plan_file = folder.path().join(artifact::PLAN_FILE);
    let alone = Plan::load(&plan_file).unwrap_err().to_string();
    assert!(alone.contains("it lies in `segment0/weights.bin` of the folder; name the folder"), "{alone}");
    fs::write(folder.path().join("segment0/weights.bin"), "x").unwrap();
    assert!(Plan::load(folder.path()).unwrap_err().to_string().contains("was changed after it was compiled"));
    let nothing = tempfile::tempdir().unwrap();
    assert!(Plan::load(nothing.path()).unwrap_err().to_string().contains("holds no aneforge.manifest"));
}

#[test]
fn weights_of_a_folder_are_on_the_disk_once() {
    for form in [None, Some(Form::Int8), Some(Form::Sparse)] {
        let folder = tempfile::tempdir().unwrap();
        let values: Vec<f32> = (0..128 * 128).map(|i| (i % 3) as f32 - 1.0).map(|v| v.min(0.0)).collect();
        let weight = Tensor::from_slice(shape(&[128, 128]), &values).unwrap();
        let y = Var::input(shape(&[2, 128])).linear(&Var::constant(weight), None).sort(true, false);
        let options = CompileOptions::default().compression(form.map(Compression::new));
        let plan = compile(&[y], &options).unwrap();
        artifact::write(&plan, folder.path()).unwrap();
        assert!(fs::metadata(folder.path().join("plan.aneforge")).unwrap().len() < 5000, "{form:?}");
        assert!(bytes_of(&plan).len() > 128 * 128 / 8);
        same(&plan, &Plan::load(folder.path()).unwrap());
        let run = |plan: Plan| {
            let x: Vec<f32> = (0..256).map(|i| (i % 11) as f32).collect();
            let feed = Tensor::from_slice(shape(&[2, 128]), &x).unwrap();
            Session::new(plan, engine(1)).unwrap().run(&[feed]).unwrap()[0].to_f32()
        };
        assert_eq!(run(Plan::load(folder.path()).unwrap()), run(plan));
    }
}

#[test]
fn reports_of_weights_and_lines_of_overflows_are_kept() {
    let x = Var::input(shape(&[2, 64]));
    let weight =
        Tensor::from_slice(shape(&[32, 64]), &(0..2048).map(|i| (i % 13) as f32).collect::<Vec<_>>());
    let line = line!() + 1;
    let y = x.linear(&Var::constant(weight.unwrap()), None).square();
    let options = CompileOptions::default().compression(Some(Compression::new(Form::Int8)));
    let plan = compile(&[y], &options).unwrap();
    assert_eq!(plan.weights.len(), 1);
    let bytes = bytes_of(&plan);
    let back = Plan::from_bytes(&at_a_boundary(&bytes), "x").unwrap();
    same(&plan, &back);
    let mut session = Session::new(back, engine(1)).unwrap();
    session.run(&[Tensor::from_slice(shape(&[2, 64]), &[100.0f32; 128]).unwrap()]).unwrap();
    let overflow = session.overflows().next().unwrap();
    assert!(overflow.at.to_string().ends_with(&format!("tests/it/files.rs:{line}")), "{overflow}");
}

#[test]
fn weights_are_used_where_they_lie() {
    let bytes = at_a_boundary(&bytes_of(&small()));
    let within = |plan: &Plan, bytes: &[u8]| {
        let weight = plan.segments[0].graph.constants()[0].parts()[0].bytes().as_ptr();
        bytes.as_ptr_range().contains(&weight)
    };
    assert!(within(&Plan::from_bytes(&bytes, "x").unwrap(), &bytes));
    // At another boundary they are copied, and the same.
    let room = vec![0; bytes.len() + 64].leak();
    let start = (65 - room.as_ptr() as usize % 64) % 64;
    room[start..start + bytes.len()].copy_from_slice(&bytes);
    let place: &'static [u8] = &room[start..start + bytes.len()];
    assert_eq!(place.as_ptr() as usize % 64, 1);
    let plan = Plan::from_static(place).unwrap();
    assert!(!within(&plan, place));
    same(&plan, &Plan::from_bytes(&bytes, "x").unwrap());
    let own: &'static [u8] = aneforge::include_aligned!("files.rs");
    assert_eq!((own.as_ptr() as usize % 64, own), (0, &include_bytes!("files.rs")[..]));
}

/// The head of a file, changed, with its checksum.
fn with_head(bytes: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    change(&mut bytes[..60]);
    let sum = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&sum.to_le_bytes());
    bytes
}

#[test]
fn what_is_refused_is_refused_by_name() {
    let whole = bytes_of(&small());
    let fails = |bytes: &[u8]| Plan::from_bytes(&at_a_boundary(bytes), "m.aneforge").unwrap_err().to_string();
    let length = whole.len();
    let cases = [
        (fails(b""), "this is no file with a compiled program".to_owned()),
        (fails(b"%0 = input()"), "this is no file with a compiled program".to_owned()),
        (fails(&whole[..20]), "it was cut off: 20 bytes are there, and 64 were written".to_owned()),
        (
            fails(&whole[..length - 1]),
            format!("it was cut off: {} bytes are there, and {length} were", length - 1),
        ),
        (
            fails(&[&whole[..], b"x"].concat()),
            format!("{} bytes are there, and {length} were written", length + 1),
        ),
        (
            fails(&with_head(&whole, |head| {
                head[8] = 2;
                head[40..46].copy_from_slice(b"0.9.1\0");
            })),
            format!(
                "it is of format 2, written by aneforge 0.9.1; this is aneforge {}, which reads format 1",
                env!("CARGO_PKG_VERSION")
            ),
        ),
    ];
    for (error, want) in cases {
        assert!(error.starts_with(&format!("`m.aneforge`: {want}")), "{error}");
    }
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert!(fails(&flipped).contains("it was changed after it was written: its contents has checksum"));
    // What another version emitted otherwise, and a chip that is not known.
    let text = |from: &str, to: &str| {
        let at = whole.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
        let mut other = whole.clone();
        other[at..at + to.len()].copy_from_slice(to.as_bytes());
        let sum = crc32fast::hash(&other[64..]);
        with_head(&other, |head| head[12..16].copy_from_slice(&sum.to_le_bytes()))
    };
    assert!(fails(&text("relu(", "tanh(")).contains("segment 0 was compiled by aneforge "));
    assert!(fails(&text("h17s", "h99s")).contains("h99s"), "an unknown chip");
    assert!(
        fails(&with_head(&whole, |head| head[24..28].copy_from_slice(b"h13\0")))
            .contains("for h13, and it is for h17s")
    );
}

#[test]
fn no_byte_can_change_and_no_prefix_loads() {
    let whole = bytes_of(&small());
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        assert!(Plan::from_bytes(&Bytes::new(bytes), "x").is_err(), "changed at {at}");
        assert!(Plan::from_bytes(&Bytes::new(whole[..at].to_vec()), "x").is_err(), "cut at {at}");
    }
}

proptest! {
    /// Damage that its checksums do not tell, as of one who wants to mislead.
    #[test]
    fn damage_with_right_checksums_never_panics(changes in proptest::collection::vec((0usize..8000, any::<u8>()), 1..4)) {
        let mut bytes = bytes_of(&small());
        let length = bytes.len();
        for (at, byte) in changes {
            bytes[64 + at % (length - 64)] = byte;
        }
        let sum = crc32fast::hash(&bytes[64..]);
        let bytes = with_head(&bytes, |head| head[12..16].copy_from_slice(&sum.to_le_bytes()));
        let _ = Plan::from_bytes(&Bytes::new(bytes), "x");
    }

    #[test]
    fn random_bytes_are_no_program(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let titled = [&b"\x89ANEPLAN"[..], &bytes].concat();
        prop_assert!(Plan::from_bytes(&Bytes::new(bytes), "x").is_err());
        prop_assert!(Plan::from_bytes(&Bytes::new(titled), "x").is_err());
    }
}

fn scaled(by: f32) -> Graph {
    let x = Var::named_input(TensorType::f16(shape(&[4, 64])), "x");
    let weight = Tensor::from_slice(shape(&[64, 64]), &vec![by; 4096]).unwrap();
    Graph::freeze(&[x.linear(&Var::constant(weight), None)]).unwrap()
}

/// When a file was last used, long ago.
fn aged(path: &Path, hours: u64) {
    let at = std::time::SystemTime::now() - std::time::Duration::from_secs(3600 * hours);
    fs::File::open(path).unwrap().set_modified(at).unwrap();
}

#[test]
fn a_cache_finds_what_was_compiled_from_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    let options = CompileOptions::default();
    let (one, two) = (scaled(1.0), scaled(2.0));
    let first = cache.get_or_compile(&one, &options).unwrap();
    assert!(!first.hit && first.kept.is_ok());
    let again = cache.get_or_compile(&one, &options).unwrap();
    assert!(again.hit);
    same(&first.plan, &again.plan);
    assert_eq!(again.plan.feeds[0].leaf, one.feed_types()[0].leaf, "the caller's input");
    let chip = CompileOptions::target(aneforge::Target::named("h13").unwrap());
    for (graph, options) in [(&two, options), (&one, chip), (&one, options.norms(aneforge::Norms::Robust))] {
        assert!(!cache.get_or_compile(graph, &options).unwrap().hit);
        assert!(cache.get_or_compile(graph, &options).unwrap().hit);
    }
    assert_eq!(cache.list().unwrap().len(), 4);
    // What is damaged is compiled again, and replaced.
    let path = cache.folder().join(format!("{}.aneforge", Cache::key(&one, &options)));
    let whole = fs::read(&path).unwrap();
    for damaged in [&whole[..whole.len() / 2], &[0; 100], b""] {
        fs::write(&path, damaged).unwrap();
        assert_eq!(cache.verify().unwrap().iter().filter(|checked| checked.fault.is_some()).count(), 1);
        assert!(!cache.get_or_compile(&one, &options).unwrap().hit);
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
    fs::write(&path, "x").unwrap();
    let Collected { removed, freed, left, .. } = cache.collect().unwrap();
    assert_eq!((removed, freed, left), (1, 1, 3));
}

#[test]
fn a_cache_stays_within_its_limit_and_forgets_what_is_used_least() {
    let folder = tempfile::tempdir().unwrap();
    let options = CompileOptions::default();
    let graphs: Vec<Graph> = (1..=4).map(|by| scaled(by as f32)).collect();
    let keys: Vec<String> = graphs.iter().map(|graph| Cache::key(graph, &options)).collect();
    let cache = Cache::new(folder.path());
    let path = |key: &str| cache.folder().join(format!("{key}.aneforge"));
    let keep = |cache: &Cache, at: usize| cache.get_or_compile(&graphs[at], &options).unwrap().kept.unwrap();
    keep(&cache, 0);
    let bytes = fs::metadata(path(&keys[0])).unwrap().len();
    let cache = cache.clone().limit(bytes * 3 + bytes / 2);
    (1..3).for_each(|at| keep(&cache, at));
    [30, 20, 10].iter().zip(&keys).for_each(|(&hours, key)| aged(&path(key), hours));
    // Used now, so that the second is the one to go.
    assert!(cache.get(&keys[0]).is_some());
    keep(&cache, 3);
    let there: Vec<bool> = keys.iter().map(|key| path(key).exists()).collect();
    assert_eq!(there, [true, false, true, true]);
    // What somebody reads stays.
    let reader = fs::File::open(path(&keys[2])).unwrap();
    reader.lock_shared().unwrap();
    let none = cache.clone().limit(0);
    let collected = none.collect().unwrap();
    assert_eq!((collected.removed, collected.left), (2, 1));
    assert!(path(&keys[2]).exists());
    drop(reader);
    assert_eq!(none.collect().unwrap().left, 0);
    // What is larger than the limit is compiled and not kept.
    keep(&none, 0);
    assert_eq!(none.list().unwrap().len(), 0);
}

#[test]
fn a_cache_that_cannot_be_written_still_compiles() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("plans"), "a file").unwrap();
    let cached = Cache::new(folder.path()).get_or_compile(&scaled(1.0), &CompileOptions::default()).unwrap();
    assert!(!cached.hit && cached.kept.is_err());
}

#[test]
fn threads_that_share_a_cache_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let options = CompileOptions::default();
    let want: Vec<String> = (0..3)
        .map(|by| aneforge::compile::compile_graph(&scaled(by as f32), &options).unwrap().to_string())
        .collect();
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let (folder, want) = (folder.path(), &want);
            scope.spawn(move || {
                // So small that programs are removed all the time.
                let cache = Cache::new(folder).limit(25_000);
                for at in 0..12 {
                    let which = (at + thread) % 3;
                    let found = cache.get_or_compile(&scaled(which as f32), &options).unwrap();
                    assert_eq!(found.plan.to_string(), want[which as usize]);
                    found.kept.unwrap();
                    if at % 4 == thread {
                        cache.collect().unwrap();
                    }
                }
            });
        }
    });
    let cache = Cache::new(folder.path()).limit(25_000);
    assert!(cache.verify().unwrap().iter().all(|checked| checked.fault.is_none()));
    assert!(cache.collect().unwrap().bytes <= 25_000);
}
