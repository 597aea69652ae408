//! The reference page of the ops, from their declarations.

use super::examples::example;
use aneforge::ir::op::{Entry, Mil, Native, OPS};
use aneforge::target::{FLOORS, Floor};
use anyhow::{Result, bail};
use std::fmt::Write;

/// Titles of the page's sections, and the op that each begins with.
const SECTIONS: &[(&str, &str)] = &[
    ("Inputs and constants", "input"),
    ("Functions of one value", "relu"),
    ("Functions with scalar parameters", "muls"),
    ("Functions of two values", "add"),
    ("Comparison and selection", "greater"),
    ("Products and convolutions", "matmul"),
    ("Pooling", "max_pool"),
    ("Reductions", "reduce_mean"),
    ("Softmax and normalisation", "softmax"),
    ("Shape", "reshape"),
    ("Parts and wholes", "slice_by_size"),
    ("Native layers", "sdpa"),
];

const INTRODUCTION: &str = "\
# Operations

<!-- Written by `cargo xtask gen` from the declarations in crates/aneforge/src/ir/ops. Do not edit. -->

Every op of the graph language, in the order of the list in `crates/aneforge/src/ir/op.rs`. Each takes values and
attributes and gives one value. Values are half precision (`fp16`) unless the text says otherwise; the axes of a value
are counted from 0, and negative numbers count from the last. An input marked *optional* may be left out; one marked
*repeated* stands for one or more. The line *MIL* says how the op reaches the engine's language: as one statement,
written with other ops first, or as a native layer at which the graph is cut. [numerics.md](numerics.md) says how results are rounded.

Each example is complete after `import aneforge as af` and `import numpy as np`; the tests run all of them.
";

/// The page.
pub fn text() -> Result<String> {
    page(OPS, SECTIONS)
}

fn page(ops: &[Entry], sections: &[(&str, &str)]) -> Result<String> {
    let mut contents = String::new();
    let mut body = String::new();
    let mut left = sections.iter().peekable();
    for entry in ops {
        let name = entry.info.name;
        if let Some((title, _)) = left.next_if(|(_, first)| *first == name) {
            write!(body, "\n## {title}\n")?;
            write!(contents, "\n- [{title}](#{}):", slug(title))?;
        } else if body.is_empty() {
            bail!(
                "op `{name}` comes before the first section; fix SECTIONS in xtask/src/generate/ops_page.rs"
            );
        }
        write!(contents, " [{name}](#{name})")?;
        body.push_str(&section(entry));
    }
    if let Some((title, first)) = left.next() {
        bail!(
            "section `{title}` begins with op `{first}`, which is not where SECTIONS in ops_page.rs expects it"
        );
    }
    Ok(format!("{INTRODUCTION}{contents}\n{body}"))
}

/// A heading as a link's target.
fn slug(title: &str) -> String {
    title.to_lowercase().replace(' ', "-")
}

/// One op's part of the page.
fn section(entry: &Entry) -> String {
    let info = &entry.info;
    let mut out = format!("\n### {}\n\n{}\n", info.name, unindented(info.page()));
    if !info.inputs.is_empty() {
        let inputs: Vec<String> = info.inputs.iter().map(|input| input_text(input)).collect();
        out += &format!("\n*Inputs:* {}\n", inputs.join(", "));
    }
    if !info.attrs.is_empty() {
        out += "\n| attribute | type | default | |\n|---|---|---|---|\n";
        for attr in info.attrs {
            let default = entry.default_of(attr).map_or("required".into(), |value| format!("`{value}`"));
            let doc = unindented(attr.doc).replace('\n', " ").replace('|', "\\|");
            out += &format!("| `{}` | {} | {default} | {doc} |\n", attr.name, attr.ty);
        }
    }
    if let Some(line) = mil_text(&(entry.mil)()) {
        out += &format!("\n*MIL:* {line}\n");
    }
    if let Some(Floor { first: family, .. }) = FLOORS.iter().find(|floor| floor.op == info.name) {
        out += &format!("\n*Chips:* {family} or newer\n");
    }
    if let Some(lines) = example(entry) {
        out += &format!("\n```python\n{}\n```\n", lines.join("\n"));
    }
    out
}

/// Text of doc comments without the blank that follows each `///`.
pub fn unindented(doc: &str) -> String {
    let lines: Vec<&str> = doc.lines().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    lines.join("\n").trim().to_string()
}

fn input_text(input: &str) -> String {
    match (input.strip_suffix('?'), input.strip_suffix("..")) {
        (Some(name), _) => format!("`{name}` (optional)"),
        (_, Some(name)) => format!("`{name}` (repeated)"),
        _ => format!("`{input}`"),
    }
}

fn native_text(native: &Native) -> &'static str {
    match native.written {
        Some(_) => ". The host runs it as a chain of other ops",
        None => "",
    }
}

fn mil_text(mil: &Mil) -> Option<String> {
    match mil {
        Mil::Leaf => None,
        Mil::Stmt(spelling) => Some(format!("`{}`", spelling.op)),
        Mil::StmtWith(spelling, n, _) => {
            Some(format!("`{}` with {n} inputs, else with other ops", spelling.op))
        }
        Mil::Decompose(_) | Mil::Legalized => Some("written with other ops".into()),
        Mil::Composed(_) => {
            Some("written with other ops, or a native layer where one is wanted and reliable".into())
        }
        Mil::Native(native) => {
            let entry = native_text(native);
            Some(format!("none; the graph is cut and the layer is a program of its own{entry}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aneforge::ir::op::find;

    #[test]
    fn a_section_has_everything_declared() {
        let text = section(find("concat").expect("it is an op"));
        assert!(text.starts_with("\n### concat\n\nTensors one after another"), "{text}");
        assert!(text.contains("*Inputs:* `values` (repeated)"), "{text}");
        assert!(
            text.contains("| `axis` | int | `1` | The axis along which they follow each other. |"),
            "{text}"
        );
        assert!(text.contains("*MIL:* `concat`"), "{text}");
    }

    #[test]
    fn defaults_are_values_not_code() {
        let text = section(find("conv").expect("it is an op"));
        assert!(text.contains("| `pad` | ints | `[0, 0, 0, 0]` |"), "{text}");
        assert!(text.contains("`bias` (optional)"), "{text}");
        let text = section(find("reverse").expect("it is an op"));
        assert!(text.contains("| `axes` | ints | required |"), "{text}");
        let text = section(find("input").expect("it is an op"));
        assert!(text.contains("| `dtype` | dtype | `\"fp16\"` |"), "{text}");
    }

    #[test]
    fn sections_must_begin_where_they_say() {
        assert!(page(OPS, &[("A", "relu")]).is_err());
        assert!(page(OPS, &[("A", "input"), ("B", "absent")]).is_err());
    }
}
