//! NonMaxSuppression: boxes of a class, without those that overlap with better ones.

use super::support::inputs::{at_most, check_dtype, optional, required};
use super::support::scalar_input::{one_f64, one_i64};
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `NonMaxSuppression`: `boxes [N, B, 4], scores [N, C, B], max_output_boxes_per_class?, iou_threshold?,
/// score_threshold? -> selected_indices [S, 3]`: image, class and box, by falling score within each class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NonMaxSuppression {
    /// Boxes are a middle, a width and a height; else two opposite corners, `y1, x1, y2, x2`.
    pub center_point_box: bool,
}

/// A box by its least and greatest corner.
#[derive(Clone, Copy)]
struct Corners {
    low: [f32; 2],
    high: [f32; 2],
}

impl Corners {
    fn area(self) -> f32 {
        (self.high[0] - self.low[0]) * (self.high[1] - self.low[1])
    }

    /// The common part over the whole of both; 0 where there is none.
    fn overlap(self, other: Self) -> f32 {
        let common = Self {
            low: [0, 1].map(|axis| self.low[axis].max(other.low[axis])),
            high: [0, 1].map(|axis| self.high[axis].min(other.high[axis])),
        };
        let apart = (0..2).any(|axis| common.high[axis] <= common.low[axis]);
        let union = self.area() + other.area() - common.area();
        let none = apart || common.area() <= 0.0 || self.area() <= 0.0 || other.area() <= 0.0 || union <= 0.0;
        if none { 0.0 } else { common.area() / union }
    }
}

impl NonMaxSuppression {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let center_point_box = attributes.flag("center_point_box", false)?;
        attributes.finish("center_point_box")?;
        Ok(Self { center_point_box })
    }

    fn corners(self, numbers: &[f32]) -> Corners {
        let [a, b, c, d] = [numbers[0], numbers[1], numbers[2], numbers[3]];
        if self.center_point_box {
            let (x, y, width, height) = (a, b, c / 2.0, d / 2.0);
            Corners { low: [y - height, x - width], high: [y + height, x + width] }
        } else {
            Corners { low: [a.min(c), b.min(d)], high: [a.max(c), b.max(d)] }
        }
    }
}

impl Operator for NonMaxSuppression {
    fn name(&self) -> &str {
        "NonMaxSuppression"
    }

    fn attributes(&self) -> Attributes {
        if self.center_point_box { Attributes::new().with("center_point_box", 1) } else { Attributes::new() }
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 5)?;
        let (boxes, scores) = (required(inputs, 0, "boxes")?.ty, required(inputs, 1, "scores")?.ty);
        check_dtype(0, "boxes", boxes.dtype, |dtype| dtype == DType::F32, "f32")?;
        check_dtype(1, "scores", scores.dtype, |dtype| dtype == DType::F32, "f32")?;
        for (index, name, wanted) in [
            (2, "max_output_boxes_per_class", DType::I64),
            (3, "iou_threshold", DType::F32),
            (4, "score_threshold", DType::F32),
        ] {
            let found = optional(inputs, index).and_then(|input| input.ty.dtype);
            check_dtype(index, name, found, |dtype| dtype == wanted, wanted.name())?;
        }
        let fits = |a: &Dim, b: &Dim| a.equals(b) != Some(false);
        if let Some(shape) = &boxes.shape
            && !matches!(shape.as_slice(), [_, _, four] if fits(four, &4.into()))
        {
            return Err(Error::input(0, "boxes", format!("expected [N, boxes, 4], found {boxes}")));
        }
        if let Some(shape) = &scores.shape {
            let same = match (shape.as_slice(), boxes.shape.as_deref()) {
                ([n, _, count], Some([images, boxes, _])) => fits(n, images) && fits(count, boxes),
                (shape, _) => shape.len() == 3,
            };
            if !same {
                let problem = format!("expected [N, classes, boxes] for boxes {boxes}, found {scores}");
                return Err(Error::input(1, "scores", problem));
            }
        }
        Ok(vec![ValueType::new(DType::I64, [Dim::unknown(), 3usize.into()])])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (boxes, scores) = (required(inputs, 0, "boxes")?, required(inputs, 1, "scores")?);
        let given = |index: usize| optional(inputs, index).filter(|tensor| !tensor.is_empty());
        let most = given(2).map(|tensor| one_i64(tensor, 2, "max_output_boxes_per_class")).transpose()?;
        let most = usize::try_from(most.unwrap_or(0)).unwrap_or(0);
        let overlap = given(3).map(|tensor| one_f64(tensor, 3, "iou_threshold")).transpose()?;
        let overlap = overlap.unwrap_or(0.0) as f32;
        if !(0.0..=1.0).contains(&overlap) {
            return Err(Error::input(3, "iou_threshold", format!("expected 0 to 1, found {overlap}")));
        }
        let least = given(4).map(|tensor| one_f64(tensor, 4, "score_threshold")).transpose()?;
        let (count, classes) = (boxes.shape()[1], scores.shape()[1]);
        let (corners, scores) = (boxes.elements::<f32>()?, scores.elements::<f32>()?);
        let mut selected: Vec<i64> = vec![];
        for (number, scores) in scores.chunks(count.max(1)).enumerate() {
            let (image, class) = (number / classes, number % classes);
            let corners = |i: usize| self.corners(&corners[(image * count + i) * 4..][..4]);
            let mut order: Vec<usize> = (0..scores.len())
                .filter(|&i| least.is_none_or(|least| f64::from(scores[i]) > least))
                .collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
            let mut kept: Vec<Corners> = vec![];
            for i in order {
                if kept.len() >= most {
                    break;
                }
                let candidate = corners(i);
                if kept.iter().all(|&better| candidate.overlap(better) <= overlap) {
                    kept.push(candidate);
                    selected.extend([image as i64, class as i64, i as i64]);
                }
            }
        }
        Ok(vec![Tensor::from_i64s(&selected).reshaped([selected.len() / 3, 3])?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Op;

    fn run(op: NonMaxSuppression, boxes: &[f32], scores: &[f32], limits: [f32; 3]) -> Result<Vec<i64>> {
        assert_eq!(NonMaxSuppression::read(op.attributes()), Ok(op));
        let boxes = Tensor::from_vec([1, boxes.len() / 4, 4], boxes.to_vec()).unwrap();
        let scores = Tensor::from_vec([1, 1, scores.len()], scores.to_vec()).unwrap();
        let most = Tensor::scalar(limits[0] as i64);
        let [overlap, least] = [limits[1], limits[2]].map(Tensor::scalar);
        let inputs = [&boxes, &scores, &most, &overlap, &least].map(Some);
        Ok(Op::from(op).eval(&inputs, 1)?[0].to_i64s()?.into_iter().skip(2).step_by(3).collect())
    }

    const CORNERS: NonMaxSuppression = NonMaxSuppression { center_point_box: false };

    #[test]
    fn the_best_of_overlapping_boxes_stay() {
        // The second overlaps with the first by a third, given with its corners exchanged; the third stands apart.
        let boxes = [0.0, 0.0, 2.0, 2.0, 3.0, 2.0, 1.0, 0.0, 5.0, 5.0, 6.0, 6.0];
        let scores = [0.9, 0.95, 0.3];
        assert_eq!(run(CORNERS, &boxes, &scores, [9.0, 0.3, 0.0]).unwrap(), [1, 2]);
        assert_eq!(run(CORNERS, &boxes, &scores, [9.0, 0.4, 0.0]).unwrap(), [1, 0, 2]);
        assert_eq!(run(CORNERS, &boxes, &scores, [1.0, 0.4, 0.0]).unwrap(), [1]);
        assert_eq!(run(CORNERS, &boxes, &scores, [9.0, 0.4, 0.9]).unwrap(), [1]);
        assert!(run(CORNERS, &boxes, &scores, [0.0, 0.4, 0.0]).unwrap().is_empty());
        // The same by middle, width and height.
        let middle = [1.0, 1.0, 2.0, 2.0, 1.0, 2.0, 2.0, 2.0, 5.5, 5.5, 1.0, 1.0];
        let op = NonMaxSuppression { center_point_box: true };
        assert_eq!(run(op, &middle, &scores, [9.0, 0.3, 0.0]).unwrap(), [1, 2]);
    }

    #[test]
    fn equals_stay_in_order_and_exact_overlap_is_kept() {
        let boxes = [0.0, 0.0, 1.0, 1.0].repeat(3);
        assert_eq!(run(CORNERS, &boxes, &[0.5; 3], [9.0, 0.99, 0.0]).unwrap(), [0]);
        assert_eq!(run(CORNERS, &boxes, &[0.5; 3], [9.0, 1.0, 0.0]).unwrap(), [0, 1, 2]);
    }

    #[test]
    fn wrong_shapes_and_thresholds_are_named() {
        let error = run(CORNERS, &[0.0; 8], &[0.5], [9.0, 0.5, 0.0]).unwrap_err().to_string();
        assert!(error.contains("[N, classes, boxes] for boxes f32[1, 2, 4]"), "{error}");
        let error = run(CORNERS, &[0.0; 4], &[0.5], [9.0, 1.5, 0.0]).unwrap_err().to_string();
        assert_eq!(error, "input 3 (iou_threshold): expected 0 to 1, found 1.5");
        assert!(run(CORNERS, &[], &[], [9.0, 0.5, 0.0]).unwrap().is_empty());
    }
}
