//! What is refused of graphs that are not legal, one fault at a time: passes see to it that few of them get so far.

use aneforge::ir::op::{Mil, OPS};
use aneforge::ir::ops::conv::Conv;
use aneforge::ir::text;
use aneforge::passes::{FORMS, LEGALIZE, legal};
use aneforge::rewrite::{self, Rule};
use aneforge::{Graph, Target, Var};
use aneforge_mil::verify::MAX_DIM;

fn refused(graph: &Graph, target: Target) -> Option<String> {
    legal::check(graph, target).err().map(|error| error.to_string())
}

#[test]
fn statements_have_the_operands_that_mil_takes() {
    let mut found = 0;
    for case in OPS.iter().flat_map(|entry| (entry.cases)()) {
        let Mil::StmtWith(_, operands, _) = case.op.mil() else { continue };
        if operands == case.inputs.len() {
            continue;
        }
        found += 1;
        let leaf = |(at, ty): (usize, &aneforge::TensorType)| match at {
            0 => Var::input_of(*ty),
            _ => Var::full(ty.shape, 0.5),
        };
        let inputs: Vec<Var> = case.inputs.iter().enumerate().map(leaf).collect();
        let graph =
            Graph::freeze(&[Var::apply(case.op.clone(), &inputs.iter().collect::<Vec<_>>())]).unwrap();
        let why = refused(&graph, Target::default()).unwrap_or_default();
        assert!(why.contains("has no single MIL statement"), "{}: {why}", case.op.name());
    }
    assert!(found > 0, "no op has such a case");
}

#[test]
fn kernels_may_be_computed_for_one_image_at_a_time() {
    let conv = |images: usize| {
        let source = format!(
            "%0 = input(feed=0) : fp16[{images}, 2, 5, 5]\n%1 = input(feed=1) : fp16[3, 2, 3, 3]\n%2 = conv(%0, %1) : \
             fp16[{images}, 3, 3, 3]\nreturn %2\n"
        );
        refused(&text::parse(&source).unwrap(), Target::default())
    };
    assert_eq!(conv(1), None);
    assert!(conv(2).unwrap().contains("a computed kernel of width 3"));
}

#[test]
fn partial_windows_go_with_equal_padding_only() {
    let pooled = |pad: [i64; 4]| {
        let source = format!(
            "%0 = input(feed=0) : fp16[1, 2, 5, 5]\n%1 = avg_pool(%0, kernel_sizes=[2, 2], strides=[2, 2], pad={pad:?}, \
             ceil_mode=true, exclude_pad=false) : fp16[1, 2, 3, 3]\nreturn %1\n"
        );
        refused(&text::parse(&source).unwrap(), Target::default())
    };
    assert_eq!(pooled([1, 1, 0, 0]), None);
    for pad in [[1, 0, 0, 0], [0, 0, 1, 0]] {
        assert!(pooled(pad).unwrap().contains("with equal padding only"), "{pad:?}");
    }
}

#[test]
fn results_are_computed_and_distinct() {
    let refused = |returned: &str| {
        let source = "%0 = input(feed=0) : fp16[2]\n%1 = relu(%0) : fp16[2]\n%2 = exp(%1) : fp16[2]\nreturn ";
        refused(&text::parse(&format!("{source}{returned}\n")).unwrap(), Target::default())
    };
    assert_eq!(refused("%1, %2"), None);
    for returned in ["%0, %2", "%2, %2"] {
        let why = refused(returned).unwrap();
        assert!(why.contains("is returned without being computed, or twice"), "{returned}: {why}");
    }
}

/// What a rule says of a graph that it recognises and leaves alone, up to the limit and one beyond.
#[test]
fn refusals_have_reasons() {
    let said = |rules: &[Rule], lines: &[String]| {
        let mut events = Vec::new();
        let source = format!("{}\nreturn %{}\n", lines.join("\n"), lines.len() - 1);
        rewrite::run(&text::parse(&source).unwrap(), rules, &mut events).unwrap();
        events.into_iter().find_map(|event| event.refused)
    };
    let input = |feed: usize, dims: &str| format!("%{feed} = input(feed={feed}) : fp16[{dims}]");
    let longest = MAX_DIM as usize;
    let tiled = |times: usize| {
        said(LEGALIZE, &[input(0, "1"), format!("%1 = tile(%0, reps=[{times}]) : fp16[{times}]")])
    };
    assert_eq!(tiled(longest), None);
    assert_eq!(tiled(longest + 1), Some("the result is longer than any engine takes"));
    let pooled = |pad: usize| {
        let pool = format!(
            "avg_pool(%0, kernel_sizes=[{}, 1], strides=[1, 1], pad=[{pad}, 0, 0, 0], ceil_mode=true, exclude_pad=false)",
            pad + 2
        );
        said(FORMS, &[input(0, "1, 1, 4, 1"), format!("%1 = {pool} : fp16[1, 1, 3, 1]")])
    };
    assert_eq!(pooled(longest), None);
    assert_eq!(pooled(longest + 1), Some("the padded image is longer than any engine takes"));
    let conv = |width: usize| {
        let conv = "conv(%0, %1, strides=[1, 1], pad=[0, 0, 0, 0], dilations=[1, 2], groups=1)";
        let out = 23 - 2 * width;
        let kernel = input(1, &format!("1, 1, 1, {width}"));
        said(LEGALIZE, &[input(0, "1, 1, 1, 21"), kernel, format!("%2 = {conv} : fp16[1, 1, 1, {out}]")])
    };
    assert_eq!(conv(8), None);
    assert_eq!(conv(9), Some("the kernel would be wider than any engine accepts"));
    let tall = |height: usize| {
        let conv = "conv(%0, %1, strides=[1, 1], pad=[0, 0, 0, 0], dilations=[2, 1], groups=1)";
        let out = 42 - 2 * height;
        let kernel = input(1, &format!("1, 1, {height}, 1"));
        said(LEGALIZE, &[input(0, "1, 1, 40, 1"), kernel, format!("%2 = {conv} : fp16[1, 1, {out}, 1]")])
    };
    assert_eq!(tall(16), None);
    assert_eq!(tall(17), Some("the kernel would be taller than any engine accepts"));
    let affine = "%2 = affine(%0, %1, output_h=2, output_w=2) : fp16[1, 2, 2, 2]".to_owned();
    let affine = said(LEGALIZE, &[input(0, "1, 2, 3, 4"), input(1, "1, 6"), affine]);
    assert_eq!(affine, Some("the engine takes the map as a constant"));
}

/// Every family's limit of every axis: what is at it passes, what is beyond it does not.
#[test]
fn axes_have_the_limits_of_the_family() {
    let graph = |op: &str, from: [usize; 4], to: [usize; 4]| {
        let [from, to] = [from, to].map(|dims| dims.map(|d| d.to_string()).join(", "));
        text::parse(&format!("%0 = input(feed=0) : fp16[{from}]\n%1 = {op} : fp16[{to}]\nreturn %1\n"))
            .unwrap()
    };
    for target in ["h13", "h14", "h16", "h17s"].map(|name| Target::named(name).unwrap()) {
        let limits = target.family().limits();
        for axis in 0..4 {
            let limit = if axis == 1 { limits.channels } else { limits.tensor_dim }.min(MAX_DIM as usize);
            let dims = |extent| std::array::from_fn(|at| if at == axis { extent } else { 1 });
            let relu = |extent| refused(&graph("relu(%0)", dims(extent), dims(extent)), target);
            assert_eq!(relu(limit), None, "{target}, axis {axis}");
            let why = relu(limit + 1).unwrap();
            assert!(
                why.contains(&format!("axis {axis} of")) && why.contains(&limit.to_string()),
                "{target}: {why}"
            );
        }
        let transposed = |extent: usize| {
            refused(&graph("transpose(%0, perm=[0, 1, 3, 2])", [1, 1, extent, 1], [1, 1, 1, extent]), target)
        };
        let limit = limits.transposed.min(MAX_DIM as usize);
        assert_eq!(transposed(limit), None, "{target}");
        assert!(transposed(limit + 1).is_some(), "{target}");
    }
}

/// A convolution's weight has more channels of either kind than other axes may be long (measured on M1); a constant that
/// something else reads, too, has not.
#[test]
fn weights_of_convolutions_have_the_limit_of_channels() {
    let target = Target::named("h13").unwrap();
    let shape = |dims: [usize; 4]| aneforge::Shape::new(&dims).unwrap();
    let conv = |dims: [usize; 4], also: bool| {
        let (x, weight) = (Var::input(shape([1, dims[1], 1, 1])), Var::full(shape(dims), 0.5));
        let op = Conv { strides: [1, 1], pad: [0; 4], dilations: [1, 1], groups: 1 };
        let mut outputs = vec![Var::apply(op, &[&x, &weight])];
        if also {
            outputs.push(Var::apply(aneforge::ir::ops::binary::Add {}, &[&weight, &weight]));
        }
        refused(&Graph::freeze(&outputs).unwrap(), target)
    };
    assert_eq!(conv([16385, 2, 1, 1], false), None);
    assert_eq!(conv([2, 16385, 1, 1], false), None);
    let why = conv([65537, 1, 1, 1], false).unwrap();
    assert!(why.contains("axis 0 of [65537, 1, 1, 1] is above the 65536"), "{why}");
    let why = conv([16385, 2, 1, 1], true).unwrap();
    assert!(why.contains("axis 0 of [16385, 2, 1, 1] is above the 16384"), "{why}");
}

/// Values may have more axes than the engine takes, as long as passes get rid of them.
#[test]
fn axes_beyond_the_engines_go_or_are_refused() {
    let x = Var::input(aneforge::Shape::new(&[1, 8, 15, 6]).unwrap());
    let six = x.reshape(&[1, 2, 4, 3, 5, 6]);
    let compiled = |y: &Var| aneforge::compile(std::slice::from_ref(y), &Default::default());
    assert!(compiled(&six.transpose(&[0, 1, 3, 2, 4, 5]).reshape(&[6, 20, 6])).is_ok());
    let error = compiled(&six.softmax(4).reshape(&[8, 15, 6])).unwrap_err();
    assert_eq!(error.kind(), aneforge::Kind::Caller);
    assert!(
        error.to_string().contains("rank 6 is above the engine's limit of 5; reshape to fewer axes"),
        "{error}"
    );
}

/// Every op with more axes in front than the engine takes: typed or refused, compiled or refused, and no panic.
#[test]
fn every_op_takes_or_refuses_up_to_eight_axes() {
    let (mut built, mut compiled) = (0, 0);
    for case in OPS.iter().flat_map(|entry| (entry.cases)()) {
        for rank in 6..=8 {
            let widened = |ty: &aneforge::TensorType| {
                let mut dims = vec![1; rank - ty.shape.rank()];
                dims.extend(ty.shape.dims());
                let shape = aneforge::Shape::new(&dims).unwrap();
                aneforge::TensorType { shape, ..*ty }
            };
            let leaf = |(at, ty): (usize, &aneforge::TensorType)| match ty.dtype {
                aneforge::DType::Bool => Var::input(widened(ty).shape).greater(&Var::from(0.0)),
                _ if at >= case.constants_from => Var::full(widened(ty).shape, 0.5),
                _ => Var::input_of(widened(ty)),
            };
            let inputs: Vec<Var> = case.inputs.iter().enumerate().map(leaf).collect();
            let y = Var::apply(case.op.clone(), &inputs.iter().collect::<Vec<_>>());
            built += usize::from(y.check().is_ok());
            compiled += usize::from(aneforge::compile(&[y], &Default::default()).is_ok());
        }
    }
    // Ports have as many axes as are asked for, so nothing of it is legal in the end.
    assert!(built > 100 && compiled == 0, "{built} built, {compiled} compiled");
}

/// As wide as the family's limit passes, one wider does not; a template also has to be smaller than the map.
#[test]
fn kernels_and_templates_have_the_widths_of_the_family() {
    let shape = |dims: &[usize]| aneforge::Shape::new(dims).unwrap();
    for target in ["h13", "h17s"].map(|name| Target::named(name).unwrap()) {
        let limit = target.family().limits().kernel_width;
        let options = aneforge::CompileOptions::target(target).routes(aneforge::Routes::Native);
        let why = |y: Var| aneforge::compile(&[y], &options).err().map(|error| error.to_string());
        let image = Var::input(shape(&[1, 1, 3, 40]));
        let conv = |width: usize| {
            let op = Conv { strides: [1, 1], pad: [0; 4], dilations: [1, 1], groups: 1 };
            why(Var::apply(op, &[&image, &Var::full(shape(&[1, 1, 1, width]), 1.0)]))
        };
        let map = Var::input(shape(&[3, 40]));
        let template = |dims: [usize; 2]| why(map.cross_correlation(&Var::input(shape(&dims))));
        assert_eq!((conv(limit), template([2, limit])), (None, None), "{target}");
        let tall = Var::input(shape(&[1, 1, 40, 3]));
        let column = |height: usize| {
            let op = Conv { strides: [1, 1], pad: [0; 4], dilations: [1, 1], groups: 1 };
            why(Var::apply(op, &[&tall, &Var::full(shape(&[1, 1, height, 1]), 1.0)]))
        };
        let highest = target.family().limits().kernel_height;
        assert_eq!(column(highest), None, "{target}");
        let said = column(highest + 1).unwrap();
        assert!(said.contains(&format!("kernel height {} is above the {highest}", highest + 1)), "{said}");
        let wider = (limit + 1).to_string();
        assert!(conv(limit + 1).unwrap().contains(&wider), "{target}");
        assert!(template([2, limit + 1]).unwrap().contains(&wider), "{target}");
        let map = Var::input(shape(&[3, 5]));
        let equal = why(map.cross_correlation(&Var::input(shape(&[3, 5]))));
        assert!(equal.unwrap().contains("a template smaller than the map [3, 5]"), "{target}");
    }
}
