//! The reference interpreter: every node by its definition, in order, with types checked and dead values freed. It defines
//! what is right; it is not made to be fast.

use crate::budget;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Definition, Graph, Node, ValueId};
use crate::infer;
use crate::signature;
use crate::tensor::Tensor;
use crate::value_type::ValueType;
use std::collections::HashMap;

/// Runs a graph on inputs by name; gives its outputs by name, in their order. Inputs with a default may be left out.
///
/// # Errors
/// When the inputs do not fit (see [`signature::bind_inputs`]), or a node cannot be evaluated; the error names it.
pub fn run(graph: &Graph, inputs: &[(&str, Tensor)]) -> Result<Vec<(String, Tensor)>> {
    run_with(graph, inputs, &mut |_, _| {})
}

/// As [`run`], and shows every input and every value that a node makes to `observe`, in the order in which they are made.
///
/// # Errors
/// As [`run`].
pub fn run_with(
    graph: &Graph,
    inputs: &[(&str, Tensor)],
    observe: &mut dyn FnMut(ValueId, &Tensor),
) -> Result<Vec<(String, Tensor)>> {
    run_by(graph, inputs, observe, &mut |node, inputs| node.op.eval(inputs, node.outputs().len()))
}

/// What evaluates a node on its inputs.
pub type Eval<'a> = dyn FnMut(&Node, &[Option<&Tensor>]) -> Result<Vec<Tensor>> + 'a;

/// As [`run_with`], with nodes evaluated by `eval`.
///
/// # Errors
/// As [`run`].
pub fn run_by(
    graph: &Graph,
    inputs: &[(&str, Tensor)],
    observe: &mut dyn FnMut(ValueId, &Tensor),
    eval: &mut Eval<'_>,
) -> Result<Vec<(String, Tensor)>> {
    let _budget = budget::current_or_default();
    let given: Vec<(&str, DType, &[usize])> =
        inputs.iter().map(|(name, tensor)| (*name, tensor.dtype(), tensor.shape())).collect();
    signature::bind_inputs(graph, &given)?;
    let fixed = defaults_fixed(graph, inputs);
    let graph = fixed.as_ref().unwrap_or(graph);
    let bound = bound_to(graph, inputs)?;
    let graph = bound.as_ref().unwrap_or(graph);
    let mut state = State { graph, live: HashMap::new() };
    for (name, tensor) in inputs {
        if let Some(id) = graph.find_value(name) {
            observe(id, tensor);
            state.keep(id, tensor.clone());
        }
    }
    for id in graph.order()? {
        let node = graph.node(id);
        state.node(id, observe, eval).map_err(|error| error.at(&node.name, node.op.name()))?;
    }
    let output = |&id: &ValueId| {
        let tensor = state.tensor(id).cloned();
        tensor.map(|tensor| (graph.value(id).name.clone(), tensor))
    };
    graph.outputs().iter().map(output).collect()
}

/// The graph with the defaults of what is not given as constants, when there are any. Values keep their ids.
fn defaults_fixed(graph: &Graph, inputs: &[(&str, Tensor)]) -> Option<Graph> {
    if graph.all_inputs_required() {
        return None;
    }
    let mut fixed = graph.clone();
    fixed.fix_defaults(|name| inputs.iter().any(|(given, _)| *given == name));
    Some(fixed)
}

/// The graph with the shapes of these inputs, when it leaves any open. Values keep their ids.
fn bound_to(graph: &Graph, inputs: &[(&str, Tensor)]) -> Result<Option<Graph>> {
    if graph.inputs().iter().all(|&id| graph.ty(id).known_shape().is_some()) {
        return Ok(None);
    }
    let shapes: Vec<(&str, &[usize])> = inputs.iter().map(|(name, tensor)| (*name, tensor.shape())).collect();
    let mut bound = graph.clone();
    infer::set_input_shapes(&mut bound, &shapes)?;
    Ok(Some(bound))
}

struct State<'g> {
    graph: &'g Graph,
    /// Tensors that are still to be read, with the number of reads to come; graph outputs count as one.
    live: HashMap<ValueId, (Tensor, usize)>,
}

impl State<'_> {
    fn node(
        &mut self,
        id: crate::graph::NodeId,
        observe: &mut dyn FnMut(ValueId, &Tensor),
        eval: &mut Eval<'_>,
    ) -> Result<()> {
        let node = self.graph.node(id);
        let inputs = node.inputs().iter().map(|input| input.map(|id| self.tensor(id)).transpose());
        let results = eval(node, &inputs.collect::<Result<Vec<_>>>()?)?;
        if results.len() < node.outputs().len() {
            let problem = format!("made {} outputs, the node names {}", results.len(), node.outputs().len());
            return Err(Error::Graph(problem));
        }
        for &input in node.inputs().iter().flatten() {
            self.release(input);
        }
        for (output, tensor) in node.outputs().iter().zip(results) {
            let Some(output) = *output else { continue };
            self.check(output, &tensor)?;
            observe(output, &tensor);
            self.keep(output, tensor);
        }
        Ok(())
    }

    fn tensor(&self, id: ValueId) -> Result<&Tensor> {
        let value = self.graph.value(id);
        match value.definition() {
            Definition::Constant(tensor) => Some(tensor),
            _ => self.live.get(&id).map(|(tensor, _)| tensor),
        }
        .ok_or_else(|| Error::Graph(format!("nothing defines `{}`", value.name)))
    }

    fn keep(&mut self, id: ValueId, tensor: Tensor) {
        let reads = self.graph.users(id).len() + usize::from(self.graph.is_output(id));
        if reads > 0 {
            self.live.insert(id, (tensor, reads));
        }
    }

    fn release(&mut self, id: ValueId) {
        if let Some((_, reads)) = self.live.get_mut(&id) {
            *reads -= 1;
            if *reads == 0 {
                self.live.remove(&id);
            }
        }
    }

    /// What was computed must be what was inferred. What a file declares may be stale, but for the element type.
    fn check(&self, id: ValueId, tensor: &Tensor) -> Result<()> {
        let value = self.graph.value(id);
        let held_to = match self.graph.declared(id) {
            Some(_) => &ValueType { dtype: value.ty.dtype, shape: None },
            None => &value.ty,
        };
        if held_to.holds(tensor) {
            return Ok(());
        }
        let (name, expected, found) = (&value.name, &value.ty, ValueType::of(tensor));
        Err(Error::Type(format!("`{name}` is to be {expected}, its elements come out as {found}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dim::Dim;
    use crate::ops::Unary;

    fn vector(values: &[f32]) -> Tensor {
        Tensor::from_vec([values.len()], values.to_vec()).unwrap()
    }

    /// Two inputs of one symbol, `z = -relu(x)`; outputs z, x and a constant.
    fn graph() -> Graph {
        let mut graph = Graph::new("g");
        let ty = || ValueType::new(DType::F32, [Dim::symbol("N")]);
        let x = graph.add_input("x", ty()).unwrap();
        graph.add_input("w", ty()).unwrap();
        let (_, y) = graph.add_node("y", Unary::Relu, &[Some(x)], vec![ty()]).unwrap();
        let (_, z) = graph.add_node("z", Unary::Neg, &[Some(y[0])], vec![ty()]).unwrap();
        let c = graph.add_constant("c", vector(&[7.0]));
        for output in [z[0], x, c] {
            graph.add_output(output);
        }
        graph
    }

    #[test]
    fn outputs_come_by_name_in_order() {
        let graph = graph();
        let mut seen = vec![];
        let inputs = [("w", vector(&[0.0, 0.0])), ("x", vector(&[-1.0, 2.0]))];
        let outputs = run_with(&graph, &inputs, &mut |id, tensor| {
            seen.push((graph.value(id).name.clone(), tensor.len()));
        })
        .unwrap();
        let expected = [("z", vector(&[-0.0, -2.0])), ("x", vector(&[-1.0, 2.0])), ("c", vector(&[7.0]))];
        assert_eq!(outputs, expected.map(|(name, tensor)| (name.to_owned(), tensor)));
        assert_eq!(seen, [("w", 2), ("x", 2), ("y", 2), ("z", 2)].map(|(name, n)| (name.to_owned(), n)));
    }

    #[test]
    fn inputs_are_checked() {
        let error = |inputs: &[(&str, Tensor)]| run(&graph(), inputs).unwrap_err().to_string();
        let (one, two) = (vector(&[1.0]), vector(&[1.0, 2.0]));
        assert_eq!(error(&[("x", one.clone())]), "not given: `w`; the inputs are: `x` f32[N], `w` f32[N]");
        assert_eq!(
            error(&[("x", one.clone()), ("v", one.clone())]),
            "there is no input `v`; the inputs are: `x` f32[N], `w` f32[N]"
        );
        assert_eq!(error(&[("x", one.clone()), ("x", one.clone())]), "input `x` was given twice");
        let matrix = two.reshaped([2, 1]).unwrap();
        assert_eq!(
            error(&[("x", one.clone()), ("w", matrix)]),
            "input `w` is to be f32[N], shape [2, 1] was given"
        );
        assert_eq!(
            error(&[("x", one.clone()), ("w", Tensor::from_i64s(&[1]))]),
            "input `w` is to be f32[N], i64 was given"
        );
    }

    /// Exporters name extents alike that differ: each input keeps its own.
    #[test]
    fn symbols_may_stand_for_different_extents_in_two_inputs() {
        let outputs = run(&graph(), &[("x", vector(&[1.0])), ("w", vector(&[1.0, 2.0]))]).unwrap();
        assert_eq!(outputs[0].1, vector(&[-1.0]));
        let shapes: [(&str, &[usize]); 2] = [("x", &[1]), ("w", &[2])];
        let warnings = infer::set_input_shapes(&mut graph(), &shapes).unwrap();
        assert_eq!(
            warnings,
            ["`N` is 1 in input `x` and 2 in input `w`, axis 0; each is taken as it is given"]
        );
    }

    #[test]
    fn inputs_with_a_default_may_be_left_out() {
        let text = "input %x : f32[2]\ninput %w : f32[N] default f32[1] = [3.0]\n%y = Mul(%x, %w)\noutput %y";
        let graph: Graph = text.parse().unwrap();
        let run = |inputs: &[(&str, Tensor)]| run(&graph, inputs).map(|outputs| outputs[0].1.clone());
        let x = ("x", vector(&[1.0, 2.0]));
        assert_eq!(run(std::slice::from_ref(&x)).unwrap(), vector(&[3.0, 6.0]));
        assert_eq!(run(&[x.clone(), ("w", vector(&[4.0, 5.0]))]).unwrap(), vector(&[4.0, 10.0]));
        assert!(run(&[("w", vector(&[4.0]))]).unwrap_err().to_string().starts_with("not given: `x`"));
        assert!(run(&[x, ("w", Tensor::from_i64s(&[1]))]).is_err());
    }

    #[test]
    fn results_must_be_what_was_recorded() {
        let text = "input %x : f32[1]\n%z : f32[3] = Neg(%x)\noutput %z";
        let error = run(&text.parse().unwrap(), &[("x", vector(&[1.0]))]).unwrap_err().to_string();
        assert_eq!(error, "node `z` (Neg): type: `z` is to be f32[3], its elements come out as f32[1]");
    }

    #[test]
    fn symbols_may_stand_for_extents_that_make_a_slice_empty() {
        let text = "input %x : f32[H]\nconst @two : i64[1] = [2]\nconst @end : i64[1] = [9]\n\
                    %y = Slice(%x, @two, @end)\noutput %y";
        let mut graph: Graph = text.parse().unwrap();
        infer::infer(&mut graph).unwrap();
        assert_eq!(run(&graph, &[("x", vector(&[1.0]))]).unwrap()[0].1.shape(), [0]);
        assert_eq!(run(&graph, &[("x", vector(&[1.0; 5]))]).unwrap()[0].1.shape(), [3]);
    }
}
