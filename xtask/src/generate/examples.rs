//! One example per op, in Python, made from the op's first case.

use super::python_ops::{is_by_hand, is_function};
use aneforge::DType;
use aneforge::ir::attr::Attr;
use aneforge::ir::op::{Case, Entry, Info};

/// How ops that `python/aneforge` writes by hand are called. Inputs go by their declared names; `ones(SHAPE)`
/// stands where the case has a constant, `{name}` for an attribute of the case.
const CALLS: &[(&str, &str)] = &[
    ("add", "x + y"),
    ("sub", "x - y"),
    ("mul", "x * y"),
    ("real_div", "x / y"),
    ("maximum", "af.maximum(x, y)"),
    ("minimum", "af.minimum(x, y)"),
    ("pow", "x**y"),
    ("greater", "af.select(x.greater(y), x, y)"),
    ("less", "af.select(x.less(y), x, y)"),
    ("equal", "af.select(x.equal(y), x, y)"),
    ("not_equal", "af.select(x.not_equal(y), x, y)"),
    ("less_equal", "af.select(x.less_equal(y), x, y)"),
    ("greater_equal", "af.select(x.greater_equal(y), x, y)"),
    ("select", "af.select(cond, a, b)"),
    ("prelu", "x.prelu(alpha)"),
    ("matmul", "x.linear(weight)"),
    ("bmm", "x @ y"),
    ("bmm_w", "x.bmm_weight(weight)"),
    ("einsum", "af.einsum_native(\"nchw,nwhu->nchu\", a, b)"),
    ("attention", "af.sdpa(query, key, value)"),
    ("conv", "af.conv(x, weight, pad=1)"),
    ("dynamic_conv", "af.dynamic_conv(x, weight, pad=1)"),
    ("conv_transpose", "af.conv_transpose(x, weight)"),
    ("max_pool", "x.max_pool(2)"),
    ("avg_pool", "x.avg_pool(2)"),
    ("layer_norm", "x.layer_norm(gamma, beta)"),
    ("rms_norm", "x.rms_norm(gamma)"),
    ("channel_layer_norm", "x.channel_layer_norm(gamma, beta)"),
    ("group_norm", "x.group_norm(gamma, beta, num_groups={num_groups})"),
    ("batch_norm", "af.batch_norm(x, gamma, beta, mean, variance)"),
    ("instance_norm", "af.instance_norm(x, gamma, beta)"),
    ("local_response_norm", "af.local_response_norm(x, size={size})"),
    ("reshape", "x.reshape(3, -1)"),
    ("transpose", "x.transpose{perm}"),
    ("flatten", "af.flatten(x)"),
    ("crop", "af.crop(x, top=1, bottom=2, left=2, right=1)"),
    ("split", "af.split(x, {num_splits}, axis={axis})[{index}]"),
    ("concat", "af.concat([values, values], axis={axis})"),
    ("stack", "af.stack([values, values], axis={axis})"),
    ("pixel_shuffle", "af.pixel_shuffle(x, {r})"),
    ("pixel_unshuffle", "af.pixel_unshuffle(x, {r})"),
    ("depth_to_space", "af.depth_to_space(x, {block_size})"),
    ("space_to_depth", "af.space_to_depth(x, {block_size})"),
    ("upsample_bilinear", "af.upsample_bilinear(x, {scale})"),
    ("resize_nearest_neighbor", "af.resize_nearest_neighbor(x, {target_h}, {target_w})"),
    ("resize_bilinear", "af.resize_bilinear(x, {target_h}, {target_w})"),
    ("affine", "af.affine(x, transform, {output_h}, {output_w})"),
    ("sdpa", "af.sdpa(query, key, value)"),
];

/// Lines of an example that ends in a tensor called `out`; `None` for ops that compiling alone makes.
pub fn example(entry: &Entry) -> Option<Vec<String>> {
    let name = entry.info.name;
    match name {
        "input" => return Some(vec!["out = af.input((1, 4))".into()]),
        "const_array" => return Some(vec!["out = af.input((2, 2)) + np.eye(2)".into()]),
        _ => {}
    }
    let case = (entry.cases)().into_iter().next()?;
    let call = match CALLS.iter().find(|(op, _)| *op == name) {
        Some((_, call)) => filled(call, &case),
        None if is_by_hand(entry) => return None,
        None => made(entry, &case),
    };
    let mut lines: Vec<String> = Vec::new();
    for (i, ty) in case.inputs.iter().enumerate() {
        let Some(input) = input_name(&entry.info, i).filter(|input| mentions(&call, input)) else { continue };
        let shape = tuple(ty.shape.dims());
        let line = match ty.dtype {
            DType::Bool => format!("{input} = af.input({shape}).greater(af.input({shape}))"),
            DType::U8 => format!("{input} = af.input({shape}, \"uint8\")"),
            _ if i >= case.constants_from => format!("{input} = np.ones({shape})"),
            _ => format!("{input} = af.input({shape})"),
        };
        lines.push(line);
    }
    lines.push(format!("out = {call}"));
    Some(lines)
}

fn input_name(info: &Info, index: usize) -> Option<&'static str> {
    info.inputs.get(index).map(|name| name.trim_end_matches(['?', '.']))
}

/// Whether a call has `name` as a word of its own.
fn mentions(call: &str, name: &str) -> bool {
    call.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
}

/// A call with the case's attributes in their places.
fn filled(call: &str, case: &Case) -> String {
    case.op
        .attrs()
        .iter()
        .fold(call.to_owned(), |call, (name, attr)| call.replace(&format!("{{{name}}}"), &python(attr)))
}

/// A call of the method or function that is generated from the declaration.
fn made(entry: &Entry, case: &Case) -> String {
    let name = entry.info.method;
    let attrs: Vec<String> = case.op.attrs().iter().map(|(k, v)| format!("{k}={}", python(v))).collect();
    if !is_function(entry) {
        return format!("x.{name}({})", attrs.join(", "));
    }
    let inputs = (0..entry.info.inputs.len()).filter_map(|i| input_name(&entry.info, i)).map(str::to_owned);
    format!("af.{name}({})", inputs.chain(attrs).collect::<Vec<_>>().join(", "))
}

fn python(attr: &Attr) -> String {
    match attr {
        Attr::Bool(true) => "True".into(),
        Attr::Bool(false) => "False".into(),
        Attr::Ints(v) => tuple(&v.iter().map(|&i| i as isize).collect::<Vec<_>>()),
        other => other.to_string(),
    }
}

fn tuple<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(T::to_string).collect();
    let comma = if items.len() == 1 { "," } else { "" };
    format!("({}{comma})", items.join(", "))
}
