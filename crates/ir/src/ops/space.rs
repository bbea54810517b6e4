//! Blocks of space as channels and back: DepthToSpace and SpaceToDepth.

use super::index_map::{AxisMap, IndexMap, MappedAxis};
use super::movement::pick;
use super::support::inputs::{at_most, required};
use super::support::lists::{output_shape, product};
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// How the channels of a block are ordered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ChannelOrder {
    /// Input channel `(row * block + column) * C + c`.
    #[default]
    Dcr,
    /// Input channel `c * block * block + row * block + column`.
    Crd,
}

/// ONNX `DepthToSpace`: `[N, C * block^2, H, W] -> [N, C, H * block, W * block]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DepthToSpace {
    /// Rows and columns of a block.
    pub block: usize,
    /// Order of the input channels: ONNX's `mode`.
    pub order: ChannelOrder,
}

/// ONNX `SpaceToDepth`: `[N, C, H * block, W * block] -> [N, C * block^2, H, W]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceToDepth {
    /// Rows and columns of a block.
    pub block: usize,
    /// Order of the output channels: ONNX's `mode`, since opset 28.
    pub order: ChannelOrder,
}

fn read_block(attributes: &mut Attributes) -> Result<usize> {
    match attributes.int("blocksize")? {
        Some(block @ 1..=0x7fff) => Ok(block as usize),
        Some(block) => Err(Error::attribute("blocksize", format!("expected 1 to 32767, found {block}"))),
        None => Err(Error::attribute("blocksize", "is required")),
    }
}

fn read_order(attributes: &mut Attributes) -> Result<ChannelOrder> {
    match attributes.string("mode")?.as_deref() {
        None | Some("DCR") => Ok(ChannelOrder::Dcr),
        Some("CRD") => Ok(ChannelOrder::Crd),
        Some(other) => Err(Error::attribute("mode", format!("`{other}` is not one of DCR, CRD"))),
    }
}

fn write(block: usize, order: ChannelOrder) -> Attributes {
    let attributes = Attributes::new().with("blocksize", block as i64);
    match order {
        ChannelOrder::Dcr => attributes,
        ChannelOrder::Crd => attributes.with("mode", "CRD"),
    }
}

/// The extents of an input that must have four axes.
fn image<'a>(input: &InputInfo<'a>) -> Result<Option<&'a [Dim; 4]>> {
    let Some(shape) = &input.ty.shape else { return Ok(None) };
    let wrong = || Error::input(0, "input", format!("expected [N, C, H, W], found {shape:?}"));
    shape.as_slice().try_into().map(Some).map_err(|_| wrong())
}

/// A quotient that must leave nothing.
fn divided(dim: &Dim, by: usize, what: &str) -> Result<Dim> {
    match dim.known_i64() {
        Some(value) if value % by as i64 != 0 => {
            Err(Error::input(0, "input", format!("{what} is {value}, accepted are multiples of {by}")))
        }
        _ => dim.floor_div(by as i64),
    }
}

/// Axes of the elements in the order `order` of a row-major shape.
fn permuted(shape: &[usize], order: &[usize]) -> Result<IndexMap> {
    let strides = super::support::broadcast::strides(shape);
    let axis =
        |&axis: &usize| MappedAxis { output: shape[axis], stride: strides[axis], map: AxisMap::IDENTITY };
    IndexMap::new(order.iter().map(axis).collect(), shape.iter().product())
}

impl DepthToSpace {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let block = read_block(&mut attributes)?;
        let order = read_order(&mut attributes)?;
        attributes.finish("blocksize, mode")?;
        Ok(Self { block, order })
    }

    /// Where the elements come from. The output has six axes in the map, blocks and places in them taken apart.
    ///
    /// # Errors
    /// When the input is not `[N, C, H, W]`, or its channels do not fill blocks.
    pub fn map(self, input: &[usize]) -> Result<IndexMap> {
        let b = self.block.max(1);
        let &[n, c, h, w] = input else { return Err(not_an_image(input)) };
        let channels = c / (b * b);
        // Axes of the blocked input, and the order N, C, H, row, W, column in which the output has them.
        let (blocked, order) = match self.order {
            ChannelOrder::Dcr => ([n, b, b, channels, h, w], [0, 3, 4, 1, 5, 2]),
            ChannelOrder::Crd => ([n, channels, b, b, h, w], [0, 1, 4, 2, 5, 3]),
        };
        permuted(&blocked, &order)
    }
}

fn not_an_image(shape: &[usize]) -> Error {
    Error::input(0, "input", format!("expected [N, C, H, W], found {shape:?}"))
}

impl Operator for DepthToSpace {
    fn name(&self) -> &str {
        "DepthToSpace"
    }

    fn attributes(&self) -> Attributes {
        write(self.block, self.order)
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 1)?;
        let input = required(inputs, 0, "input")?;
        let shape = match image(&input)? {
            None => vec![Dim::unknown(); 4],
            Some([n, c, h, w]) => {
                let block = Dim::from(self.block);
                let c = divided(c, self.block * self.block, "the number of channels")?;
                vec![n.clone(), c, product(&[h.clone(), block.clone()])?, product(&[w.clone(), block])?]
            }
        };
        Ok(vec![ValueType { dtype: input.ty.dtype, shape: Some(shape) }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (x, shape) = (required(inputs, 0, "input")?, output_shape(self, inputs)?);
        let map = self.map(x.shape())?;
        Ok(vec![pick(x, &shape, None, |emit| map.visit(emit))?])
    }
}

impl SpaceToDepth {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let block = read_block(&mut attributes)?;
        let order = read_order(&mut attributes)?;
        attributes.finish("blocksize, mode")?;
        Ok(Self { block, order })
    }

    /// Where the elements come from. The output has six axes in the map, channels and extents taken apart.
    ///
    /// # Errors
    /// When the input is not `[N, C, H, W]`, or its extents are no multiples of the block.
    pub fn map(self, input: &[usize]) -> Result<IndexMap> {
        let b = self.block.max(1);
        let &[n, c, h, w] = input else { return Err(not_an_image(input)) };
        let order = match self.order {
            ChannelOrder::Dcr => [0, 3, 5, 1, 2, 4],
            ChannelOrder::Crd => [0, 1, 3, 5, 2, 4],
        };
        permuted(&[n, c, h / b, b, w / b, b], &order)
    }
}

impl Operator for SpaceToDepth {
    fn name(&self) -> &str {
        "SpaceToDepth"
    }

    fn attributes(&self) -> Attributes {
        write(self.block, self.order)
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 1)?;
        let input = required(inputs, 0, "input")?;
        let shape = match image(&input)? {
            None => vec![Dim::unknown(); 4],
            Some([n, c, h, w]) => vec![
                n.clone(),
                product(&[c.clone(), (self.block * self.block).into()])?,
                divided(h, self.block, "the height")?,
                divided(w, self.block, "the width")?,
            ],
        };
        Ok(vec![ValueType { dtype: input.ty.dtype, shape: Some(shape) }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (x, shape) = (required(inputs, 0, "input")?, output_shape(self, inputs)?);
        let map = self.map(x.shape())?;
        Ok(vec![pick(x, &shape, None, |emit| map.visit(emit))?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_those_of_the_specification() {
        let x = Tensor::from_vec([1, 8, 1, 1], (0..8).collect::<Vec<i32>>()).unwrap();
        let run = |order| {
            let y = DepthToSpace { block: 2, order }.eval(&[Some(&x)], 1).unwrap();
            assert_eq!(y[0].shape(), [1, 2, 2, 2]);
            y[0].elements::<i32>().unwrap().to_vec()
        };
        assert_eq!(run(ChannelOrder::Dcr), [0, 2, 4, 6, 1, 3, 5, 7]);
        assert_eq!(run(ChannelOrder::Crd), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn each_undoes_the_other() {
        let x = Tensor::from_vec([2, 3, 4, 6], (0..144).collect::<Vec<i32>>()).unwrap();
        for order in [ChannelOrder::Dcr, ChannelOrder::Crd] {
            let op = SpaceToDepth { block: 2, order };
            assert_eq!(SpaceToDepth::read(Operator::attributes(&op)), Ok(op));
            let deep = op.eval(&[Some(&x)], 1).unwrap();
            assert_eq!(deep[0].shape(), [2, 12, 2, 3]);
            let op = DepthToSpace { block: 2, order };
            assert_eq!(op.eval(&[Some(&deep[0])], 1).unwrap()[0], x);
            assert!(SpaceToDepth { block: 4, order }.eval(&[Some(&x)], 1).is_err());
        }
    }
}
