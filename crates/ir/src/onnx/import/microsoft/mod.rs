//! Operators of ONNX Runtime's own domain, `com.microsoft`, as that runtime saves optimised models: each becomes a few of ONNX's
//! operators that mean the same, so that they are compiled as any others and every runtime can read what is exported.
//!
//! What a node asks for beyond that is an error that says what is in the way. Operators of the domain that are not in the list stay
//! as they came.

mod attention;
mod convolution;
mod fused;
mod matmul;
mod quantised;

use super::lift::{Lift, note_types, read_op};
use crate::attributes::Attributes;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::ValueId;
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// Name of the domain.
pub(super) const DOMAIN: &str = "com.microsoft";

type Lower = fn(&mut Lowering<'_, '_>) -> Result<()>;

const RULES: &[(&str, Lower)] = &[
    ("Attention", attention::attention),
    ("BiasAdd", fused::bias_add),
    ("BiasGelu", fused::bias_gelu),
    ("BiasSplitGelu", fused::bias_split_gelu),
    ("ConvTransposeWithDynamicPads", convolution::transpose_with_pads),
    ("DequantizeLinear", fused::same),
    ("DynamicQuantizeLSTM", quantised::dynamic_lstm),
    ("DynamicQuantizeMatMul", quantised::dynamic_matmul),
    ("EmbedLayerNormalization", fused::embed_layer_normalization),
    ("FastGelu", fused::fast_gelu),
    ("FusedConv", convolution::fused_conv),
    ("FusedGemm", matmul::fused_gemm),
    ("FusedMatMul", matmul::fused_matmul),
    ("Gelu", fused::same),
    ("GroupNorm", fused::group_norm),
    ("MatMulIntegerToFloat", quantised::matmul_integer),
    ("MatMulNBits", matmul::matmul_n_bits),
    ("MultiHeadAttention", attention::multi_head),
    ("NhwcConv", convolution::nhwc_conv),
    ("NhwcFusedConv", convolution::nhwc_conv),
    ("NhwcMaxPool", convolution::nhwc_max_pool),
    ("QGemm", quantised::gemm),
    ("QLinearAdd", quantised::add),
    ("QLinearAveragePool", quantised::average_pool),
    ("QLinearConcat", quantised::concat),
    ("QLinearConv", quantised::conv),
    ("QLinearGlobalAveragePool", quantised::global_average_pool),
    ("QLinearLeakyRelu", quantised::leaky_relu),
    ("QLinearMul", quantised::mul),
    ("QLinearSigmoid", quantised::sigmoid),
    ("QLinearSoftmax", quantised::softmax),
    ("QuantizeLinear", fused::same),
    ("QuickGelu", fused::quick_gelu),
    ("RotaryEmbedding", attention::rotary),
    ("SimplifiedLayerNormalization", fused::simplified_layer_normalization),
    ("SkipLayerNormalization", fused::skip_layer_normalization),
    ("SkipSimplifiedLayerNormalization", fused::skip_simplified),
    ("TransposeMatMul", matmul::fused_matmul),
];

/// True for operators that are lowered.
pub(super) fn knows(op_type: &str) -> bool {
    RULES.iter().any(|(name, _)| *name == op_type)
}

/// Puts ONNX's operators in the place of one of these; the node's last is left to be added.
///
/// # Errors
/// When the node asks for something that is not expressed here.
pub(super) fn lower(lift: &mut Lift<'_>) -> Result<()> {
    let Some((_, rule)) = RULES.iter().find(|(name, _)| *name == lift.node.op_type) else { return Ok(()) };
    let mut lowering = Lowering { lift, step: 0 };
    rule(&mut lowering)
}

/// A node on its way.
struct Lowering<'a, 'b> {
    lift: &'a mut Lift<'b>,
    step: usize,
}

impl Lowering<'_, '_> {
    /// An input that has to be there.
    fn required(&self, index: usize, name: &'static str) -> Result<ValueId> {
        self.lift.input(index).ok_or_else(|| Error::input(index, name, "is required"))
    }

    fn input(&self, index: usize) -> Option<ValueId> {
        self.lift.input(index)
    }

    fn ty(&self, value: ValueId) -> &ValueType {
        self.lift.graph.ty(value)
    }

    /// Element type of a value, which what follows depends on.
    fn dtype(&self, value: ValueId) -> Result<DType> {
        self.ty(value).dtype.ok_or_else(|| {
            let name = &self.lift.graph.value(value).name;
            Error::Unsupported(format!("the element type of `{name}` has to be known here"))
        })
    }

    /// Number of axes of a value, which what follows depends on.
    fn rank(&self, value: ValueId) -> Result<usize> {
        self.ty(value).rank().ok_or_else(|| {
            let name = &self.lift.graph.value(value).name;
            Error::Unsupported(format!("the number of axes of `{name}` has to be known here"))
        })
    }

    /// The tensor at an input, which has to be constant.
    fn constant_input(&self, index: usize, name: &'static str) -> Result<Tensor> {
        let value = self.required(index, name)?;
        let tensor = self.lift.graph.constant(value).cloned();
        tensor.ok_or_else(|| Error::Unsupported(format!("input {index} ({name}) has to be a constant here")))
    }

    fn int(&mut self, name: &str, default: i64) -> Result<i64> {
        Ok(self.lift.node.attributes.int(name)?.unwrap_or(default))
    }

    fn float(&mut self, name: &str, default: f32) -> Result<f32> {
        Ok(self.lift.node.attributes.float(name)?.unwrap_or(default))
    }

    fn flag(&mut self, name: &str) -> Result<bool> {
        self.lift.node.attributes.flag(name, false)
    }

    /// Takes an attribute that has to have one value out.
    fn only(&mut self, name: &str, value: i64) -> Result<()> {
        match self.int(name, value)? {
            found if found == value => Ok(()),
            found => {
                let problem = format!("{found} is not supported, accepted is {value}");
                Err(Error::Unsupported(format!("attribute `{name}`: {problem}")))
            }
        }
    }

    /// Refuses inputs from one on.
    fn at_most(&self, count: usize) -> Result<()> {
        match (count..self.lift.node.inputs.len()).find(|&index| self.input(index).is_some()) {
            None => Ok(()),
            Some(index) => Err(Error::Unsupported(format!("input {index}; accepted are {count} inputs"))),
        }
    }

    /// Refuses outputs from one on, where something reads them.
    fn outputs_at_most(&mut self, count: usize) -> Result<()> {
        if let Some(index) = (count..self.lift.node.outputs.len()).find(|&index| self.lift.output_used(index))
        {
            return Err(Error::Unsupported(format!("output {index} is read; accepted are {count} outputs")));
        }
        self.lift.node.outputs.truncate(count);
        Ok(())
    }

    fn constant(&mut self, what: &str, tensor: Tensor) -> ValueId {
        self.lift.constant(what, tensor)
    }

    fn ints(&mut self, what: &str, values: &[i64]) -> ValueId {
        self.constant(what, Tensor::from_i64s(values))
    }

    /// A number of the element type of `like`.
    fn number(&mut self, what: &str, value: f64, like: ValueId) -> Result<ValueId> {
        let dtype = self.dtype(like)?;
        let tensor =
            crate::dispatch_numeric!(dtype, T => Ok(Tensor::scalar(<T as crate::Element>::from_f64(value))))?;
        Ok(self.constant(what, tensor))
    }

    /// Adds a node, and notes the types of what it makes.
    fn emit(&mut self, op_type: &str, attributes: Attributes, inputs: &[Option<ValueId>]) -> Result<ValueId> {
        Ok(self.emit_many(op_type, attributes, inputs, 1)?[0])
    }

    fn emit_many(
        &mut self,
        op_type: &str,
        attributes: Attributes,
        inputs: &[Option<ValueId>],
        outputs: usize,
    ) -> Result<Vec<ValueId>> {
        self.step += 1;
        let name = format!("{}.{op_type}_{}", self.lift.node.name, self.step);
        let op = read_op(op_type, attributes)?;
        let types = vec![ValueType::default(); outputs];
        let (id, values) = self.lift.graph.add_node(&name, op, inputs, types)?;
        note_types(self.lift.graph, id);
        Ok(values)
    }

    /// Adds a node that makes output `index` of the original one; nothing where nothing reads that.
    fn define(&mut self, index: usize, op_type: &str, inputs: &[Option<ValueId>]) -> Result<()> {
        if let Some(output) = self.lift.node.outputs.get(index).copied().flatten() {
            let name = format!("{}.{op_type}_out{index}", self.lift.node.name);
            let op = read_op(op_type, Attributes::new())?;
            self.lift.graph.add_node_defining(&name, op, inputs, &[Some(output)])?;
            self.lift.node.outputs[index] = None;
        }
        Ok(())
    }

    /// What the node itself becomes.
    fn finish(&mut self, op_type: &str, attributes: Attributes, inputs: &[Option<ValueId>]) -> Result<()> {
        let left = std::mem::replace(&mut self.lift.node.attributes, attributes);
        left.finish(&format!("those of {DOMAIN}.{}", self.lift.node.op_type))?;
        op_type.clone_into(&mut self.lift.node.op_type);
        self.lift.node.inputs = inputs.to_vec();
        Ok(())
    }

    fn transpose(&mut self, value: ValueId, perm: Vec<i64>) -> Result<ValueId> {
        self.emit("Transpose", Attributes::new().with("perm", perm), &[Some(value)])
    }

    /// A value and, where it is there, another one added.
    fn plus(&mut self, value: ValueId, other: Option<ValueId>) -> Result<ValueId> {
        match other {
            None => Ok(value),
            Some(other) => self.emit("Add", Attributes::new(), &[Some(value), Some(other)]),
        }
    }
}
