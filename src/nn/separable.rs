//! Depthwise convolution with the pointwise ones around it, as one operation.
//!
//! On a CPU such a group of layers is bound by memory, not by arithmetic, when each layer is run
//! over the whole picture: between its layers are the most channels. Here a stripe of rows goes
//! through all layers while it lies in the core's second-level cache, and what is between the
//! layers never leaves it.

use std::cell::Cell;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::conv::{Conv2d, Weights, multiply};
use super::depthwise::{Depthwise, DepthwiseRows, Target};
use super::matrix::{Line, Packed, Product, Rows, ToBf16};
use super::pool::{MaxRow, max_pool_2x2};
use super::simd::{Isa, dispatch};
use super::team::{for_each_task, is_alone, threads};
use super::{
    Activation, LINE_VALUES, Output, OutputPtr, Padding, Precision, contiguous, nhwc, shaped,
};

/// An inverted residual block (Sandler et al.: "MobileNetV2", CVPR 2018) or a part of one:
/// pointwise convolution, depthwise convolution, pointwise convolution, and the block's input added
/// before the last activation.
pub struct Separable {
    expand: Option<Conv2d>,
    depthwise: Conv2d,
    project: Option<Conv2d>,
    residual: bool,
    max_pool: bool,
}

impl Separable {
    /// # Errors
    /// Layers that are not what their name says or that do not fit behind each other; a residual
    /// where there is no `project` or where the block changes the shape.
    pub fn new(
        expand: Option<Conv2d>,
        depthwise: Conv2d,
        project: Option<Conv2d>,
        residual: bool,
    ) -> Result<Self> {
        let channels = depthwise.channels;
        let Weights::Depthwise(depthwise_weights) = &depthwise.weights else {
            bail!("separable: the layer in the middle is not depthwise");
        };
        for (name, conv) in [("first", &expand), ("last", &project)] {
            if conv.as_ref().is_some_and(|conv| !conv.is_pointwise()) {
                bail!("separable: the {name} layer is not pointwise");
            }
        }
        let inputs = expand.as_ref().map_or(channels, |conv| conv.channels);
        if let Some(conv) = &expand
            && conv.out_channels != channels
        {
            bail!("separable: {} channels into a depthwise layer of {channels}", conv.out_channels);
        }
        // Channels are shared out in whole panels of both.
        let lanes = depthwise_weights.isa.lanes();
        if let Some((packed, _)) = expand.as_ref().and_then(Conv2d::matrix)
            && packed.isa().lanes() != lanes
        {
            bail!("separable: layers for vectors of {} and {lanes} values", packed.isa().lanes());
        }
        if let Some(conv) = &project
            && conv.channels != channels
        {
            bail!("separable: {channels} channels into a layer for {}", conv.channels);
        }
        if residual {
            let c = &depthwise.config;
            let (p, k) = (c.padding, depthwise.kernel);
            let same =
                c.stride == (1, 1) && p.top + p.bottom + 1 == k.0 && p.left + p.right + 1 == k.1;
            if !same || project.as_ref().map(|conv| conv.out_channels) != Some(inputs) {
                bail!(
                    "separable: a residual, but the block changes the shape or has no last layer"
                );
            }
        }
        Ok(Self { expand, depthwise, project, residual, max_pool: false })
    }

    /// The same with [`max_pool_2x2`] behind it.
    ///
    /// # Errors
    /// A block that ends in a pointwise convolution.
    pub fn with_max_pool(self) -> Result<Self> {
        if self.project.is_some() {
            bail!("separable: no pooling behind a pointwise convolution");
        }
        Ok(Self { max_pool: true, ..self })
    }

    /// [n, h, w, in] → [n, out_h, out_w, out].
    ///
    /// # Errors
    /// Another rank, type or number of channels; a padded picture smaller than the kernel.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if !x.device().is_cpu() {
            let inner = match &self.expand {
                Some(expand) => self.depthwise.forward(&expand.forward(x)?)?,
                None => self.depthwise.forward(x)?,
            };
            return match &self.project {
                Some(project) if self.residual => project.forward_add(&inner, x),
                Some(project) => project.forward(&inner),
                None if self.max_pool => max_pool_2x2(&inner),
                None => Ok(inner),
            };
        }
        let shape = self.out_shape(x.layout())?;
        shaped(&x.contiguous()?.apply_op1_no_bwd(self)?, shape.to_vec())
    }

    fn out_shape(&self, layout: &Layout) -> Result<[usize; 4]> {
        let [n, h, w, c] = nhwc("separable", layout)?;
        let inputs = self.expand.as_ref().map_or(self.depthwise.channels, |conv| conv.channels);
        if c != inputs {
            bail!("separable: input {:?}, expected {inputs} channels", [n, h, w, c]);
        }
        let [out_h, out_w] = self.depthwise.out_size([n, h, w])?;
        let channels =
            self.project.as_ref().map_or(self.depthwise.out_channels, |c| c.out_channels);
        if !self.max_pool {
            return Ok([n, out_h, out_w, channels]);
        }
        if out_h < 2 || out_w < 2 {
            bail!("separable: nothing to pool in [{n}, {out_h}, {out_w}, {channels}]");
        }
        Ok([n, out_h / 2, out_w / 2, channels])
    }
}

impl CustomOp1 for Separable {
    fn name(&self) -> &'static str {
        "separable"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let out_shape = self.out_shape(layout)?;
        let x = contiguous("separable", storage, layout)?;
        let [n, h, w, inputs] = nhwc("separable", layout)?;
        let Weights::Depthwise(depthwise) = &self.depthwise.weights else {
            bail!("separable: the layer in the middle is not depthwise");
        };
        let mut output = Output::new(out_shape.iter().product());
        let stages = Stages {
            expand: self.expand.as_ref().and_then(Conv2d::matrix),
            depthwise,
            padding: self.depthwise.config.padding,
            project: self.project.as_ref().and_then(Conv2d::matrix),
            input: x,
            size: [n, h, w],
            inputs,
            out_size: self.depthwise.out_size([n, h, w])?,
            residual: self.residual.then_some(x),
            max_pool: self.max_pool,
            out: output.ptr(),
        };
        stages.run();
        // SAFETY: `run` writes every row of every picture, all channels.
        Ok(unsafe { output.finish() })
    }
}

/// One call: the layers with their input and output. A plain depthwise convolution is one without
/// the pointwise layers.
pub(super) struct Stages<'a> {
    pub expand: Option<(&'a Packed, Activation)>,
    pub depthwise: &'a Depthwise,
    pub padding: Padding,
    pub project: Option<(&'a Packed, Activation)>,
    /// [n, h, w, inputs].
    pub input: &'a [f32],
    pub size: [usize; 3],
    pub inputs: usize,
    /// Of the depthwise layer.
    pub out_size: [usize; 2],
    /// Of the output's shape.
    pub residual: Option<&'a [f32]>,
    /// Whether 2×2 pixels become one in the end; only without the last layer.
    pub max_pool: bool,
    pub out: OutputPtr,
}

/// Bytes of padded rows between the first and the second layer that are in work at a time: they
/// share the second-level cache with what comes after and with the weights.
const STRIPE: usize = 384 * 1024;
/// Values between pixels of `channels` channels there: whole cache lines, an odd number of them,
/// so that neighbouring pixels do not fall on the same few places of the first-level cache.
fn pixel_stride(channels: usize) -> usize {
    (channels.div_ceil(LINE_VALUES) | 1) * LINE_VALUES
}

/// A picture of at most so many input pixels is taken whole, some channels at a time; a larger one
/// in stripes of rows, all channels at a time.
const SMALL: usize = 24 * 24;
/// Tasks a thread, so that threads end together.
const TASKS: usize = 2;

/// Buffers that a thread keeps between calls, because fresh pages cost more than the work in them.
/// Each is as large as the largest use so far: a stripe, or some channels of all small pictures of
/// a call.
#[derive(Default)]
struct Scratch {
    padded: Vec<Line>,
    inner: Vec<Line>,
    fill: FillScratch,
}

/// What [`Stages::fill`] needs: rounded input, and the places of the first layer's results with
/// what they were made for (rows, width, line, pixel).
#[derive(Default)]
struct FillScratch {
    pairs: Vec<Line>,
    places: Vec<usize>,
    places_of: [usize; 4],
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
}

thread_local! {
    /// What all tasks of one call write to.
    static SMALL_INNER: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

fn with_scratch(run: impl FnOnce(&mut Scratch)) {
    // Taken out, so that a task that this thread picks up meanwhile finds an empty one.
    let mut scratch = SCRATCH.take();
    run(&mut scratch);
    SCRATCH.set(scratch);
}

/// Room for `values` values of 4 bytes, with whatever was left in it.
pub(super) fn room(buffer: &mut Vec<Line>, values: usize) -> *mut f32 {
    let lines = values.div_ceil(16);
    if buffer.len() < lines {
        buffer.resize(lines, Line::default());
    }
    buffer.as_mut_ptr().cast()
}

impl Stages<'_> {
    pub fn run(&self) {
        let [n, h, w] = self.size;
        if n * self.out_size[0] * self.out_size[1] == 0 {
            return;
        }
        if h * w <= SMALL && self.project.is_some() {
            self.small();
            return;
        }
        let unit = if self.max_pool { 2 } else { 1 };
        let out_h = self.out_size[0] / unit * unit;
        let kernel = self.depthwise.kernel.0;
        // Each task repeats the first layer for the rows that its kernel shares with the task
        // before, so there are only as many as threads, unless that is next to nothing.
        let mut parts = threads().div_ceil(n);
        if out_h / (TASKS * parts) >= 8 * kernel {
            parts *= TASKS;
        }
        if is_alone() {
            parts = 1;
        }
        let parts = parts.min(out_h / kernel).max(1);
        let rows = out_h.div_ceil(parts).next_multiple_of(unit);
        let parts = out_h.div_ceil(rows);
        for_each_task(n * parts, |t| {
            let from = t % parts * rows;
            with_scratch(|s| self.stripes(s, t / parts, from..(from + rows).min(out_h)));
        });
    }

    /// Rows and columns of zeros included.
    fn padded_w(&self) -> usize {
        self.size[2] + self.padding.left + self.padding.right
    }

    /// Whether what goes into the last layer is bf16, and how many values a pixel of it has.
    fn inner(&self) -> (bool, usize) {
        let c = self.depthwise.c;
        match &self.project {
            Some((packed, _)) if packed.precision() == Precision::Bf16 => {
                (true, c.next_multiple_of(2))
            }
            _ => (false, c),
        }
    }

    /// The set that the depthwise layer runs with: where its result is rounded to bf16, that of
    /// the last layer, which has the instruction. In f32 both are the same.
    fn depthwise_isa(&self) -> Isa {
        match &self.project {
            Some((packed, _)) if packed.isa().lanes() == self.depthwise.isa.lanes() => packed.isa(),
            _ => self.depthwise.isa,
        }
    }

    /// Output rows `rows` of picture `image`, stripe by stripe.
    fn stripes(&self, scratch: &mut Scratch, image: usize, rows: std::ops::Range<usize>) {
        let [out_h, out_w] = self.out_size;
        let (c, (kh, _), (stride, _)) =
            (self.depthwise.c, self.depthwise.kernel, self.depthwise.stride);
        let pixel = pixel_stride(c);
        let line = self.padded_w() * pixel;
        // Output rows a stripe.
        let fits = (STRIPE / (line * size_of::<f32>()).max(1)).max(kh);
        let mut height = ((fits - kh) / stride + 1).min(rows.len());
        if self.max_pool {
            height = (height / 2 * 2).max(2);
        }
        let padded = room(&mut scratch.padded, ((height - 1) * stride + kh) * line);
        let (bf16, width) = self.inner();
        let has_inner = self.project.is_some() || self.max_pool;
        let inner_values =
            if bf16 { (height * out_w * width).div_ceil(2) } else { height * out_w * width };
        if bf16 && width > c {
            // The last value of a pixel is never written.
            scratch.inner.fill(Line::default());
        }
        let inner = room(&mut scratch.inner, if has_inner { inner_values } else { 0 });

        // Padded rows from `top` on are in the buffer up to `done`.
        let mut done = rows.start * stride;
        let mut top = done;
        let mut from = rows.start;
        while from < rows.end {
            let to = (from + height).min(rows.end);
            let first = from * stride;
            let last = (to - 1) * stride + kh;
            // What the last stripe left over comes to the front.
            if done > first {
                // SAFETY: both ranges lie in the buffer; `copy` allows them to overlap.
                unsafe {
                    std::ptr::copy(padded.add((first - top) * line), padded, (done - first) * line);
                }
            } else {
                done = first;
            }
            top = first;
            // SAFETY: rows top..last fit into the buffer, by its size.
            unsafe {
                self.fill(
                    &mut scratch.fill,
                    [image, 1],
                    done..last,
                    padded.add((done - top) * line),
                    pixel,
                    0..c,
                );
            }
            done = last;

            let pixels = (to - from) * out_w;
            let at = (image * out_h + from) * out_w;
            let work = |target, residual| DepthwiseRows {
                op: self.depthwise,
                channels: 0..c,
                input: padded,
                pixel,
                line,
                rows: to - from,
                out_w,
                target,
                residual,
            };
            // SAFETY: the set was checked when the layers were made; the buffers hold what the
            // sizes above say; these output rows belong to this task.
            unsafe {
                match &self.project {
                    None if self.max_pool => {
                        let target = Target::F32 { to: inner, stride: c };
                        dispatch(self.depthwise.isa, work(target, None));
                        for pair in 0..(to - from) / 2 {
                            let at = (image * (out_h / 2) + from / 2 + pair) * (out_w / 2) * c;
                            let rows = inner.add(2 * pair * out_w * c);
                            let rows = std::slice::from_raw_parts(rows, 2 * out_w * c);
                            let work =
                                MaxRow { rows, w: out_w, c, out_w: out_w / 2, out: self.out, at };
                            dispatch(self.depthwise.isa, work);
                        }
                    }
                    None => {
                        let residual = self.residual.map(|r| r.as_ptr().add(at * c));
                        let target = Target::F32 { to: self.out.at(at * c), stride: c };
                        dispatch(self.depthwise.isa, work(target, residual));
                    }
                    Some((packed, activation)) => {
                        let target = if bf16 {
                            Target::Bf16 { to: inner.cast(), stride: width }
                        } else {
                            Target::F32 { to: inner, stride: width }
                        };
                        dispatch(self.depthwise_isa(), work(target, None));
                        let out = packed.out;
                        let product = Product {
                            weights: packed,
                            input: Rows::dense(inner, packed.steps()),
                            segments: 1,
                            segment_stride: 0,
                            rows: 0..pixels,
                            panels: 0..packed.panels(),
                            output: Rows::dense(self.out.at(at * out), out),
                            residual: self
                                .residual
                                .map(|r| Rows::dense(r.as_ptr().add(at * out), out)),
                            activation: *activation,
                        };
                        dispatch(packed.isa(), product);
                    }
                }
            }
            from = to;
        }
    }

    /// All pictures whole: the first two layers for some channels at a time, then the last.
    fn small(&self) {
        let Some((packed, activation)) = &self.project else { return };
        let [n, h, _] = self.size;
        let [out_h, out_w] = self.out_size;
        let c = self.depthwise.c;
        let padded_h = h + self.padding.top + self.padding.bottom;
        let plane = padded_h * self.padded_w();
        let (bf16, width) = self.inner();
        let pixels = n * out_h * out_w;
        let values = if bf16 { (pixels * width).div_ceil(2) } else { pixels * width };
        let mut buffer = SMALL_INNER.take();
        if bf16 && width > c {
            buffer.fill(Line::default());
        }
        let inner = OutputPtr(room(&mut buffer, values));

        // Channels a task: whole panels of the first layer.
        let panel = 2 * self.depthwise.isa.lanes();
        let mut slab = (STRIPE / (n * plane * size_of::<f32>()).max(1)).max(1);
        if !is_alone() {
            slab = slab.min(c.div_ceil(TASKS * threads()));
        }
        let slab = slab.next_multiple_of(panel).min(c);
        let slabs = c.div_ceil(slab);
        let task = |scratch: &mut Scratch, t: usize| {
            let channels = t * slab..((t + 1) * slab).min(c);
            let pixel = pixel_stride(channels.len());
            let padded = room(&mut scratch.padded, n * plane * pixel);
            // SAFETY: the buffer holds all pictures with their zeros; the set was checked when the
            // layers were made; each task has its own channels of `inner`.
            unsafe {
                self.fill(&mut scratch.fill, [0, n], 0..padded_h, padded, pixel, channels.clone());
                for image in 0..n {
                    let at = image * out_h * out_w * width + channels.start;
                    let target = if bf16 {
                        Target::Bf16 { to: inner.0.cast::<u16>().add(at), stride: width }
                    } else {
                        Target::F32 { to: inner.at(at), stride: width }
                    };
                    let work = DepthwiseRows {
                        op: self.depthwise,
                        channels: channels.clone(),
                        input: padded.add(image * plane * pixel),
                        pixel,
                        line: self.padded_w() * pixel,
                        rows: out_h,
                        out_w,
                        target,
                        residual: None,
                    };
                    dispatch(self.depthwise_isa(), work);
                }
            }
        };
        for_each_task(slabs, |t| with_scratch(|s| task(s, t)));
        multiply(packed, inner.0, pixels, self.residual, self.out, *activation);
        SMALL_INNER.set(buffer);
    }

    /// Writes padded rows `rows` of the pictures `[first, number]` to `to`: what the first layer
    /// makes of the input (the input itself where there is no such layer), and zeros around it.
    /// Pixels hold the `channels` alone and are `pixel` values apart.
    ///
    /// # Safety
    /// `to` has room for these rows of all these pictures.
    unsafe fn fill(
        &self,
        scratch: &mut FillScratch,
        [first, number]: [usize; 2],
        rows: std::ops::Range<usize>,
        to: *mut f32,
        pixel: usize,
        channels: std::ops::Range<usize>,
    ) {
        let [_, h, w] = self.size;
        let p = self.padding;
        let line = self.padded_w() * pixel;
        // Rows of the picture among them.
        let from = rows.start.clamp(p.top, p.top + h);
        let end = rows.end.clamp(from, p.top + h);
        for image in 0..number {
            for row in rows.clone() {
                // SAFETY: the caller's promise.
                unsafe {
                    let at = to.add((image * rows.len() + row - rows.start) * line);
                    if (from..end).contains(&row) {
                        at.write_bytes(0, p.left * pixel);
                        at.add((p.left + w) * pixel).write_bytes(0, p.right * pixel);
                    } else {
                        at.write_bytes(0, line);
                    }
                }
            }
        }
        if from == end {
            return;
        }
        let count = end - from;
        // Of the first pixel of `row` of a picture in `to`.
        let start = |image: usize, row: usize| {
            (image * rows.len() + row - rows.start) * line + p.left * pixel
        };
        let Some((packed, activation)) = &self.expand else {
            for image in 0..number {
                for row in from..end {
                    let x = ((first + image) * h + row - p.top) * w * self.inputs + channels.start;
                    // SAFETY: as above; the input holds w pixels from there.
                    unsafe {
                        let (x, at) = (self.input.as_ptr().add(x), to.add(start(image, row)));
                        if pixel == self.inputs && channels.len() == self.inputs {
                            x.copy_to_nonoverlapping(at, w * pixel);
                        } else {
                            for i in 0..w {
                                x.add(i * self.inputs)
                                    .copy_to_nonoverlapping(at.add(i * pixel), channels.len());
                            }
                        }
                    }
                }
            }
            return;
        };
        // Where the pixels' results go, from the first pixel on. The same for all stripes of a
        // call, but for their number.
        let [_, of @ ..] = scratch.places_of;
        if of != [w, line, pixel] || scratch.places_of[0] < count {
            scratch.places_of = [count, w, line, pixel];
            scratch.places.clear();
            let places = (0..count).flat_map(|y| (0..w).map(move |i| y * line + i * pixel));
            scratch.places.extend(places);
        }
        let FillScratch { pairs, places, .. } = scratch;
        for image in 0..number {
            let x = ((first + image) * h + from - p.top) * w * self.inputs;
            // SAFETY: the input holds `count` rows from there; the table leads into the buffer.
            unsafe {
                let mut x = self.input.as_ptr().add(x);
                if packed.precision() == Precision::Bf16 {
                    let k = self.inputs;
                    let to = room(pairs, count * w * k.next_multiple_of(2) / 2);
                    let to_bf16 = ToBf16 { from: x, to: to.cast(), rows: count * w, k };
                    dispatch(packed.isa(), to_bf16);
                    x = to;
                }
                let product = Product {
                    weights: packed,
                    input: Rows::dense(x, packed.steps()),
                    segments: 1,
                    segment_stride: 0,
                    rows: 0..count * w,
                    panels: channels.start / packed.panel_width()
                        ..channels.end.div_ceil(packed.panel_width()),
                    // Channel 0 may lie before the buffer.
                    output: Rows::listed(
                        to.wrapping_add(start(image, from)).wrapping_sub(channels.start),
                        places,
                    ),
                    residual: None,
                    activation: *activation,
                };
                dispatch(packed.isa(), product);
            }
        }
    }
}
