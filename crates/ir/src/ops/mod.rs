//! The operators: typed attributes, shape inference and reference evaluation, one family a file.
//!
//! To add one: a struct (or a variant of a family's enum) with an [`Operator`] impl in its family's file, and a line in
//! `operators!` below. The attributes are those of the newest ONNX opset; the importer brings older spellings up to it.

mod arg_reduce;
mod attention;
mod attention_eval;
mod batch_norm;
mod binary;
mod bit_cast;
mod cast;
mod causal_conv;
mod center_crop_pad;
mod choose;
mod clip;
mod col2im;
mod concat;
mod constant;
mod control;
mod control_scan;
mod conv;
mod conv_transpose;
mod cumsum;
mod deform_conv;
mod det;
mod einsum;
mod epilogue;
mod forms;
mod fourier;
mod gather;
mod gridsample;
mod index_map;
mod linear;
mod linear_attention;
mod movement;
mod nms;
mod norm;
mod norm_local;
mod opaque;
mod pad;
mod pool;
mod qlinear;
mod quantize;
mod random;
mod rearrange;
mod reduce;
mod resize;
mod rnn;
mod rnn_cell;
mod roi_align;
mod rotary;
mod scatter;
mod select;
mod shape;
mod slice;
mod softmax;
mod space;
mod spread;
mod support;
mod tensor_scatter;
mod unary;
mod unpool;
mod variadic;
mod window_functions;

pub use arg_reduce::ArgReduce;
pub use attention::Attention;
pub use batch_norm::BatchNormalization;
pub use binary::Binary;
pub use bit_cast::BitCast;
pub use cast::{Cast, CastLike, ShortRounding};
pub use causal_conv::{CausalActivation, CausalConvWithState};
pub use center_crop_pad::CenterCropPad;
pub use choose::{Compress, NonZero, TopK, Unique};
pub use clip::Clip;
pub use col2im::Col2Im;
pub use concat::Concat;
pub use constant::{ConstantOfShape, EyeLike, OneHot, Range};
pub use control::{Control, RunGraph, interpret};
pub use control_scan::Scan;
pub use conv::Conv;
pub use conv_transpose::ConvTranspose;
pub use cumsum::{CumProd, CumSum};
pub use deform_conv::DeformConv;
pub use det::Det;
pub use einsum::Einsum;
pub use epilogue::{Epilogue, EpilogueStep};
pub use forms::{ColumnGemm, Interleave, OverlapAdd, PhaseConv, ZeroInsert};
pub use fourier::{Dft, Stft};
pub use gather::{Gather, GatherElements, GatherNd};
pub use gridsample::{AffineGrid, GridSample, SampleBorder, SampleMode};
pub use index_map::{AxisMap, Border, IndexMap, MappedAxis};
pub use linear::{Gemm, MatMul};
pub use linear_attention::{LinearAttention, UpdateRule};
pub use nms::NonMaxSuppression;
pub use norm::{GroupNormalization, InstanceNormalization, LayerNormalization, RmsNormalization};
pub use norm_local::{LpNormalization, Lrn, MeanVarianceNormalization};
pub use opaque::Opaque;
pub use pad::Pad;
pub use pool::{GlobalPool, Pool, PoolKind};
pub use qlinear::{ConvInteger, MatMulInteger, QLinearConv, QLinearMatMul, greatest_sum};
pub use quantize::{DequantizeLinear, DynamicQuantizeLinear, QuantizeLinear};
pub use random::{Bernoulli, Distribution, Multinomial, Random};
pub use rearrange::{ReverseSequence, Trilu};
pub use reduce::{Reduce, ReduceKind};
pub use resize::{AspectRatio, Resize, ResizeMode};
pub use rnn::{Cell, Direction, Recurrent};
pub use roi_align::RoiAlign;
pub use rotary::RotaryEmbedding;
pub use scatter::{ScatterElements, ScatterNd, ScatterReduction};
pub use select::{Dropout, Identity, Where};
pub use shape::{Flatten, Reshape, Shape, Size, Squeeze, Unsqueeze};
pub use slice::{Slice, SliceAxis, Split};
pub use softmax::{Softmax, SoftmaxKind};
pub use space::{ChannelOrder, DepthToSpace, SpaceToDepth};
pub use spread::{Expand, Tile, Transpose};
pub use support::window::Padding;
pub use tensor_scatter::TensorScatter;
pub use unary::Unary;
pub use unpool::MaxUnpool;
pub use variadic::Variadic;
pub use window_functions::{MelWeightMatrix, Window, WindowKind};

use crate::attributes::Attributes;
use crate::budget;
use crate::dim::Dim;
use crate::error::Result;
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// What is known of an operator's input when shapes are inferred.
#[derive(Debug, Clone, Copy)]
pub struct InputInfo<'a> {
    /// Element type and shape, as far as known.
    pub ty: &'a ValueType,
    /// The tensor, when it is constant.
    pub constant: Option<&'a Tensor>,
    /// The elements of a short integer tensor as extents, when they are known symbolically (a `Shape`, computed on).
    pub extents: Option<&'a [Dim]>,
}

/// What every operator can do.
pub trait Operator {
    /// Name as ONNX spells it; for operators of our own, a name that ONNX does not have.
    fn name(&self) -> &str;

    /// Attributes in generic form: those that differ from their default. Reading them back gives the same operator.
    fn attributes(&self) -> Attributes;

    /// Types of the outputs.
    ///
    /// # Errors
    /// When the inputs do not fit the operator.
    fn infer(&self, inputs: &[Option<InputInfo<'_>>], outputs: usize) -> Result<Vec<ValueType>>;

    /// The elements of the (only) output as extents, for operators that compute on shapes.
    fn infer_extents(&self, _inputs: &[Option<InputInfo<'_>>]) -> Option<Vec<Dim>> {
        None
    }

    /// Evaluates the operator by its definition: exact and slow. Sums are taken in f64, or wrapping in the integer's type.
    ///
    /// # Errors
    /// When the inputs do not fit the operator, or the combination of types is not one that we compute.
    fn eval(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>>;
}

macro_rules! operators {
    ($($variant:ident),* $(,)?) => {
        /// An operator with its attributes.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum Op {
            $(
                #[doc = concat!("See [`", stringify!($variant), "`].")]
                $variant($variant),
            )*
        }

        impl Op {
            fn as_operator(&self) -> &dyn Operator {
                match self { $(Self::$variant(op) => op,)* }
            }
        }

        $(impl From<$variant> for Op {
            fn from(op: $variant) -> Self { Self::$variant(op) }
        })*
    };
}

operators! {
    Opaque,
    // elementwise
    Unary, Binary, Variadic, Clip, Cast, CastLike, BitCast, Where, Identity, Dropout,
    // along axes
    Reduce, ArgReduce, CumSum, CumProd, Softmax,
    // normalisation
    BatchNormalization, InstanceNormalization, LayerNormalization, GroupNormalization, RmsNormalization,
    MeanVarianceNormalization, LpNormalization, Lrn,
    // recurrent layers
    Recurrent,
    // quantised
    QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear, ConvInteger, QLinearConv, MatMulInteger, QLinearMatMul,
    // random numbers
    Random, Bernoulli, Multinomial,
    // matrix products
    MatMul, Gemm, Einsum, Det,
    // attention
    Attention, LinearAttention, RotaryEmbedding, CausalConvWithState, TensorScatter,
    // signals
    Dft, Stft, Window, MelWeightMatrix,
    // regions and boxes
    RoiAlign, NonMaxSuppression, DeformConv,
    // convolutions
    Conv, ConvTranspose,
    // shapes
    Shape, Size, Reshape, Flatten, Squeeze, Unsqueeze,
    // data movement
    Transpose, Expand, Tile, Slice, Split, Concat, Pad, DepthToSpace, SpaceToDepth,
    Trilu, ReverseSequence, Gather, GatherElements, GatherNd, ScatterElements, ScatterNd,
    // made from a few numbers, or chosen by what they are
    ConstantOfShape, Range, OneHot, EyeLike, NonZero, TopK, Compress, Unique,
    // resampling
    Resize, Pool, GlobalPool, MaxUnpool, Col2Im, GridSample, AffineGrid, CenterCropPad,
    // the three forms of a transposed convolution
    ZeroInsert, PhaseConv, Interleave, ColumnGemm, OverlapAdd,
}

impl Op {
    /// Reads an operator from its ONNX name and attributes (of the newest opset); `Ok(None)` for one we do not know.
    ///
    /// # Errors
    /// When an attribute is missing, unknown or out of range.
    pub fn read(name: &str, attributes: Attributes) -> Result<Option<Self>> {
        Ok(Some(match name {
            "AffineGrid" => AffineGrid::read(attributes)?.into(),
            "Attention" => Attention::read(attributes)?.into(),
            "BatchNormalization" => BatchNormalization::read(attributes)?.into(),
            "Bernoulli" => Bernoulli::read(attributes)?.into(),
            "BitCast" => BitCast::read(attributes)?.into(),
            "Cast" => Cast::read(attributes)?.into(),
            "CastLike" => CastLike::read(attributes)?.into(),
            "CausalConvWithState" => CausalConvWithState::read(attributes)?.into(),
            "CenterCropPad" => CenterCropPad::read(attributes)?.into(),
            "Clip" => Clip::read(attributes)?.into(),
            "Col2Im" => Col2Im::read(attributes)?.into(),
            "ColumnGemm" => ColumnGemm::read(attributes)?.into(),
            "Compress" => Compress::read(attributes)?.into(),
            "Concat" => Concat::read(attributes)?.into(),
            "ConstantOfShape" => ConstantOfShape::read(attributes)?.into(),
            "Conv" => Conv::read(attributes)?.into(),
            "ConvInteger" => ConvInteger::read(attributes)?.into(),
            "ConvTranspose" => ConvTranspose::read(attributes)?.into(),
            "CumProd" => CumProd::read(attributes)?.into(),
            "CumSum" => CumSum::read(attributes)?.into(),
            "DFT" => Dft::read(attributes)?.into(),
            "DeformConv" => DeformConv::read(attributes)?.into(),
            "DepthToSpace" => DepthToSpace::read(attributes)?.into(),
            "DequantizeLinear" => DequantizeLinear::read(attributes)?.into(),
            "Det" => Det::read(attributes)?.into(),
            "Dropout" => Dropout::read(attributes)?.into(),
            "DynamicQuantizeLinear" => DynamicQuantizeLinear::read(attributes)?.into(),
            "Einsum" => Einsum::read(attributes)?.into(),
            "Expand" => Expand::read(attributes)?.into(),
            "EyeLike" => EyeLike::read(attributes)?.into(),
            "Flatten" => Flatten::read(attributes)?.into(),
            "Gather" => Gather::read(attributes)?.into(),
            "GatherElements" => GatherElements::read(attributes)?.into(),
            "GatherND" => GatherNd::read(attributes)?.into(),
            "Gemm" => Gemm::read(attributes)?.into(),
            "GridSample" => GridSample::read(attributes)?.into(),
            "GroupNormalization" => GroupNormalization::read(attributes)?.into(),
            "Identity" => Identity::read(attributes)?.into(),
            "InstanceNormalization" => InstanceNormalization::read(attributes)?.into(),
            "Interleave" => Interleave::read(attributes)?.into(),
            "LRN" => Lrn::read(attributes)?.into(),
            "LayerNormalization" => LayerNormalization::read(attributes)?.into(),
            "LinearAttention" => LinearAttention::read(attributes)?.into(),
            "LpNormalization" => LpNormalization::read(attributes)?.into(),
            "MatMul" => MatMul::read(attributes)?.into(),
            "MatMulInteger" => MatMulInteger::read(attributes)?.into(),
            "MaxUnpool" => MaxUnpool::read(attributes)?.into(),
            "MeanVarianceNormalization" => MeanVarianceNormalization::read(attributes)?.into(),
            "MelWeightMatrix" => MelWeightMatrix::read(attributes)?.into(),
            "Multinomial" => Multinomial::read(attributes)?.into(),
            "NonMaxSuppression" => NonMaxSuppression::read(attributes)?.into(),
            "NonZero" => NonZero::read(attributes)?.into(),
            "OneHot" => OneHot::read(attributes)?.into(),
            "OverlapAdd" => OverlapAdd::read(attributes)?.into(),
            "Pad" => Pad::read(attributes)?.into(),
            "PhaseConv" => PhaseConv::read(attributes)?.into(),
            "QLinearConv" => QLinearConv::read(attributes)?.into(),
            "QLinearMatMul" => QLinearMatMul::read(attributes)?.into(),
            "QuantizeLinear" => QuantizeLinear::read(attributes)?.into(),
            "RMSNormalization" => RmsNormalization::read(attributes)?.into(),
            "Range" => Range::read(attributes)?.into(),
            "Reshape" => Reshape::read(attributes)?.into(),
            "Resize" => Resize::read(attributes)?.into(),
            "ReverseSequence" => ReverseSequence::read(attributes)?.into(),
            "RoiAlign" => RoiAlign::read(attributes)?.into(),
            "RotaryEmbedding" => RotaryEmbedding::read(attributes)?.into(),
            "STFT" => Stft::read(attributes)?.into(),
            "ScatterElements" => ScatterElements::read(attributes)?.into(),
            "ScatterND" => ScatterNd::read(attributes)?.into(),
            "Shape" => Shape::read(attributes)?.into(),
            "Size" => Size::read(attributes)?.into(),
            "Slice" => Slice::read(attributes)?.into(),
            "SpaceToDepth" => SpaceToDepth::read(attributes)?.into(),
            "Split" => Split::read(attributes)?.into(),
            "Squeeze" => Squeeze::read(attributes)?.into(),
            "TensorScatter" => TensorScatter::read(attributes)?.into(),
            "Tile" => Tile::read(attributes)?.into(),
            "TopK" => TopK::read(attributes)?.into(),
            "Transpose" => Transpose::read(attributes)?.into(),
            "Trilu" => Trilu::read(attributes)?.into(),
            "Unique" => Unique::read(attributes)?.into(),
            "Unsqueeze" => Unsqueeze::read(attributes)?.into(),
            "Where" => Where::read(attributes)?.into(),
            "ZeroInsert" => ZeroInsert::read(attributes)?.into(),
            _ => return Self::read_family(name, &attributes),
        }))
    }

    /// Operators that are variants of a family's enum.
    fn read_family(name: &str, attributes: &Attributes) -> Result<Option<Self>> {
        macro_rules! families {
            ($($family:ident),*) => {
                $(if let Some(op) = $family::read(name, attributes.clone())? {
                    return Ok(Some(op.into()));
                })*
            };
        }
        families!(
            Unary, Binary, Variadic, Reduce, ArgReduce, Softmax, Recurrent, Random, Pool, GlobalPool, Window
        );
        Ok(None)
    }

    /// The epilogue of an operator that has one, and the position of its first operand among the inputs.
    pub fn epilogue(&self) -> Option<(&Epilogue, usize)> {
        match self {
            Self::Conv(op) => Some((&op.epilogue, 3)),
            Self::ConvTranspose(op) => Some((&op.epilogue, 3)),
            Self::OverlapAdd(op) => Some((&op.epilogue, 2)),
            Self::Interleave(op) => Some((&op.epilogue, 1)),
            _ => None,
        }
    }

    /// As [`Op::epilogue`], to change it.
    pub fn epilogue_mut(&mut self) -> Option<(&mut Epilogue, usize)> {
        match self {
            Self::Conv(op) => Some((&mut op.epilogue, 3)),
            Self::ConvTranspose(op) => Some((&mut op.epilogue, 3)),
            Self::OverlapAdd(op) => Some((&mut op.epilogue, 2)),
            Self::Interleave(op) => Some((&mut op.epilogue, 1)),
            _ => None,
        }
    }

    /// See [`Operator::name`].
    pub fn name(&self) -> &str {
        self.as_operator().name()
    }

    /// See [`Operator::attributes`].
    pub fn attributes(&self) -> Attributes {
        self.as_operator().attributes()
    }

    /// See [`Operator::infer`].
    ///
    /// # Errors
    /// As there.
    pub fn infer(&self, inputs: &[Option<InputInfo<'_>>], outputs: usize) -> Result<Vec<ValueType>> {
        self.as_operator().infer(inputs, outputs)
    }

    /// See [`Operator::infer_extents`].
    pub fn infer_extents(&self, inputs: &[Option<InputInfo<'_>>]) -> Option<Vec<Dim>> {
        self.as_operator().infer_extents(inputs)
    }

    /// Whether its results share the memory of its inputs, or are made by the operators of graphs inside of it.
    fn gives_what_it_takes(&self) -> bool {
        matches!(
            self,
            Self::Opaque(_)
                | Self::Identity(_)
                | Self::Dropout(_)
                | Self::Reshape(_)
                | Self::Flatten(_)
                | Self::Squeeze(_)
                | Self::Unsqueeze(_)
                | Self::BitCast(_)
        )
    }

    /// See [`Operator::eval`]; the inputs are checked by inference first, and the budget of the thread is asked for what
    /// it will make.
    ///
    /// # Errors
    /// As there, and as [`Op::infer`].
    pub fn eval(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>> {
        let types: Vec<Option<ValueType>> = inputs.iter().map(|input| input.map(ValueType::of)).collect();
        let info = |i: usize| Some(InputInfo { ty: types[i].as_ref()?, constant: inputs[i], extents: None });
        let infos: Vec<Option<InputInfo<'_>>> = (0..inputs.len()).map(info).collect();
        budget::check()?;
        let results = self.infer(&infos, outputs)?;
        // Before any of it is allocated. What is not known depends on data, and counts when it is made.
        if !self.gives_what_it_takes() {
            let bytes = results.iter().filter_map(ValueType::known_bytes);
            budget::ask(bytes.fold(0, usize::saturating_add))?;
        }
        self.as_operator().eval(inputs, outputs)
    }
}
