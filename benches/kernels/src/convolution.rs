//! ResNet-18's convolutions one by one and in sequence, and a depthwise one.

use std::cell::RefCell;

use aneforge_kernels::conv::{ConvParams, Nhwc, PackedConv, conv2d, conv2d_nhwc};
use aneforge_kernels::{Epilogue, Kernels, Scratch, f16};

use crate::product::{fma_peak, label};
use crate::timing::{Variant, Work, measure};
use crate::{Bench, halves};

/// Of variants whose images lie pixel after pixel.
const PIXELS: &str = ", NHWC";

/// Channels in, size, channels out, kernel, stride, groups.
type Layer = [usize; 6];

/// The 20 convolutions in the order in which the network runs them.
fn resnet() -> Vec<Layer> {
    let mut layers = vec![[3, 224, 64, 7, 2, 1]];
    let (mut channels, mut size) = (64, 56);
    for stage in 0..4 {
        let outputs = 64 << stage;
        let stride = if stage == 0 { 1 } else { 2 };
        layers.push([channels, size, outputs, 3, stride, 1]);
        if stage > 0 {
            layers.push([channels, size, outputs, 1, stride, 1]);
        }
        (channels, size) = (outputs, size / stride);
        layers.extend([[channels, size, channels, 3, 1, 1]; 3]);
    }
    layers
}

struct Conv {
    input: [usize; 4],
    params: ConvParams,
    x: Vec<f16>,
    weights: PackedConv,
    out: Vec<f16>,
    /// Where the pixels of the image and of the result lie, with the halo that the convolution reads; else planes.
    views: Option<[Nhwc; 2]>,
}

impl Conv {
    fn new(layer: Layer, pixels: bool) -> Conv {
        let [channels, size, outputs, kernel, stride, groups] = layer;
        let params = ConvParams { stride: [stride; 2], pad: [kernel / 2; 4], dilation: [1, 1] };
        let [height, width] = params.output_size([size; 2], [kernel; 2]);
        let shape = [outputs, channels / groups, kernel, kernel];
        let scale = (1.0 / (channels * kernel * kernel / groups) as f32).sqrt();
        let weights = PackedConv::new(&halves(shape.iter().product(), 4, scale), shape, groups);
        let views = pixels.then(|| {
            [Nhwc::padded([size; 2], channels, params.pad), Nhwc::padded([height, width], outputs, [0; 4])]
        });
        // What lies in the halo makes no difference to the time.
        let [values, results] = views.map_or([channels * size * size, outputs * height * width], |views| {
            views.map(|view| view.len(1, stride))
        });
        let x = halves(values, 3, 1.0);
        Conv { input: [1, channels, size, size], params, x, weights, out: vec![f16::ZERO; results], views }
    }

    fn run(&mut self, kernels: &Kernels, scratch: &mut Scratch) {
        let (epilogue, params) = (Epilogue::default(), &self.params);
        if let Some([from, to]) = &self.views {
            let (x, out) = ((&self.x[..], from), (&mut self.out[..], to));
            return conv2d_nhwc(kernels, x, self.input, &self.weights, params, &epilogue, scratch, out);
        }
        conv2d(kernels, &self.x, self.input, &self.weights, params, &epilogue, scratch, &mut self.out);
    }
}

fn flops(layer: Layer) -> f64 {
    let [channels, size, outputs, kernel, stride, groups] = layer;
    2.0 * (channels / groups * kernel * kernel * outputs) as f64 * ((size / stride) as f64).powi(2)
}

fn node(layer: Layer) -> String {
    let [channels, size, outputs, kernel, stride, groups] = layer;
    let (pad, per_group) = (kernel / 2, channels / groups);
    format!(
        "{{\"kind\": \"Conv\", \"inputs\": [[1, {channels}, {size}, {size}]], \
         \"weights\": [[{outputs}, {per_group}, {kernel}, {kernel}]], \"attributes\": {{\"group\": {groups}, \
         \"kernel_shape\": [{kernel}, {kernel}], \"strides\": [{stride}, {stride}], \
         \"pads\": [{pad}, {pad}, {pad}, {pad}]}}}}"
    )
}

pub fn run(bench: &mut Bench) {
    let all = resnet();
    sequence(bench, "ResNet-18's 20 convolutions", &all);
    let mut seen: Vec<Layer> = Vec::new();
    for layer in all {
        if !seen.contains(&layer) {
            seen.push(layer);
            let [channels, size, outputs, kernel, stride, _] = layer;
            let name =
                format!("conv {channels}x{size}x{size} to {outputs}, {kernel}x{kernel} stride {stride}");
            sequence(bench, &name, &[layer]);
        }
    }
    sequence(bench, "depthwise conv 144x56x56, 3x3", &[[144, 56, 144, 3, 1, 144]]);
    sequence(bench, "depthwise conv 96x112x112, 3x3 stride 2", &[[96, 112, 96, 3, 2, 96]]);
}

fn sequence(bench: &mut Bench, name: &str, layers: &[Layer]) {
    if !bench.wants(name) {
        return;
    }
    let work: f64 = layers.iter().map(|&layer| flops(layer)).sum();
    let scratch = RefCell::new(Scratch::new());
    let mut variants = Vec::new();
    for kernels in bench.contexts() {
        let roof = format!("FMA peak {}", label(&kernels));
        for (pixels, suffix) in [(false, ""), (true, PIXELS)] {
            let mut convs: Vec<Conv> = layers.iter().map(|&layer| Conv::new(layer, pixels)).collect();
            let (scratch, context) = (&scratch, kernels.clone());
            let run = move || convs.iter_mut().for_each(|conv| conv.run(&context, &mut scratch.borrow_mut()));
            variants.push(Variant::new(label(&kernels) + suffix, run).under(roof.clone()));
        }
        variants.push(fma_peak(&kernels, work, roof));
    }
    let nodes: Vec<String> = layers.iter().map(|&layer| node(layer)).collect();
    variants.extend(bench.peers(&format!("[{}]", nodes.join(", "))));
    let mut row = measure(name, Work::Flops(work), bench.rounds, variants);
    if let (Some(peer), true) = (&bench.peer, layers.len() == 20) {
        row = row.mark(
            "5 times as fast as onnxruntime (on AMX-FP16)",
            &(label(&bench.best()) + PIXELS),
            &peer.name(),
            5.0,
        );
    }
    bench.push(row);
}
