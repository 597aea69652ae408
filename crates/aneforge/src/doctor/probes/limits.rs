//! What the engine and its compiler take.

use super::super::{Bench, Outcome};
use super::{shape, tensor, told};
use crate::device::host;
use crate::ir::numerics::Family;
use crate::ir::ops::native::{CrossCorrelation, Topk};
use crate::ir::var::Var;
use crate::nn::{Attention, sdpa};
use crate::session::Session;
use crate::target::layers::ATTENTION_SHORTER;
use aneforge_ane::limits::{MOST_PROGRAMS, ROW_UNIT, buffer_bytes};
use aneforge_ane::{NativeModel, NativeSource};
use aneforge_tensor::{Tensor, random};

type Found = Result<Outcome, String>;

pub(crate) fn native_rows(bench: &Bench) -> Found {
    let engine = bench.engine()?;
    let mut found = Vec::new();
    let mut expected = true;
    for width in [1usize, 8, 33, 64] {
        let plan = bench.plan(&[Var::input(shape(&[1, 2, 3, width])).minmax_norm("Width", 1e-4)])?;
        let netplist = plan.segments.iter().find_map(|segment| segment.netplist());
        let Some(netplist) = netplist else { return Err("the layer is written out for this target".into()) };
        let document = netplist.document.to_string();
        let source = NativeSource {
            document: document.as_bytes(),
            weights: &netplist.weights,
            inputs: &["x"],
            outputs: &["y"],
        };
        let model =
            NativeModel::load(engine.framework(), &source, aneforge_ane::limits::CALL_LIMIT).map_err(told)?;
        let live = model.input(0).ok_or("there is no input")?;
        let [_, _, plane, row] = live.strides;
        expected &= row == (2 * width).next_multiple_of(ROW_UNIT) && plane == 3 * row;
        found.push(format!("width {width}: rows of {row}, planes of {plane}"));
    }
    Ok(Outcome::is(expected, found.join("; ")))
}

pub(crate) fn buffer_unit(bench: &Bench) -> Found {
    let made = bench.run(Var::input(shape(&[1])).adds(1.0), &[tensor(&[1], &[2.0])])?;
    Ok(Outcome::is(
        made == [3.0],
        format!("a port of 2 bytes in {} gave {}", buffer_bytes(2).unwrap_or(0), made[0]),
    ))
}

pub(crate) fn kernel_width(bench: &Bench) -> Found {
    bench.engine()?;
    let mut widest = 0;
    for width in [5i64, 9, 13, 14, 15, 16, 17, 20] {
        let (x, template) = (Var::input(shape(&[4, 64])), Var::input(shape(&[1, width as usize])));
        let made = Var::try_apply(CrossCorrelation {}, &[&x, &template]).map_err(told)?;
        if bench.session(&[made]).is_err() {
            break;
        }
        widest = width;
    }
    let expected = if bench.target.family() >= Family::A16 { 15 } else { 13 };
    Ok(Outcome::is(widest == expected, format!("templates up to {widest} wide compile")))
}

pub(crate) fn attention_shorter(bench: &Bench) -> Found {
    bench.engine()?;
    let mut errors = Vec::new();
    for length in [ATTENTION_SHORTER - 1, ATTENTION_SHORTER] {
        let dims = [1, 2, length, 32];
        let leaves: Vec<Var> = (0..3).map(|_| Var::input(shape(&dims))).collect();
        let plan = bench.plan(&[sdpa(&leaves[0], &leaves[1], &leaves[2], &Attention::default())])?;
        if plan.n_native() == 0 {
            errors.push(format!("{length}: written out by this library"));
            continue;
        }
        let drawn = |seed: u64| {
            let count = shape(&dims).count() as u64;
            let values: Vec<f32> = (0..count).map(|at| random::uniform(seed, at) * 2.0 - 1.0).collect();
            tensor(&dims, &values)
        };
        let feeds: Vec<Tensor> = (0..3).map(|at| drawn(at + 7)).collect();
        let run = |session: Result<Session, _>| {
            let mut session: Session = session.map_err(|error: crate::RunError| error.to_string())?;
            Ok::<_, String>(session.run(&feeds).map_err(told)?[0].to_f32())
        };
        let want = run(Session::new(plan.clone(), &*host::shared()))?;
        let got = run(Session::new(plan, &bench.device))?;
        let error = got.iter().zip(&want).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max);
        errors.push(format!("{length}: largest error {error:.1e}"));
    }
    Ok(Outcome::measured(errors.join("; ")))
}

pub(crate) fn topk_three(bench: &Bench) -> Found {
    bench.engine()?;
    let x = Var::input(shape(&[1, 16]));
    // The op refuses it, which is what is asked about.
    match Var::try_apply(Topk { k: 3, largest: true }, &[&x]) {
        Err(_) => {
            Err("this library does not build the layer; remove the check in `Topk::infer` to ask".into())
        }
        Ok(made) => Ok(Outcome::is(bench.session(&[made]).is_err(), "it was tried")),
    }
}

pub(crate) fn programs(bench: &Bench) -> Found {
    bench.engine()?;
    let mut sessions = Vec::new();
    let refused = loop {
        if sessions.len() > 2 * MOST_PROGRAMS {
            break "nothing was refused".to_owned();
        }
        match bench.session(&[Var::input(shape(&[4])).adds(1.0)]) {
            Ok(session) => sessions.push(session),
            Err(why) => break why,
        }
    };
    // This library refuses the 129th by itself; fewer mean that the engine did.
    let count = sessions.len();
    Ok(Outcome::is(count == MOST_PROGRAMS, format!("{count} loaded, then: {refused}")))
}
