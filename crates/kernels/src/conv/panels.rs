//! Convolutions as products: rows are output channels, columns are pixels gathered from the padded image.

use half::f16;

use super::image::{Geometry, PANEL_SLACK, fill_image};
use super::{PackedConv, group_epilogue};
use crate::gemm::row_groups;
use crate::order::{BLOCK, conv_term};
use crate::simd::{COLUMNS, Cuts, Grid, Lanes, Lines, Panel, ROWS, Simd, Task, Tile, chunks, micro, tiles};
use crate::{Epilogue, Kernels};

/// Blocks of terms multiplied at a time: this part of a panel and of the weights stays in the first-level cache.
const DEPTH: usize = 8;
/// Values of all panels up to which they are gathered at once, for all threads.
const SHARED: usize = 640 << 10;
/// Values of the panels of one tile.
const TILE: usize = 192 << 10;
/// Most panels of one tile.
const MOST_PANELS: usize = 4;
/// Converted weights of one group of rows.
const WEIGHTS: usize = ROWS * DEPTH * BLOCK;

/// Per group the rows of [`row_groups`], each `[block][row][32]`.
pub(super) fn pack(conv: &PackedConv, weight: impl Fn(usize, [usize; 3]) -> f16) -> Lines {
    let (terms, per_group) = (conv.terms(), conv.outputs_per_group());
    let rows = row_groups(per_group);
    let mut data = Lines::zeroed((conv.outputs * terms).div_ceil(2));
    let mut values = data.halves_mut().iter_mut();
    for (group, part) in (0..conv.groups).flat_map(|group| (0..rows.parts).map(move |part| (group, part))) {
        for (block, row) in (0..terms / BLOCK).flat_map(|block| rows.range(part).map(move |row| (block, row)))
        {
            for (k, value) in values.by_ref().take(BLOCK).enumerate() {
                if let Some(tap) = conv_term(block * BLOCK + k, conv.channels, conv.kernel) {
                    *value = weight(group * per_group + row, tap);
                }
            }
        }
    }
    data
}

/// How one image is cut.
struct Plan {
    /// Values of one gathered panel.
    panel: usize,
    /// Panels of one group.
    panels: usize,
    /// Panels of one tile; all of them when they are gathered at once.
    per_tile: usize,
    shared: bool,
    grid: Grid,
    per_worker: usize,
}

impl Plan {
    fn new(conv: &PackedConv, geometry: &Geometry, threads: usize) -> Plan {
        let panel = conv.terms() * COLUMNS + PANEL_SLACK;
        let panels = geometry.pixels().div_ceil(COLUMNS);
        let shared = conv.groups * panels * panel <= SHARED;
        let per_tile =
            if shared { panels } else { (TILE / panel).clamp(1, MOST_PANELS).min(panels.div_ceil(threads)) };
        let groups = row_groups(conv.outputs_per_group());
        let column_parts = panels.div_ceil(per_tile);
        let items = column_parts * conv.groups;
        let row_parts = if threads == 1 || items >= 8 * threads {
            1
        } else {
            (4 * threads).div_ceil(items).min(groups.parts)
        };
        let grid = Grid {
            batches: conv.groups,
            rows: Cuts::grouped(groups, row_parts),
            columns: Cuts::new(geometry.pixels(), per_tile * COLUMNS, column_parts),
        };
        let rows = (groups.parts.div_ceil(row_parts) + 1) * ROWS;
        let own = if shared { 0 } else { per_tile * panel };
        Plan { panel, panels, per_tile, shared, grid, per_worker: rows * per_tile * COLUMNS + WEIGHTS + own }
    }

    fn shared_len(&self) -> usize {
        if self.shared { self.grid.batches * self.panels * self.panel } else { 0 }
    }
}

pub(super) fn scratch_len(conv: &PackedConv, geometry: &Geometry, threads: usize) -> usize {
    let plan = Plan::new(conv, geometry, threads);
    geometry.image_len() + plan.shared_len() + plan.per_worker * threads
}

/// One image.
pub(super) fn conv2d(
    kernels: &Kernels,
    x: &[f16],
    geometry: &Geometry,
    (conv, weights): (&PackedConv, &Lines),
    epilogue: &Epilogue<'_>,
    scratch: &mut [f32],
    out: &mut [f16],
) {
    let (image, scratch) = scratch.split_at_mut(geometry.image_len());
    fill_image(kernels, x, geometry, conv.channels * conv.groups, image);
    let (simd, image) = (kernels.simd, &*image);
    let plan = Plan::new(conv, geometry, kernels.pool.threads());
    let (shared, scratch) = scratch.split_at_mut(plan.shared_len());
    let pixels = |panel: usize| panel * COLUMNS..((panel + 1) * COLUMNS).min(geometry.pixels());
    chunks(&kernels.pool, shared, plan.panel, |start, part| {
        for (index, panel) in part.chunks_exact_mut(plan.panel).enumerate() {
            let index = start / plan.panel + index;
            geometry.gather(simd, image, conv, index / plan.panels, pixels(index % plan.panels), panel);
        }
    });
    let shared = &*shared;
    let (per_group, terms) = (conv.outputs_per_group(), conv.terms());
    tiles(&kernels.pool, out, plan.grid, (scratch, plan.per_worker), |tile, scratch| {
        let first = tile.batch() * per_group;
        let epilogue = group_epilogue(epilogue, first, per_group);
        let (sums, scratch) = scratch.split_at_mut(tile.rows().len() * plan.per_tile * COLUMNS);
        let (part, own) = scratch.split_at_mut(WEIGHTS);
        let panels = if plan.shared {
            &shared[tile.batch() * plan.panels * plan.panel..][..plan.panels * plan.panel]
        } else {
            let columns = tile.columns();
            for (start, panel) in columns.clone().step_by(COLUMNS).zip(own.chunks_exact_mut(plan.panel)) {
                let pixels = start..(start + COLUMNS).min(columns.end);
                geometry.gather(simd, image, conv, tile.batch(), pixels, panel);
            }
            &*own
        };
        let weights = &weights.halves()[first * terms..(first + per_group) * terms];
        Product { simd, weights, terms, panels, panel: plan.panel }.run(part, sums, &epilogue, tile);
    });
}

/// The rows of a tile times its panels.
struct Product<'a> {
    simd: Simd,
    weights: &'a [f16],
    terms: usize,
    panels: &'a [f32],
    panel: usize,
}

impl Product<'_> {
    fn run(&self, part: &mut [f32], sums: &mut [f32], epilogue: &Epilogue<'_>, tile: &mut Tile<'_, f16>) {
        let (rows, columns) = (tile.rows(), tile.columns());
        let count = columns.len().div_ceil(COLUMNS);
        let sums = &mut sums.as_chunks_mut::<COLUMNS>().0[..count * rows.len()];
        sums.fill([0.0; COLUMNS]);
        let groups = row_groups(self.weights.len() / self.terms.max(1));
        let blocks = self.terms / BLOCK;
        for first in (0..blocks).step_by(DEPTH) {
            let last = (first + DEPTH).min(blocks);
            for group in groups.inside(&rows) {
                let size = group.len();
                let at = group.start * self.terms;
                let source = &self.weights[at + first * size * BLOCK..at + last * size * BLOCK];
                let part = &mut part[..source.len()];
                self.simd.run(Widen { source, target: part });
                let panels = self.panels.chunks_exact(self.panel).zip(sums.chunks_exact_mut(rows.len()));
                for (panel, sums) in panels {
                    let panel = Panel::F32(&panel[first * BLOCK * COLUMNS..last * BLOCK * COLUMNS]);
                    micro(self.simd, part, size, panel, &mut sums[group.start - rows.start..]);
                }
            }
        }
        for (start, sums) in columns.clone().step_by(COLUMNS).zip(sums.chunks_exact(rows.len())) {
            let range = start..(start + COLUMNS).min(columns.end);
            epilogue.store(self.simd, sums, (rows.clone(), range), tile);
        }
    }
}

struct Widen<'a> {
    source: &'a [f16],
    target: &'a mut [f32],
}

impl Task for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        L::widen(self.source, self.target);
    }
}
