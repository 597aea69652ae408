//! Programs of our models and examples, for a chip of every family and with weights in every form, held to MIL's specification as
//! they are written: text and weight file, read back.

use aneforge::device::host::Host;
use aneforge::ir::text;
use aneforge::passes::{Compression, Form};
use aneforge::{CompileOptions, Family, Graph, Norms, Plan, Routes, Shape, Target, Var, compile_graph};
use aneforge_mil::BlobFile;
use aneforge_models::resnet::{Depth, resnet};
use aneforge_models::weights::random_weights;
use aneforge_models::{Encoder, EncoderOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Holds the text and weights of every MIL program to the specification; how many statements that were.
fn verified(plan: &Plan, what: &str) -> usize {
    let mut statements = 0;
    for (program, blob, graph) in plan.segments.iter().filter_map(|s| s.mil().map(|(p, b)| (p, b, &s.graph)))
    {
        let bytes = blob.write(graph, Vec::new()).unwrap();
        let file = BlobFile::parse(&bytes).unwrap();
        let read = aneforge_mil::parse(&program.to_string()).unwrap_or_else(|e| panic!("{what}: {e}"));
        aneforge_mil::verify(&read, Some(file.directory())).unwrap_or_else(|e| panic!("{what}: {e:?}"));
        assert!(bytes.len() as u64 <= CompileOptions::default().ceiling());
        statements += read.functions[0].body.len();
    }
    statements
}

/// Compiles for every family in every one of these forms and ways.
fn everywhere(name: &str, graph: &Graph, forms: &[Option<Form>], ways: &[(Routes, Norms)]) {
    let targets: Vec<Target> = Family::ALL.into_iter().filter_map(Family::representative).collect();
    assert_eq!(targets.len(), 4);
    for target in targets {
        for &form in forms {
            let compression = form.map(|form| Compression::new(form).tolerance(0.5));
            for &(routes, norms) in ways {
                let options =
                    CompileOptions::target(target).routes(routes).norms(norms).compression(compression);
                let what = format!("{name} for {target}, {form:?}, {routes:?}");
                let plan = compile_graph(graph, &options).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert!(verified(&plan, &what) > 0, "{what}");
            }
        }
    }
}

const FORMS: [Option<Form>; 6] =
    [None, Some(Form::Int8), Some(Form::Int4), Some(Form::Sparse), Some(Form::Blockwise), Some(Form::Auto)];

const WAYS: [(Routes, Norms); 2] = [(Routes::WrittenOut, Norms::Auto), (Routes::Native, Norms::Robust)];

#[test]
fn examples_verify_for_every_family_in_every_form() {
    let mut graphs = 0;
    for entry in std::fs::read_dir(root().join("examples/graphs")).unwrap() {
        let path = entry.unwrap().path();
        let graph = text::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
        everywhere(&path.display().to_string(), &graph, &FORMS, &WAYS);
        graphs += 1;
    }
    assert!(graphs >= 3, "{graphs}");
}

#[test]
fn networks_verify_for_every_family() {
    let image = Var::input(Shape::new(&[1, 3, 64, 64]).unwrap());
    for (depth, forms) in [(Depth::D18, &FORMS[..2]), (Depth::D50, &FORMS[..1])] {
        let classes = resnet(depth, &image, 10, &mut random_weights(1)).unwrap();
        everywhere(&format!("{depth:?}"), &Graph::freeze(&[classes]).unwrap(), forms, &WAYS[..1]);
    }
}

#[test]
fn encoders_verify_for_every_family() {
    for target in Family::ALL.into_iter().filter_map(Family::representative) {
        for int8 in [false, true] {
            let device: Option<Arc<dyn aneforge::Device>> = Some(Arc::new(Host::new(1)));
            let options = EncoderOptions { device, target, int8, ..EncoderOptions::default() };
            let folder = root().join("tests/models/tiny-bert");
            let mut encoder = Encoder::load(folder.to_str().unwrap(), options).unwrap();
            for tokens in [8, 40] {
                let plan = Arc::clone(encoder.program(tokens).unwrap().plan());
                assert_eq!(plan.target, target);
                assert!(verified(&plan, &format!("tiny-bert for {target}")) > 50);
            }
        }
    }
}
