//! Pooling and resizing.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};

#[cfg(feature = "cuda")]
use super::cuda;
use super::simd::{Isa, Kernel, Simd, dispatch};
use super::team::for_each_task;
use super::{Output, OutputPtr, contiguous, nhwc, shaped};

/// Output values in a task.
const BLOCK: usize = 32 * 1024;

/// Maximum over 2×2 pixels with stride 2: [n, h, w, c] → [n, h / 2, w / 2, c]. An odd last row or
/// column is left out.
///
/// # Errors
/// Another rank or type; a picture less than 2 pixels high or wide.
pub fn max_pool_2x2(x: &Tensor) -> Result<Tensor> {
    let raw = x.contiguous()?.apply_op1_no_bwd(&MaxPool2x2)?;
    let (n, h, w, c) = x.dims4()?;
    shaped(&raw, (n, h / 2, w / 2, c))
}

/// Maximum over `k` neighbouring columns with stride `k`: [n, h, w, c] → [n, h, w / k, c]. Columns
/// that are left at the end are left out. On the CPU only.
///
/// # Errors
/// Another rank or type; a picture less than `k` pixels wide; a `k` of 0.
pub fn max_pool_columns(x: &Tensor, k: usize) -> Result<Tensor> {
    let raw = x.contiguous()?.apply_op1_no_bwd(&MaxPoolColumns(k))?;
    let (n, h, w, c) = x.dims4()?;
    shaped(&raw, (n, h, w / k, c))
}

/// `x` plus `small` with each pixel of `small` repeated 2×2: [n, h, w, c] and
/// [n, h / 2, w / 2, c] → [n, h, w, c].
///
/// # Errors
/// Other shapes or types.
pub fn upsample_2x_add(x: &Tensor, small: &Tensor) -> Result<Tensor> {
    let raw = x.contiguous()?.apply_op2_no_bwd(&small.contiguous()?, &Upsample2xAdd)?;
    shaped(&raw, x.shape())
}

/// Mean over height and width: [n, h, w, c] → [n, c].
///
/// # Errors
/// Another rank or type; an empty picture.
pub fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1_no_bwd(&Statistics { eps: None })
}

/// Mean and standard deviation over height and width: [n, h, w, c] → [n, 2 * c], means first. The
/// deviation is `sqrt(v + eps)`, `v` the population variance, computed around the mean.
///
/// # Errors
/// Another rank or type; an empty picture.
pub fn mean_std_pool(x: &Tensor, eps: f32) -> Result<Tensor> {
    x.contiguous()?.apply_op1_no_bwd(&Statistics { eps: Some(eps) })
}

struct MaxPool2x2;

impl MaxPool2x2 {
    fn shape(layout: &Layout) -> Result<[usize; 4]> {
        let shape = nhwc("max_pool_2x2", layout)?;
        if shape[1] < 2 || shape[2] < 2 {
            bail!("max_pool_2x2: input {shape:?} is smaller than 2x2");
        }
        Ok(shape)
    }
}

impl CustomOp1 for MaxPool2x2 {
    fn name(&self) -> &'static str {
        "max_pool_2x2"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let [n, h, w, c] = Self::shape(layout)?;
        let x = contiguous(self.name(), storage, layout)?;
        let (out_h, out_w) = (h / 2, w / 2);
        let mut output = Output::new(n * out_h * out_w * c);
        let out = output.ptr();
        let rows = n * out_h;
        let block = (BLOCK / (out_w * c).max(1)).max(1);
        for_each_task(rows.div_ceil(block), |t| {
            for row in t * block..((t + 1) * block).min(rows) {
                let top = (row / out_h * h + row % out_h * 2) * w * c;
                let rows = &x[top..top + 2 * w * c];
                let work = MaxRow { rows, w, c, out_w, out, at: row * out_w * c };
                // SAFETY: `best` is available; `rows` are two whole rows; each row of the output
                // is written by one task.
                unsafe { dispatch(Isa::best(), work) }
            }
        });
        // SAFETY: all rows were written.
        Ok(unsafe { output.finish() })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        cuda::max_pool(self.name(), Self::shape(layout)?, (storage, layout))
    }
}

struct MaxPoolColumns(usize);

impl CustomOp1 for MaxPoolColumns {
    fn name(&self) -> &'static str {
        "max_pool_columns"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let [n, h, w, c] = nhwc(self.name(), layout)?;
        let k = self.0;
        if k == 0 || w < k {
            bail!("max_pool_columns: input {:?} for {k} columns", [n, h, w, c]);
        }
        let x = contiguous(self.name(), storage, layout)?;
        let out_w = w / k;
        let mut output = Output::new(n * h * out_w * c);
        let out = output.ptr();
        for_each_task(n * h, |row| {
            let work = MaxColumns {
                row: &x[row * w * c..(row + 1) * w * c],
                k,
                c,
                out_w,
                out,
                at: row * out_w * c,
            };
            // SAFETY: `best` is available; each row of the output is written by one task.
            unsafe { dispatch(Isa::best(), work) }
        });
        // SAFETY: all rows were written.
        Ok(unsafe { output.finish() })
    }
}

/// A row of `k * out_w` pixels or a few more becomes one of `out_w`, at value `at` of the output.
///
/// Safety (see [`Kernel::run`]): the output has the room; nobody else writes it.
struct MaxColumns<'a> {
    row: &'a [f32],
    k: usize,
    c: usize,
    out_w: usize,
    out: OutputPtr,
    at: usize,
}

impl Kernel for MaxColumns<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for ox in 0..self.out_w {
            let pixels = &self.row[ox * self.k * self.c..(ox + 1) * self.k * self.c];
            let mut channel = 0;
            while channel < self.c {
                let lanes = (self.c - channel).min(S::LANES);
                // SAFETY: at most `c` channels of each of the `k` pixels.
                unsafe {
                    let mut most = S::load_partial(pixels.as_ptr().add(channel), lanes);
                    for i in 1..self.k {
                        let pixel = pixels.as_ptr().add(i * self.c + channel);
                        most = S::max(most, S::load_partial(pixel, lanes));
                    }
                    S::store_partial(self.out.at(self.at + ox * self.c + channel), most, lanes);
                }
                channel += lanes;
            }
        }
    }
}

/// Two rows of `w` pixels become one of `out_w`, at value `at` of the output.
///
/// Safety (see [`Kernel::run`]): the output has the room; nobody else writes it.
pub(super) struct MaxRow<'a> {
    pub rows: &'a [f32],
    pub w: usize,
    pub c: usize,
    pub out_w: usize,
    pub out: OutputPtr,
    pub at: usize,
}

impl Kernel for MaxRow<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for ox in 0..self.out_w {
            let mut channel = 0;
            while channel < self.c {
                let lanes = (self.c - channel).min(S::LANES);
                // SAFETY: pixels 2 * ox and 2 * ox + 1 are inside both rows; at most `c` channels.
                unsafe {
                    let load = |p: *const f32| {
                        if lanes == S::LANES { S::load(p) } else { S::load_partial(p, lanes) }
                    };
                    let p = self.rows.as_ptr().add(2 * ox * self.c + channel);
                    let below = p.add(self.w * self.c);
                    let upper = S::max(load(p), load(p.add(self.c)));
                    let lower = S::max(load(below), load(below.add(self.c)));
                    let to = self.out.at(self.at + ox * self.c + channel);
                    let y = S::max(upper, lower);
                    if lanes == S::LANES {
                        S::store(to, y);
                    } else {
                        S::store_partial(to, y, lanes);
                    }
                }
                channel += lanes;
            }
        }
    }
}

struct Upsample2xAdd;

impl Upsample2xAdd {
    /// Of the larger picture.
    fn shape(large: &Layout, small: &Layout) -> Result<[usize; 4]> {
        let [n, h, w, c] = nhwc("upsample_2x_add", large)?;
        if small.shape().dims() != [n, h / 2, w / 2, c] || h % 2 != 0 || w % 2 != 0 || c == 0 {
            bail!(
                "upsample_2x_add: {:?} is not twice the size of {:?}",
                large.shape().dims(),
                small.shape().dims()
            );
        }
        Ok([n, h, w, c])
    }
}

impl CustomOp2 for Upsample2xAdd {
    fn name(&self) -> &'static str {
        "upsample_2x_add"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let [n, h, w, c] = Self::shape(l1, l2)?;
        let large = contiguous(self.name(), s1, l1)?;
        let small = contiguous(self.name(), s2, l2)?;
        let mut output = Output::new(large.len());
        let out = output.ptr();
        let line = w * c;
        let rows = n * h;
        let block = (BLOCK / line.max(1)).max(1);
        for_each_task(rows.div_ceil(block), |t| {
            for row in t * block..((t + 1) * block).min(rows) {
                let below = row / h * (h / 2) + row % h / 2;
                let small = &small[below * line / 2..(below + 1) * line / 2];
                let large = &large[row * line..(row + 1) * line];
                let work = AddRow { large, small, c, out, at: row * line };
                // SAFETY: `best` is available; each row of the output is written by one task.
                unsafe { dispatch(Isa::best(), work) }
            }
        });
        // SAFETY: all rows were written.
        Ok(unsafe { output.finish() })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        cuda::upsample_add(self.name(), Self::shape(l1, l2)?, (s1, l1), (s2, l2))
    }
}

/// One row: `large` has two pixels for each of `small`.
struct AddRow<'a> {
    large: &'a [f32],
    small: &'a [f32],
    c: usize,
    out: OutputPtr,
    at: usize,
}

impl Kernel for AddRow<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (pixel, small) in self.small.chunks_exact(self.c).enumerate() {
            let from = 2 * pixel * self.c;
            let mut channel = 0;
            while channel < self.c {
                let lanes = (self.c - channel).min(S::LANES);
                // SAFETY: both pixels lie inside the row; at most `c` channels.
                unsafe {
                    let s = S::load_partial(small.as_ptr().add(channel), lanes);
                    for at in [from + channel, from + self.c + channel] {
                        let l = S::load_partial(self.large.as_ptr().add(at), lanes);
                        S::store_partial(self.out.at(self.at + at), S::add(l, s), lanes);
                    }
                }
                channel += lanes;
            }
        }
    }
}

/// Means over all pixels, and standard deviations where `eps` is given.
struct Statistics {
    eps: Option<f32>,
}

impl Statistics {
    fn shape(&self, layout: &Layout) -> Result<[usize; 4]> {
        let shape = nhwc(CustomOp1::name(self), layout)?;
        if shape[1..].contains(&0) {
            bail!("{}: empty input {shape:?}", CustomOp1::name(self));
        }
        Ok(shape)
    }
}

impl CustomOp1 for Statistics {
    fn name(&self) -> &'static str {
        if self.eps.is_some() { "mean_std_pool" } else { "global_avg_pool" }
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let [n, h, w, c] = self.shape(layout)?;
        let x = contiguous(self.name(), storage, layout)?;
        let width = if self.eps.is_some() { 2 * c } else { c };
        let scale = 1.0 / (h * w) as f32;
        let mut output = Vec::with_capacity(n * width);
        let mut sums = vec![0.0f32; c];
        for image in x.chunks(h * w * c) {
            sums.fill(0.0);
            for pixel in image.chunks(c) {
                sums.iter_mut().zip(pixel).for_each(|(s, v)| *s += v);
            }
            let from = output.len();
            output.extend(sums.iter().map(|s| s * scale));
            if let Some(eps) = self.eps {
                sums.fill(0.0);
                for pixel in image.chunks(c) {
                    let means = &output[from..from + c];
                    for ((s, v), m) in sums.iter_mut().zip(pixel).zip(means) {
                        *s += (v - m) * (v - m);
                    }
                }
                output.extend(sums.iter().map(|s| (s * scale + eps).sqrt()));
            }
        }
        Ok((CpuStorage::F32(output), Shape::from((n, width))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        cuda::statistics(self.name(), self.shape(layout)?, self.eps, (storage, layout))
    }
}
