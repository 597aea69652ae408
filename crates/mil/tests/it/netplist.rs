//! Netplists: the property list of a layer, character by character.

use aneforge_mil::DType;
use aneforge_mil::netplist::{Constant, Layer, Netplist, Symbol, Value, half_bits};

#[test]
fn a_property_list_prints_every_kind_of_value() {
    let list = Value::dict([
        ("z", Value::Array(vec![3i64.into(), 0.5.into(), true.into(), Value::dict([("<k>", 1.0.into())])])),
        ("a", "x & <y>".into()),
        ("none", Value::Array(vec![])),
        ("nothing", Value::dict::<&str>([])),
    ]);
    let expected = "\
<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">
<plist version=\"1.0\">
<dict>
\t<key>a</key>
\t<string>x &amp; &lt;y&gt;</string>
\t<key>none</key>
\t<array/>
\t<key>nothing</key>
\t<dict/>
\t<key>z</key>
\t<array>
\t\t<integer>3</integer>
\t\t<real>0.5</real>
\t\t<true/>
\t\t<dict>
\t\t\t<key>&lt;k&gt;</key>
\t\t\t<real>1.0</real>
\t\t</dict>
\t</array>
</dict>
</plist>
";
    assert_eq!(list.to_string(), expected);
    assert_eq!(list.get("a"), Some(&"x & <y>".into()));
    assert_eq!((list.get("b"), Value::from(1i64).get("a")), (None, None));
}

/// The unit and the constant's entry name the same type; what is fed is half precision whatever that is.
#[test]
fn a_constant_has_its_type() {
    for (dtype, name) in [(DType::Uint16, "UInt16"), (DType::Fp16, "Float16")] {
        let fed = Symbol::dense("x", [1, 2, 1, 4]);
        let constant = Constant { name: "c", operand: 1, dtype, bytes: [3, 0] };
        let layer = Layer { constant: Some(constant), ..Layer::new("Kind", [], [fed.clone()], fed) };
        let netplist = Netplist::new("net", layer);
        let network = netplist.document.get("network_net").expect("the network");
        let unit = network.get("op-1").expect("the unit");
        assert_eq!(unit.get("Bottom"), Some(&Value::strings(["x", "c"])));
        assert_eq!(unit.get("InputType"), Some(&Value::strings(["Float16", name])));
        assert_eq!(network.get("c").and_then(|entry| entry.get("ConstantType")), Some(&name.into()));
        assert_eq!(
            netplist.weights,
            [("weights.0".to_owned(), vec![]), ("weights.1".to_owned(), vec![3, 0])]
        );
    }
}

#[test]
fn scalars_round_once() {
    // Through single precision this would be the tie between 1 and what comes after it.
    assert_eq!(half_bits(1.0 + 2f64.powi(-11) + 2f64.powi(-40)), Value::Int(0x3c01));
}
