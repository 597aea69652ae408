//! `cargo xtask new-op`: the file of a new op, with holes, and its place in the two lists.

use crate::run::root;
use anyhow::{Context, Result, bail};
use std::fs;

/// The op to start.
#[derive(clap::Args)]
pub struct Args {
    /// Its name in graphs and in Python, such as `softmax` or `l2_norm`
    name: String,
}

const OPS: &str = "crates/aneforge/src/ir/ops";
const LIST: &str = "crates/aneforge/src/ir/op.rs";

/// Writes the file and the two lines.
pub fn run(args: &Args) -> Result<()> {
    let name = args.name.as_str();
    check_name(name)?;
    let file = format!("{OPS}/{name}.rs");
    if root().join(&file).exists() {
        bail!("{file} exists; choose another name, or add the op to that file by hand");
    }
    let modules = format!("{OPS}/mod.rs");
    let with_module = add_module(&read(&modules)?, name)?;
    let with_row = add_row(&read(LIST)?, name)?;
    for (path, text) in [(&file, op_file(name)), (&modules, with_module), (&LIST.to_string(), with_row)] {
        fs::write(root().join(path), text).with_context(|| format!("cannot write {path}"))?;
        println!("wrote {path}");
    }
    println!(
        "fill every todo!() in {file} (clippy refuses those left), then run `cargo xtask gen` and `cargo xtask bless`"
    );
    Ok(())
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(root().join(path)).with_context(|| format!("cannot read {path}"))
}

fn check_name(name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(good) && name != "mod" {
        return Ok(());
    }
    bail!("`{name}` is not an op's name; use lowercase letters, digits and underscores, such as l2_norm");
}

/// `l2_norm` as `L2Norm`.
fn struct_name(name: &str) -> String {
    name.split('_')
        .map(|word| word[..word.len().min(1)].to_uppercase() + word.get(1..).unwrap_or(""))
        .collect()
}

/// The list of modules with one more, in its sorted place.
fn add_module(text: &str, name: &str) -> Result<String> {
    let line = format!("pub mod {name};");
    let mut lines: Vec<&str> = text.lines().collect();
    let is_module = |l: &&str| l.starts_with("pub mod ");
    let Some(first) = lines.iter().position(is_module) else {
        bail!("{OPS}/mod.rs has no line `pub mod ...;`; add `{line}` by hand")
    };
    let count = lines[first..].iter().take_while(|l| is_module(l)).count();
    let place =
        lines[first..first + count].partition_point(|l| l.trim_end_matches(';') < line.trim_end_matches(';'));
    lines.insert(first + place, &line);
    Ok(lines.join("\n") + "\n")
}

/// The list of ops with one more, at its end.
fn add_row(text: &str, name: &str) -> Result<String> {
    let row = format!("    {name}::{},\n", struct_name(name));
    let end = text.find("\nops! {").and_then(|start| text[start..].find("\n}").map(|end| start + end + 1));
    let Some(end) = end else { bail!("{LIST} has no list `ops! {{ ... }}`; add `{}` by hand", row.trim()) };
    Ok(format!("{}{row}{}", &text[..end], &text[end..]))
}

fn op_file(name: &str) -> String {
    include_str!("new_op/template.rs.txt").replace("{name}", name).replace("{Name}", &struct_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_structs() {
        assert_eq!(struct_name("l2_norm"), "L2Norm");
        assert_eq!(struct_name("softmax"), "Softmax");
        for bad in ["", "Softmax", "2d", "a-b", "mod", "a b"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn modules_stay_sorted() {
        let text = "//! Docs.\n\npub mod conv;\npub mod conv_transpose;\npub mod pool;\n";
        let added = add_module(text, "conv_a").expect("there is a list");
        assert_eq!(
            added,
            "//! Docs.\n\npub mod conv;\npub mod conv_a;\npub mod conv_transpose;\npub mod pool;\n"
        );
        assert!(add_module(text, "zip").expect("there is a list").ends_with("pub mod pool;\npub mod zip;\n"));
        assert!(add_module("", "zip").is_err());
    }

    #[test]
    fn rows_go_to_the_end_of_the_list() {
        let text = "fn a() {\n}\n\nops! {\n    leaf::Input,\n}\n\nfn b() {\n}\n";
        let added = add_row(text, "l2_norm").expect("there is a list");
        assert_eq!(
            added,
            "fn a() {\n}\n\nops! {\n    leaf::Input,\n    l2_norm::L2Norm,\n}\n\nfn b() {\n}\n"
        );
        assert!(add_row("fn a() {}", "zip").is_err());
    }

    #[test]
    fn the_lists_of_the_tree_are_found() {
        assert!(add_row(&read(LIST).expect("it is there"), "zzz").is_ok());
        assert!(add_module(&read(&format!("{OPS}/mod.rs")).expect("it is there"), "zzz").is_ok());
    }
}
