//! The example of the README: `cargo run --release -p aneforge --example quickstart`.

use aneforge::{CompileOptions, Session, Shape, Target, Tensor, Var, compile, device};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A layer that picks and scales. Nothing is computed while it is written.
    let x = Var::input(Shape::new(&[1, 4])?);
    let weight = Tensor::from_slice(Shape::new(&[2, 4])?, &[1.0f32, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5])?;
    let y = x.linear(&Var::constant(weight), None).softmax(-1);

    // One fused program for the engine of an M1, compiled on any machine.
    let plan = compile(&[y], &CompileOptions::target(Target::named("h13")?))?;
    println!("{}", plan.segments[0].text());

    // The same program on the device at hand.
    let mut session = Session::new(plan, device::default()?)?;
    let feed = Tensor::from_slice(Shape::new(&[1, 4])?, &[1.0f32, 2.0, 3.0, 2.0])?;
    println!("{session:?} gives {:?}", session.run(&[feed])?[0].to_f32());
    Ok(())
}
