//! A diagnosis as one page of HTML that stands alone.

use super::report::NodeReport;
use super::{AllChips, Diagnosis, Verdict};
use std::fmt::Write;

/// Extents of the picture, in pixels.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 220.0;
/// Powers of ten between its lower and its upper edge.
const LOW: f64 = -6.0;
const HIGH: f64 = 1.0;

/// A diagnosis.
pub(super) fn page(found: &Diagnosis) -> String {
    begun() + &body(found) + "</html>\n"
}

/// All chips, then what was found for each family.
pub(super) fn all_chips(found: &AllChips) -> String {
    let mut page = begun();
    let _ = writeln!(page, "<h1>{}</h1>", escaped(&found.place()));
    page += "<table><tr><th>chip<th>family<th>verdict<th>estimate<th>why</tr>\n";
    for chip in &found.chips {
        let class = if chip.verdict == Verdict::Safe { "" } else { " class=\"bad\"" };
        let time = chip.time();
        let (name, family, verdict) = (chip.target.name(), chip.target.family(), chip.verdict.name());
        let why = escaped(chip.verdict.why());
        let _ = writeln!(
            page,
            "<tr{class}><td>{name}<td>{family}<td>{verdict}<td class=\"n\">{time}<td>{why}</tr>"
        );
    }
    page += "</table>\n";
    found.families.iter().for_each(|family| page += &body(family));
    page + "</html>\n"
}

fn begun() -> String {
    String::from(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>aneforge diagnose</title>\n<style>\
         body{font:14px/1.4 sans-serif;margin:2em;max-width:70em}table{border-collapse:collapse;width:100%}\
         td,th{padding:2px 8px;text-align:left;border-bottom:1px solid #ddd}td.n{text-align:right;\
         font-variant-numeric:tabular-nums}tr.bad{background:#fde8e8}code{background:#f4f4f4}</style>\n",
    )
}

fn body(found: &Diagnosis) -> String {
    let mut page = String::new();
    let _ = writeln!(page, "<h1>{}</h1>", escaped(&found.headline()));
    let _ = writeln!(
        page,
        "<p>Every node in half precision, with the published behaviour of this family, against double precision. None of \
         it has run on an engine.</p>\n{}",
        curve(found)
    );
    for node in found.troubled() {
        let _ = writeln!(page, "<p><b><code>{}</code></b> at {}", node.op, escaped(&node.at.to_string()));
        for trouble in &node.troubles {
            let (name, values) = (trouble.trouble.name(), trouble.values);
            let _ = write!(page, "<br>{name}, {values} of {} values", node.ty.shape.count());
            if !trouble.remedy.is_empty() {
                let _ = write!(page, ": {}", escaped(&trouble.remedy));
            }
        }
        page += "</p>\n";
    }
    for note in found.notes.iter().filter(|note| note.risk) {
        let _ = writeln!(page, "<p>Note: {}</p>", escaped(&note.to_string()));
    }
    page += "<table><tr><th>node<th>op<th>type<th>line<th>largest<th>relative error<th>troubles</tr>\n";
    for (at, node) in found.nodes.iter().enumerate() {
        row(&mut page, at, node);
    }
    page + "</table>\n"
}

fn row(page: &mut String, at: usize, node: &NodeReport) {
    let troubles: Vec<&str> = node.troubles.iter().map(|trouble| trouble.trouble.name()).collect();
    let class = if troubles.is_empty() { "" } else { " class=\"bad\"" };
    let (line, ty) = (escaped(&node.at.to_string()), escaped(&node.ty.to_string()));
    let _ = writeln!(
        page,
        "<tr{class}><td class=\"n\">{at}<td><code>{}</code><td>{ty}<td>{line}<td class=\"n\">{:.4}<td class=\"n\">{:.2e}<td>{}</tr>",
        node.op,
        node.largest,
        node.error,
        troubles.join(", ")
    );
}

/// The relative error of every node, with the tolerance as a line and nodes in trouble as dots.
fn curve(found: &Diagnosis) -> String {
    let x = |at: usize| 40.0 + (WIDTH - 50.0) * at as f64 / found.nodes.len().saturating_sub(1).max(1) as f64;
    let y = |error: f64| {
        let power = error.max(1e-300).log10().clamp(LOW, HIGH);
        10.0 + (HEIGHT - 20.0) * (HIGH - power) / (HIGH - LOW)
    };
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"relative error of each node\">"
    );
    for power in LOW as i32..=HIGH as i32 {
        let y = y(10f64.powi(power));
        let _ = write!(
            svg,
            "<line x1=\"40\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#eee\"/>\
             <text x=\"2\" y=\"{:.1}\" font-size=\"10\">1e{power}</text>",
            y + 3.0
        );
    }
    let at = y(found.tolerance);
    let _ = write!(
        svg,
        "<line x1=\"40\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#c00\" stroke-dasharray=\"4\"/>"
    );
    let points: Vec<String> = found
        .nodes
        .iter()
        .enumerate()
        .map(|(at, node)| format!("{:.1},{:.1}", x(at), y(node.error)))
        .collect();
    let _ = write!(svg, "<polyline fill=\"none\" stroke=\"#08519c\" points=\"{}\"/>", points.join(" "));
    for (at, node) in found.nodes.iter().enumerate().filter(|(_, node)| !node.troubles.is_empty()) {
        let title = escaped(&format!("{}: {}", node.op, node.troubles[0].trouble.name()));
        let _ = write!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"#c00\"><title>{title}</title></circle>",
            x(at),
            y(node.error)
        );
    }
    svg + "</svg>"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
