//! The example of the README: `cargo run --release -p aneforge --example quickstart`.

use aneforge::{Options, Session, Shape, Var, compile, device};
use aneforge_tensor::random::normal_tensor;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A layer with a residual connection. Nothing is computed while it is written.
    let x = Var::input(Shape::new(&[1, 64])?);
    let weight = Var::constant(normal_tensor(1, Shape::new(&[64, 64])?, 0.1));
    let y = (&x + &x.linear(&weight, None).gelu()).softmax(-1);

    // One fused program for the M1's engine, on this machine or any other.
    let target = aneforge::Target::named("h13")?;
    let plan = compile(&[y], &Options { target })?;
    println!("{}", plan.segments[0].program);

    // The same program on the device at hand.
    let mut session = Session::new(plan, &*device::default()?, Default::default())?;
    let probabilities = session.run(&[normal_tensor(2, Shape::new(&[1, 64])?, 1.0)])?;
    println!("{session:?}: the probabilities sum to {}", probabilities[0].to_f32().iter().sum::<f32>());
    Ok(())
}
