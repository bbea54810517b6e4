//! Where other engines compute something else than ONNX's text and its reference evaluator: networks that depend on it are told,
//! and spelled so that they mean what the other engine does, where a caller asks for that. `docs/differences.md` is about it.

use crate::error::{Error, Result};
use crate::journal::{Decision, Journal};
use crate::options::Compat;
use std::fmt;
use std::str::FromStr;
use tconvc_ir::ops::{AspectRatio, MaxUnpool};
use tconvc_ir::resize_axis::Coordinates;
use tconvc_ir::{Graph, NodeId, Op, Tensor};

/// Under this name rewrites stand in the journal.
const NAME: &str = "compat";

impl Compat {
    /// Every one, [`Compat::Onnx`] first.
    pub const ALL: [Self; 2] = [Self::Onnx, Self::OnnxRuntime];

    /// As the command line spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Onnx => "onnx",
            Self::OnnxRuntime => "onnxruntime",
        }
    }
}

impl fmt::Display for Compat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Compat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|compat| compat.name() == text).ok_or_else(|| Error::Option {
            option: "compat",
            problem: format!("`{text}` is not one of {}", Self::ALL.map(Self::name).join(", ")),
        })
    }
}

/// What a node means to others.
enum Difference {
    /// A Resize whose corners meet: these are the extents of its output along its axes.
    Corners(Vec<usize>),
    /// A MaxUnpool whose indices count in the wanted shape: with windows of this kernel it follows from the input.
    Kernel(Vec<usize>),
}

/// A warning for each kind of node whose result onnxruntime has otherwise, as far as constants and extents are known.
pub fn warnings(graph: &Graph) -> Vec<String> {
    let (mut corners, mut windows) = (vec![], vec![]);
    for node in graph.order().unwrap_or_default() {
        match difference(graph, node) {
            Some(Difference::Corners(_)) => corners.push(&*graph.node(node).name),
            Some(Difference::Kernel(_)) => windows.push(&*graph.node(node).name),
            None => {}
        }
    }
    let told = |nodes: &[&str], what: &str| {
        let more = match nodes.len() {
            0 => return None,
            1 => String::new(),
            all => format!(" and {} more", all - 1),
        };
        Some(format!(
            "node `{}`{more}: {what}; --compat onnxruntime does as onnxruntime and PyTorch do",
            nodes[0]
        ))
    };
    [
        told(
            &corners,
            "Resize with align_corners and a scale that gives no whole extent is computed by ONNX's definition, where the \
             corners do not meet",
        ),
        told(
            &windows,
            "MaxUnpool with an output_shape that does not follow from its windows is computed by ONNX's definition, where \
             indices count in the shape that follows",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Spells the nodes of which a meaning other than ONNX's is asked for so that ONNX's is that one, too.
///
/// # Errors
/// When the graph has a circle.
pub fn apply(graph: &mut Graph, compat: Compat, journal: &mut Journal) -> Result<()> {
    if compat == Compat::Onnx {
        return Ok(());
    }
    for node in graph.order()? {
        let Some(difference) = difference(graph, node) else { continue };
        let (name, op) = (graph.node(node).name.clone(), graph.node(node).op.name().to_owned());
        let what = match difference {
            Difference::Corners(extents) => {
                let sizes: Vec<i64> = extents.iter().map(|&extent| extent as i64).collect();
                let sizes = graph.add_constant(&format!("{name}.sizes"), Tensor::from_i64s(&sizes));
                graph.set_input(node, 2, None);
                graph.set_input(node, 3, Some(sizes));
                if let Op::Resize(resize) = graph.op_mut(node) {
                    // Scales are met as they are, whatever is said of sizes.
                    resize.aspect_ratio = AspectRatio::Stretch;
                }
                format!("to the sizes {extents:?}, so that corners meet")
            }
            Difference::Kernel(kernel) => {
                let what = format!("windows of {kernel:?}, so that indices count in the wanted shape");
                if let Op::MaxUnpool(unpool) = graph.op_mut(node) {
                    unpool.kernel_shape = kernel;
                }
                what
            }
        };
        journal.apply(NAME, &name, &op, Decision::only(what));
    }
    Ok(())
}

fn difference(graph: &Graph, node: NodeId) -> Option<Difference> {
    match &graph.node(node).op {
        Op::Resize(resize) if resize.coordinates == Coordinates::AlignCorners => {
            let scales = graph.constant_input(node, 2)?.to_f64s().ok()?;
            let input = graph.ty(graph.node(node).input(0)?).known_shape()?;
            let output = graph.ty(graph.node(node).output(0)?).known_shape()?;
            let axes = resize.named_axes(input.len()).ok()?;
            let fractional = axes.iter().zip(&scales).any(|(&axis, scale)| {
                let exact = scale * input[axis] as f64;
                // 0.7 is no number of the type, and 10 times it no fraction for that.
                output[axis] > 1 && (exact - output[axis] as f64).abs() > 1e-4
            });
            (fractional && axes.len() == scales.len())
                .then(|| Difference::Corners(axes.iter().map(|&axis| output[axis]).collect()))
        }
        Op::MaxUnpool(unpool) => {
            graph.node(node).input(2)?;
            let input = graph.ty(graph.node(node).input(0)?).known_shape()?;
            let wanted = graph.ty(graph.node(node).output(0)?).known_shape()?;
            enlarged(unpool, &input, &wanted).map(Difference::Kernel)
        }
        _ => None,
    }
}

/// The kernel from which a larger wanted shape follows.
fn enlarged(unpool: &MaxUnpool, input: &[usize], wanted: &[usize]) -> Option<Vec<usize>> {
    let inferred = unpool.pooled_from(input).ok()?;
    if wanted == inferred || wanted.len() != inferred.len() || wanted[..2] != inferred[..2] {
        return None;
    }
    let axes = unpool.kernel_shape.iter().zip(wanted[2..].iter().zip(&inferred[2..]));
    axes.map(|(kernel, (wanted, inferred))| wanted.checked_sub(*inferred).map(|more| kernel + more)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tconvc_ir::ops::Resize;
    use tconvc_ir::{DType, ValueType, infer, interp};

    fn run(op: Op, inputs: &[Tensor], compat: Compat) -> (Vec<f64>, Vec<String>, usize) {
        let mut graph = Graph::new("g");
        let x = graph.add_input("x", ValueType::new(DType::F32, inputs[0].shape().iter().copied())).unwrap();
        let mut values = vec![Some(x)];
        for (i, tensor) in inputs.iter().enumerate().skip(1) {
            let absent = tensor.shape() == [0];
            values.push((!absent).then(|| graph.add_constant(&format!("c{i}"), tensor.clone())));
        }
        let (_, y) = graph.add_node("node", op, &values, vec![ValueType::default()]).unwrap();
        graph.add_output(y[0]);
        infer::infer(&mut graph).unwrap();
        let told = warnings(&graph);
        let mut journal = Journal::new();
        apply(&mut graph, compat, &mut journal).unwrap();
        infer::infer(&mut graph).unwrap();
        let result = interp::run(&graph, &[("x", inputs[0].clone())]).unwrap();
        assert!(warnings(&graph).is_empty() || compat == Compat::Onnx);
        (result[0].1.to_f64s().unwrap(), told, journal.applied().count())
    }

    #[test]
    fn corners_meet_where_onnxruntime_has_them_meet() {
        let op = |axes: &[i64]| {
            Op::Resize(Resize {
                mode: tconvc_ir::ops::ResizeMode::Linear,
                coordinates: Coordinates::AlignCorners,
                axes: axes.to_vec(),
                aspect_ratio: AspectRatio::NotLarger,
                ..Resize::default()
            })
        };
        let x = Tensor::from_vec([1, 1, 3], vec![0f32, 1.0, 2.0]).unwrap();
        let none = Tensor::from_vec([0], Vec::<f32>::new()).unwrap();
        for (axes, scales) in [(&[][..], vec![1f32, 1.0, 1.9]), (&[2][..], vec![1.9f32])] {
            let scales = Tensor::from_vec([scales.len()], scales).unwrap();
            let inputs = [x.clone(), none.clone(), scales];
            let (theirs, told, applied) = run(op(axes), &inputs, Compat::OnnxRuntime);
            assert_eq!(theirs, [0.0, 0.5, 1.0, 1.5, 2.0]);
            assert!(
                told[0].starts_with("node `node`: Resize with align_corners") && applied == 1,
                "{told:?}"
            );
            let (ours, _, applied) = run(op(axes), &inputs, Compat::Onnx);
            assert!((ours[4] - 8.0 / 4.7).abs() < 1e-6 && applied == 0, "{ours:?}");
        }
        // Whole extents, whatever the scale: nobody disagrees.
        for (extent, scale) in [(4, 1.75f32), (10, 0.7), (3, 2.0)] {
            let x = Tensor::from_vec([extent], vec![0f32; extent]).unwrap();
            let scales = Tensor::from_vec([1], vec![scale]).unwrap();
            let (_, told, applied) = run(op(&[]), &[x, none.clone(), scales], Compat::OnnxRuntime);
            assert!(told.is_empty() && applied == 0, "{extent} {scale}");
        }
    }

    #[test]
    fn indices_count_in_the_wanted_shape_for_onnxruntime() {
        let op = MaxUnpool { kernel_shape: vec![2, 2], strides: vec![2, 2], begin: vec![], end: vec![] };
        let x = Tensor::from_vec([1, 1, 2, 2], vec![1f32, 2.0, 3.0, 4.0]).unwrap();
        let indices = Tensor::from_vec([1, 1, 2, 2], vec![5i64, 7, 13, 24]).unwrap();
        let wanted = |shape: [i64; 4]| [x.clone(), indices.clone(), Tensor::from_i64s(&shape)];
        let (theirs, told, applied) = run(op.into(), &wanted([1, 1, 5, 5]), Compat::OnnxRuntime);
        let places: Vec<usize> = (0..25).filter(|&i| theirs[i] != 0.0).collect();
        assert_eq!(places, [5, 7, 13, 24]);
        assert!(told[0].contains("MaxUnpool with an output_shape") && applied == 1, "{told:?}");
    }

    #[test]
    fn names_are_read_and_written() {
        for compat in Compat::ALL {
            assert_eq!(compat.to_string().parse::<Compat>().unwrap(), compat);
        }
        assert!("openvino".parse::<Compat>().unwrap_err().to_string().contains("onnx, onnxruntime"));
    }
}
