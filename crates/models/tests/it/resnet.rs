//! Residual networks.

use aneforge::{Shape, Var};
use aneforge_models::resnet::{Depth, random_weights, resnet};

#[test]
fn nodes_of_a_network_are_the_callers() {
    let image = Var::input(Shape::new(&[1, 3, 32, 32]).unwrap());
    let line = line!() + 1;
    let classes = resnet(Depth::D18, &image, 10, &mut random_weights(1));
    assert_eq!(classes.shape().dims(), [1, 10]);
    let (mut open, mut seen) = (vec![classes], 0);
    while let Some(var) = open.pop() {
        open.extend(var.inputs().iter().cloned());
        let at = var.caller().to_string();
        let ours = at == format!("crates/models/tests/it/resnet.rs:{line}");
        assert!(ours || var.inputs().is_empty(), "{} at {at}", var.op().name());
        seen += 1;
    }
    assert!(seen > 60, "{seen} nodes");
}
