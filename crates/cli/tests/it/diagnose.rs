//! `aneforge diagnose` finds what half precision and a chip do to a network.

use crate::support::{fails, file, folder, json, keys, sample, show, text};
use std::fs;

const HOT: &str = "\
%0 = input(feed=0) : fp16[1, 8]
%1 = exp(%0) : fp16[1, 8]
%2 = slice_by_size(%1, begin=[0, 2], size=[1, 4]) : fp16[1, 4]
return %2
";

#[test]
fn a_network_is_diagnosed() {
    let folder = folder();
    let graph = file(&folder, "hot.ir", HOT);
    let found = json(&["diagnose", &graph, "--random", "1"]);
    let all = ["nodes", "notes", "numerics", "outputs", "safe", "seconds", "target", "tolerance"];
    assert_eq!(keys(&found), all);
    assert_eq!((found["safe"].as_bool(), found["target"].as_str()), (Some(true), Some("h17s")));
    let values: Vec<f32> = (0..8).map(|i| 3.0 * i as f32).collect();
    let array = show(&folder.path().join("x.npy"));
    let shape = aneforge_tensor::Shape::new(&[1, 8]).unwrap();
    let tensor = aneforge_tensor::Tensor::from_slice(shape, &values).unwrap();
    aneforge_tensor::npy::write(&tensor, &mut fs::File::create(&array).unwrap()).unwrap();
    let found = json(&["diagnose", &graph, "--input", &array, "--target", "h13"]);
    let troubles: Vec<&str> = found["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|node| node["troubles"].as_array().unwrap())
        .map(|trouble| trouble["trouble"].as_str().unwrap())
        .collect();
    assert_eq!((troubles, found["safe"].as_bool()), (vec!["overflow", "saturation"], Some(false)));
    let page = show(&folder.path().join("found.html"));
    let table = text(&["diagnose", &graph, "-i", &array, "--html", &page]);
    assert!(table.starts_with("h17s (A16, arithmetic ane(A16)): 1 node in trouble; 2 nodes"), "{table}");
    assert!(table.contains("subtract the row's maximum") && table.contains("hot.ir:2"), "{table}");
    assert!(fs::read_to_string(&page).unwrap().contains("<svg"));
    let every = text(&["diagnose", &graph, "-i", &array, "--every"]);
    assert!(every.contains("slice_by_size : fp16[1, 4]"), "{every}");
}

#[test]
fn every_chip_is_asked() {
    let found = json(&["diagnose", &sample("mlp"), "--random", "1", "--all-chips"]);
    assert_eq!(keys(&found), ["chips", "families", "host_us", "place"]);
    assert!(found["chips"].as_array().unwrap().iter().all(|chip| chip["verdict"] == "safe"));
    let table = text(&["diagnose", &sample("mlp"), "--random", "1", "--all-chips"]);
    assert!(table.lines().next().unwrap().starts_with("h13   A13"), "{table}");
    let page = text(&["diagnose", &sample("mlp"), "--random", "1", "--all-chips", "--html", "-"]);
    assert!(
        page.starts_with("<!doctype html>")
            && page.matches("<svg").count() == 4
            && page.ends_with("</html>\n")
    );
}

#[test]
fn state_comes_from_its_file() {
    let folder = folder();
    let counter = "%0 = input(feed=0, role=\"state\", name=\"n\") : fp16[1, 2]\n%1 = input(feed=1) : fp16[1, 2]\n\
                   %2 = add(%0, %1) : fp16[1, 2]\n%3 = exp(%2) : fp16[1, 2]\ncarry %0 = %2\nreturn %3\n";
    let graph = file(&folder, "counter.ir", counter);
    let state = show(&folder.path().join("n.safetensors"));
    // The node that adds, in double precision: the input once, twice, three times.
    let largest = || {
        json(&["diagnose", &graph, "--random", "1", "--state", &state])["nodes"][0]["largest"]
            .as_f64()
            .unwrap()
    };
    json(&["run", &graph, "--random", "1", "--state", &state]);
    let twice = largest();
    json(&["run", &graph, "--random", "1", "--state", &state]);
    assert!((largest() / twice - 1.5).abs() < 1e-2, "{} and {twice}", largest());
    let error = fails(3, &["diagnose", &sample("mlp"), "--random", "1", "--state", "nowhere"]);
    assert!(error.contains("nowhere"), "{error}");
}

#[test]
fn compiled_programs_are_diagnosed_as_they_are() {
    let folder = folder();
    let program = show(&folder.path().join("mlp.aneforge"));
    json(&["compile", &sample("mlp"), "-o", &program, "--target", "h13"]);
    let found = json(&["diagnose", &program, "--random", "1"]);
    assert_eq!((found["target"].as_str(), found["safe"].as_bool()), (Some("h13"), Some(true)));
}

#[test]
fn bounds_are_judged_without_data() {
    let folder = folder();
    let graph = |most: f64| HOT.replace("feed=0", &format!("feed=0, max_abs={most}"));
    let table = text(&["diagnose", &file(&folder, "hot.ir", graph(12.0))]);
    assert!(
        table.starts_with("h17s (A16), without data: 1 risk\n  note: overflow: exp may reach"),
        "{table}"
    );
    let found = json(&["diagnose", &file(&folder, "cool.ir", graph(2.0))]);
    assert_eq!((found["safe"].as_bool(), found["nodes"].as_array().map(Vec::len)), (Some(true), Some(0)));
}

#[test]
fn mistakes_are_told() {
    let error = fails(3, &["diagnose", &sample("mlp"), "--all-chips"]);
    assert!(error.contains("give --input FILE.npy for each, or --random SEED"), "{error}");
    let error = fails(2, &["diagnose", &sample("mlp"), "--random", "1", "--tolerance", "0"]);
    assert!(error.contains("a number greater than 0 is needed"), "{error}");
}

/// Settings of the arithmetic: the first node where each parts from the one asked for.
#[test]
fn settings_are_compared() {
    let found = json(&["diff-numerics", &sample("convnet"), "--random", "1"]);
    assert_eq!(keys(&found), ["baseline", "nodes", "settings", "target"]);
    assert_eq!(found["baseline"], "ane(A16)");
    let settings = found["settings"].as_array().unwrap();
    let names: Vec<&str> = settings.iter().map(|setting| setting["numerics"].as_str().unwrap()).collect();
    let faithful = ["faithful(A13)", "faithful(A14)", "faithful(A15)", "faithful(A16)"];
    assert_eq!(names, [&["ieee", "ane(A13)", "ane(A14)", "ane(A15)"], &faithful[..]].concat());
    assert!(settings[..4].iter().all(|setting| setting["first"].is_null() && setting["nodes"] == 0));
    for setting in &settings[4..] {
        let first = &setting["first"];
        assert!(setting["nodes"].as_u64().unwrap() > 0 && setting["chips"].as_array().unwrap().len() > 1);
        assert!(first["at"].as_str().unwrap().contains("convnet.ir:"), "{first}");
        assert!((1e-5..1e-2).contains(&first["difference"].as_f64().unwrap()), "{first}");
        assert!(setting["outputs"][0].as_f64().unwrap() < 1e-2);
    }
    // The bias of the first convolution is where ties that go away from zero begin to show.
    assert_eq!(settings[7]["first"]["op"], "add");
    let table = text(&["--numerics", "faithful-m1", "diff-numerics", &sample("convnet"), "--random", "1"]);
    assert!(table.contains("compared with faithful(A13)"), "{table}");
    assert!(table.lines().any(|line| line.starts_with("faithful(A14)  the same bits")), "{table}");
    let error = fails(3, &["diff-numerics", &sample("convnet")]);
    assert!(error.contains("--random SEED"), "{error}");
}

/// All that is published, by name, of the program's own chip or of another.
#[test]
fn faithful_numerics_are_named() {
    let of = |numerics: &str, target: &str| {
        let run = ["--numerics", numerics, "--target", target, "run", &sample("convnet"), "--random", "1"];
        json(&run)["numerics"].as_str().unwrap().to_owned()
    };
    assert_eq!(of("faithful", "h14"), "faithful(A14)");
    assert_eq!(of("Faithful-M4", "h14"), "faithful(A16)");
    assert_eq!(of("ane", "h14"), "ane(A14)");
    let found = json(&["--numerics", "faithful", "diagnose", &sample("convnet"), "--random", "1"]);
    assert_eq!(found["numerics"], "faithful-a16");
}
