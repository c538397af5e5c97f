//! The block that our light convolutional networks are made of.
//!
//! Sandler et al.: "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018. All its
//! convolutions are without bias and followed by a batch norm, which is folded at load; padding is
//! half the kernel on all four sides.

use super::Shapes;
use super::weights::{Tensors, WeightsError};
use crate::nn::{Activation, Conv2d, ConvConfig, Padding, Separable, fold_bn};

/// One convolution with its batch norm: `name.conv.weight` and `name.bn.*`.
pub(super) struct ConvBn {
    pub inputs: usize,
    pub outputs: usize,
    /// Square.
    pub kernel: usize,
    /// On both axes.
    pub stride: usize,
    pub depthwise: bool,
    pub activation: Activation,
}

impl ConvBn {
    pub fn pointwise(inputs: usize, outputs: usize, activation: Activation) -> Self {
        Self { inputs, outputs, kernel: 1, stride: 1, depthwise: false, activation }
    }

    pub fn shapes(&self, name: &str, shapes: &mut Shapes) {
        let inputs = if self.depthwise { 1 } else { self.inputs };
        let weight = vec![self.outputs, inputs, self.kernel, self.kernel];
        shapes.push((format!("{name}.conv.weight"), weight));
        for part in ["weight", "bias", "running_mean", "running_var"] {
            shapes.push((format!("{name}.bn.{part}"), vec![self.outputs]));
        }
    }

    pub fn load(
        &self,
        tensors: &Tensors,
        name: &str,
        eps: f64,
    ) -> std::result::Result<Conv2d, WeightsError> {
        let bn = |part: &str| tensors.get(&format!("{name}.bn.{part}"));
        let config = ConvConfig {
            stride: (self.stride, self.stride),
            padding: Padding::all(self.kernel / 2),
            groups: if self.depthwise { self.outputs } else { 1 },
            activation: self.activation,
            precision: tensors.precision(),
        };
        fold_bn(
            tensors.get(&format!("{name}.conv.weight"))?,
            None,
            bn("weight")?,
            bn("bias")?,
            bn("running_mean")?,
            bn("running_var")?,
            eps,
        )
        .and_then(|(weight, bias)| Conv2d::new(&weight, Some(&bias), config))
        .map_err(|e| tensors.unfit(name, &e))
    }
}

/// What a block looks like: 1×1 to `inner` channels (left out where that is no expansion), k×k
/// depthwise with the stride, 1×1 to `outputs` channels without activation, and the block's input
/// added where its shape is unchanged.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockSpec {
    pub inputs: usize,
    pub inner: usize,
    pub outputs: usize,
    pub kernel: usize,
    pub stride: usize,
    pub activation: Activation,
    /// What the weights file calls the depthwise convolution.
    pub depthwise_name: &'static str,
}

impl BlockSpec {
    fn convs(&self) -> (Option<ConvBn>, ConvBn, ConvBn) {
        let expand = (self.inner != self.inputs)
            .then(|| ConvBn::pointwise(self.inputs, self.inner, self.activation));
        let depthwise = ConvBn {
            inputs: self.inner,
            outputs: self.inner,
            kernel: self.kernel,
            stride: self.stride,
            depthwise: true,
            activation: self.activation,
        };
        (expand, depthwise, ConvBn::pointwise(self.inner, self.outputs, Activation::None))
    }

    pub fn shapes(&self, name: &str, shapes: &mut Shapes) {
        let (expand, depthwise, project) = self.convs();
        if let Some(expand) = expand {
            expand.shapes(&format!("{name}.expand"), shapes);
        }
        depthwise.shapes(&format!("{name}.{}", self.depthwise_name), shapes);
        project.shapes(&format!("{name}.project"), shapes);
    }

    pub fn load(
        &self,
        tensors: &Tensors,
        name: &str,
        eps: f64,
    ) -> std::result::Result<Separable, WeightsError> {
        let (expand, depthwise, project) = self.convs();
        let expand =
            expand.map(|conv| conv.load(tensors, &format!("{name}.expand"), eps)).transpose()?;
        let depthwise = depthwise.load(tensors, &format!("{name}.{}", self.depthwise_name), eps)?;
        let project = project.load(tensors, &format!("{name}.project"), eps)?;
        let residual = self.stride == 1 && self.inputs == self.outputs;
        Separable::new(expand, depthwise, Some(project), residual)
            .map_err(|e| tensors.unfit(name, &e))
    }
}
