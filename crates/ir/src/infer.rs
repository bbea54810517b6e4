//! Type and shape inference over a whole graph: what each operator says of its outputs, merged with what the model
//! declares. Symbols are carried along; the operators' own rules are in [`crate::ops`].

use crate::dim::{Bindings, Dim};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId, ValueId};
use crate::ops::{InputInfo, Op};
use crate::signature;
use crate::tensor::Tensor;
use crate::value_type::ValueType;
use std::collections::HashMap;

/// Tensors of at most this many elements are followed through shape computations.
const SMALL: usize = 64;

/// Fills in the types of all values, in topological order. The graph stays as it was when there is an error.
///
/// What is recorded is merged with what follows from the inputs: known beats unknown, a recorded symbol gives way to what is
/// inferred. Extents that a file declares (its `value_info` and outputs) give way as well, see [`Graph::declared`].
///
/// # Errors
/// When an operator refuses its inputs, or when a recorded type contradicts the inferred one; the error names the node.
pub fn infer(graph: &mut Graph) -> Result<()> {
    for (id, ty) in inferred(graph)? {
        graph.set_ty(id, ty);
    }
    Ok(())
}

/// Gives values to symbols and infers again. The graph stays as it was when there is an error.
///
/// # Errors
/// As [`infer`], and when an extent of an input overflows or becomes negative.
pub fn bind(graph: &mut Graph, bindings: &Bindings) -> Result<()> {
    rebind(graph, bindings, bindings, &[])
}

/// Gives static shapes to inputs by name, as `--shape` does: binds the symbols they stand for and infers again. Gives warnings:
/// a symbol that stands for different extents in several inputs, and what the file declares otherwise.
///
/// # Errors
/// When there is no such input, when a shape contradicts what the model declares, and as [`infer`].
pub fn set_input_shapes(graph: &mut Graph, shapes: &[(&str, &[usize])]) -> Result<Vec<String>> {
    let bound = signature::bind_shapes(graph, shapes)?;
    let mut warnings: Vec<String> = bound.conflict.into_iter().collect();
    let result = rebind(graph, &bound.bindings, &bound.agreed, shapes);
    if let Err(error) = result {
        // The same name in two inputs may be no more than careless.
        let mut apart = graph.clone();
        let Some(name) = signature::take_symbols_apart(&mut apart) else { return Err(error) };
        let bound = signature::bind_shapes(&apart, shapes)?;
        if rebind(&mut apart, &bound.bindings, &bound.agreed, shapes).is_err() {
            return Err(error);
        }
        *graph = apart;
        warnings.push(format!(
            "`{name}` names extents of several inputs that cannot be equal; each is taken alone"
        ));
    }
    warnings.extend(graph.stale_declarations());
    Ok(warnings)
}

fn rebind(
    graph: &mut Graph,
    bindings: &Bindings,
    agreed: &Bindings,
    shapes: &[(&str, &[usize])],
) -> Result<()> {
    let before: Vec<(ValueId, ValueType)> =
        graph.values().map(|(id, value)| (id, value.ty.clone())).collect();
    let result = bind_types(graph, bindings, agreed, shapes);
    if result.is_err() {
        for (id, ty) in before {
            graph.set_ty(id, ty);
        }
    }
    result
}

/// Symbolic extents of what nodes make are a view of the general case (a slice is taken not to be empty), so they are
/// inferred anew, and their bound values count only where inference knows nothing, and the inputs agree on their symbols.
fn bind_types(
    graph: &mut Graph,
    bindings: &Bindings,
    agreed: &Bindings,
    shapes: &[(&str, &[usize])],
) -> Result<()> {
    let mut made: Vec<(ValueId, Vec<Dim>)> = vec![];
    let ids: Vec<ValueId> = graph.values().map(|(id, _)| id).collect();
    for id in ids {
        let Some(shape) = graph.ty(id).shape.clone() else { continue };
        if shape.iter().all(|dim| dim.known_i64().is_some()) {
            continue;
        }
        let keep_known = |dim: &Dim| if dim.known_i64().is_some() { dim.clone() } else { Dim::unknown() };
        let bound = match graph.producer(id) {
            Some(_) => {
                let open = shape.iter().map(keep_known).collect();
                made.push((id, shape));
                open
            }
            None => bind_shape(&graph.value(id).name, &shape, bindings)?,
        };
        graph.set_ty(id, ValueType { dtype: graph.ty(id).dtype, shape: Some(bound) });
    }
    for &(name, shape) in shapes {
        if let Some(id) = graph.find_value(name) {
            let shape = Some(shape.iter().map(|&extent| extent.into()).collect());
            graph.set_ty(id, ValueType { dtype: graph.ty(id).dtype, shape });
        }
    }
    infer(graph)?;
    let mut filled = false;
    for (id, shape) in made {
        let mut ty = graph.ty(id).clone();
        for (dim, general) in ty.shape.iter_mut().flatten().zip(shape).filter(|(dim, _)| dim.is_unknown()) {
            let bound = general.bind(agreed).unwrap_or(Dim::unknown());
            if !bound.is_unknown() && bound.known_i64().is_none_or(|extent| extent >= 0) {
                *dim = bound;
                filled = true;
            }
        }
        graph.set_ty(id, ty);
    }
    if filled { infer(graph) } else { Ok(()) }
}

fn bind_shape(name: &str, shape: &[Dim], bindings: &Bindings) -> Result<Vec<Dim>> {
    let bound = |dim: &Dim| {
        let bound = dim.bind(bindings)?;
        if bound.known_i64().is_some_and(|extent| extent < 0) {
            return Err(Error::Geometry(format!("extent {dim} of `{name}` becomes {bound}")));
        }
        Ok(bound)
    };
    shape.iter().map(bound).collect()
}

/// The types of all node outputs as [`infer`] would set them.
///
/// # Errors
/// As [`infer`].
pub fn inferred(graph: &Graph) -> Result<Vec<(ValueId, ValueType)>> {
    let mut inference =
        Inference { graph, types: HashMap::new(), extents: HashMap::new(), tensors: HashMap::new() };
    let order = graph.order()?;
    for &id in &order {
        crate::budget::check()?;
        let node = graph.node(id);
        inference.node(id).map_err(|error| error.at(&node.name, node.op.name()))?;
    }
    let outputs = order.iter().flat_map(|&id| graph.node(id).outputs().iter().flatten());
    Ok(outputs.filter_map(|&id| Some((id, inference.types.remove(&id)?))).collect())
}

/// What has been found out so far.
struct Inference<'g> {
    graph: &'g Graph,
    types: HashMap<ValueId, ValueType>,
    /// Elements of short integer tensors, symbolically.
    extents: HashMap<ValueId, Vec<Dim>>,
    /// Small tensors that are known without being constants of the graph.
    tensors: HashMap<ValueId, Tensor>,
}

impl Inference<'_> {
    fn node(&mut self, id: NodeId) -> Result<()> {
        let node = self.graph.node(id);
        for &input in node.inputs().iter().flatten() {
            self.note_constant(input);
        }
        let inputs: Vec<_> = node.inputs().iter().map(|input| input.map(|id| self.info(id))).collect();
        let types = node.op.infer(&inputs, node.outputs().len())?;
        if types.len() < node.outputs().len() {
            let problem = format!("makes {} outputs, the node names {}", types.len(), node.outputs().len());
            return Err(Error::Graph(problem));
        }
        let extents = node.op.infer_extents(&inputs);
        let mut found: Vec<(ValueId, ValueType)> = Vec::with_capacity(types.len());
        for (output, ty) in node.outputs().iter().zip(types) {
            let Some(output) = *output else { continue };
            let recorded = self.graph.ty(output);
            let given_way = self.graph.declared(output).map(|_| yielding(recorded, &ty));
            let merged = merge(given_way.as_ref().unwrap_or(recorded), &ty).map_err(|problem| {
                let value = self.graph.value(output);
                Error::Type(format!(
                    "`{}` is declared {}, but {ty} follows from the inputs: {problem}",
                    value.name, value.ty
                ))
            })?;
            found.push((output, merged));
        }
        let tensors = evaluate(&node.op, &inputs, &found, node.outputs());
        for (id, tensor) in tensors {
            if let Some(extents) = elements(&tensor) {
                self.extents.insert(id, extents);
            }
            self.tensors.insert(id, tensor);
        }
        if let (Some(extents), Some(output)) = (extents, node.output(0))
            && extents.len() <= SMALL
        {
            self.note_extents(output, extents, found.first().map(|(_, ty)| ty));
        }
        self.types.extend(found);
        Ok(())
    }

    fn info(&self, id: ValueId) -> InputInfo<'_> {
        InputInfo {
            ty: self.types.get(&id).unwrap_or_else(|| self.graph.ty(id)),
            constant: self.graph.constant(id).or_else(|| self.tensors.get(&id)),
            extents: self.extents.get(&id).map(Vec::as_slice),
        }
    }

    /// Elements of an integer constant, the first time it is read.
    fn note_constant(&mut self, id: ValueId) {
        if let Some(tensor) = self.graph.constant(id)
            && tensor.dtype().is_integer()
            && !self.extents.contains_key(&id)
            && let Some(extents) = elements(tensor)
        {
            self.extents.insert(id, extents);
        }
    }

    /// Extents that an operator computed; when all are numbers, the tensor as well.
    fn note_extents(&mut self, id: ValueId, extents: Vec<Dim>, ty: Option<&ValueType>) {
        let numbers: Option<Vec<i64>> = extents.iter().map(Dim::known_i64).collect();
        if let (Some(numbers), Some(ty)) = (numbers, ty)
            && let (Some(DType::I64), Some(shape)) = (ty.dtype, ty.known_shape())
            && let Ok(tensor) = Tensor::from_i64s(&numbers).reshaped(shape)
        {
            self.tensors.entry(id).or_insert(tensor);
        }
        self.extents.entry(id).or_insert(extents);
    }
}

/// Evaluates an operator on small tensors that are all known: shape computations take detours over floats.
fn evaluate(
    op: &Op,
    inputs: &[Option<InputInfo<'_>>],
    found: &[(ValueId, ValueType)],
    outputs: &[Option<ValueId>],
) -> Vec<(ValueId, Tensor)> {
    let is_small = |shape: &[usize]| {
        shape.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent)).is_some_and(|n| n <= SMALL)
    };
    let known = |info: &InputInfo<'_>| info.constant.is_some_and(|tensor| is_small(tensor.shape()));
    let random = matches!(op, Op::Random(_) | Op::Bernoulli(_) | Op::Multinomial(_) | Op::Dropout(_));
    let possible = !random
        && !matches!(op, Op::Opaque(_))
        && inputs.iter().flatten().all(known)
        && found.iter().all(|(_, ty)| ty.known_shape().is_some_and(|shape| is_small(&shape)));
    if !possible {
        return vec![];
    }
    let tensors: Vec<Option<&Tensor>> =
        inputs.iter().map(|info| info.and_then(|info| info.constant)).collect();
    // An operator that cannot be evaluated here is one whose elements stay unknown.
    let results = op.eval(&tensors, outputs.len()).unwrap_or_default();
    outputs.iter().zip(results).filter_map(|(output, tensor)| Some(((*output)?, tensor))).collect()
}

/// Elements of a short integer tensor of rank 0 or 1.
fn elements(tensor: &Tensor) -> Option<Vec<Dim>> {
    if tensor.rank() > 1 || tensor.len() > SMALL {
        return None;
    }
    Some(tensor.to_i64s().ok()?.into_iter().map(Dim::constant).collect())
}

/// What is known from either. Symbols of `declared` give way to what is inferred, numbers do not.
///
/// # Errors
/// Says what contradicts.
pub(crate) fn merge(declared: &ValueType, inferred: &ValueType) -> Result<ValueType, String> {
    let dtype = match (declared.dtype, inferred.dtype) {
        (Some(a), Some(b)) if a != b => return Err(format!("{a} is not {b}")),
        (a, b) => b.or(a),
    };
    let shape = match (&declared.shape, &inferred.shape) {
        (Some(a), Some(b)) if a.len() != b.len() => {
            return Err(format!("{} axes are not {}", a.len(), b.len()));
        }
        (Some(a), Some(b)) => {
            let axes = a.iter().zip(b).enumerate();
            Some(axes.map(|(axis, (a, b))| merge_dims(axis, a, b)).collect::<Result<_, _>>()?)
        }
        (a, b) => b.clone().or_else(|| a.clone()),
    };
    if let Some(negative) =
        shape.iter().flatten().find(|dim: &&Dim| dim.known_i64().is_some_and(|extent| extent < 0))
    {
        return Err(format!("an extent would be {negative}"));
    }
    Ok(ValueType { dtype, shape })
}

/// What a file declares, without the extents that contradict what is inferred, or of which inference knows more.
fn yielding(declared: &ValueType, inferred: &ValueType) -> ValueType {
    let shape = match (&declared.shape, &inferred.shape) {
        (Some(a), Some(b)) if a.len() == b.len() => {
            let dims = a.iter().zip(b);
            Some(dims.map(|(a, b)| if b.is_unknown() { a.clone() } else { Dim::unknown() }).collect())
        }
        (Some(_), Some(_)) => None,
        (declared, _) => declared.clone(),
    };
    ValueType { dtype: declared.dtype, shape }
}

fn merge_dims(axis: usize, declared: &Dim, inferred: &Dim) -> Result<Dim, String> {
    match (declared.known_i64(), inferred.known_i64()) {
        (Some(a), Some(b)) if a != b => Err(format!("extents {a} and {b} of axis {axis} differ")),
        (Some(_), None) => Ok(declared.clone()),
        _ if inferred.is_unknown() => Ok(declared.clone()),
        _ => Ok(inferred.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Opaque, Unary};
    use crate::{AttributeValue, Attributes};

    fn symbolic(dims: &[&str]) -> ValueType {
        ValueType::new(DType::F32, dims.iter().map(|name| Dim::symbol(name)))
    }

    /// x -> Relu -> y -> Neg -> z, with `y` declared as given.
    fn chain(x: ValueType, y: ValueType) -> (Graph, ValueId, ValueId) {
        let mut graph = Graph::new("chain");
        let x = graph.add_input("x", x).unwrap();
        let (_, y) = graph.add_node("y", Unary::Relu, &[Some(x)], vec![y]).unwrap();
        let (_, z) = graph.add_node("z", Unary::Neg, &[Some(y[0])], vec![ValueType::default()]).unwrap();
        graph.add_output(z[0]);
        (graph, y[0], z[0])
    }

    #[test]
    fn types_flow_and_declared_symbols_give_way() {
        let (mut graph, y, z) = chain(symbolic(&["N", "H"]), symbolic(&["batch", "out"]));
        infer(&mut graph).unwrap();
        assert_eq!(graph.ty(y), &symbolic(&["N", "H"]));
        assert_eq!(graph.ty(z), &symbolic(&["N", "H"]));
        assert_eq!(graph.symbols(), ["N", "H"]);
        bind(&mut graph, &Bindings::from([("H".into(), 5)])).unwrap();
        assert_eq!(graph.ty(z).to_string(), "f32[N, 5]");
        assert_eq!(graph.symbols(), ["N"]);
    }

    #[test]
    fn declared_types_fill_what_is_unknown() {
        let (mut graph, y, z) = chain(symbolic(&["?", "H"]), ValueType::new(DType::F32, [3usize, 4]));
        infer(&mut graph).unwrap();
        assert_eq!(graph.ty(y).to_string(), "f32[3, 4]");
        assert_eq!(graph.ty(z).to_string(), "f32[3, 4]");
    }

    #[test]
    fn contradictions_name_value_types_and_node() {
        let (mut graph, ..) =
            chain(ValueType::new(DType::F32, [3usize]), ValueType::new(DType::F32, [4usize]));
        let before = graph.clone();
        let error = infer(&mut graph).unwrap_err().to_string();
        assert_eq!(
            error,
            "node `y` (Relu): type: `y` is declared f32[4], but f32[3] follows from the inputs: \
             extents 4 and 3 of axis 0 differ"
        );
        assert!(graph == before, "the graph stays as it was");
        let (mut graph, ..) = chain(ValueType::new(DType::F32, [3usize]), ValueType::unranked(DType::I64));
        assert!(infer(&mut graph).unwrap_err().to_string().contains("i64 is not f32"));
    }

    #[test]
    fn shapes_are_given_by_name() {
        let (mut graph, _, z) = chain(symbolic(&["N", "H", "?"]), ValueType::default());
        set_input_shapes(&mut graph, &[("x", &[1, 8, 9])]).unwrap();
        assert_eq!(graph.ty(z).to_string(), "f32[1, 8, 9]");
        let error = set_input_shapes(&mut graph, &[("x", &[2, 8, 9])]).unwrap_err();
        assert_eq!(error.to_string(), "axis 0 of input `x` is to be 1, 2 was given");
        let error = set_input_shapes(&mut graph, &[("y", &[2])]).unwrap_err();
        assert_eq!(error.to_string(), "there is no input `y`; the inputs are: `x` f32[1, 8, 9]");
    }

    #[test]
    fn empty_slices_are_found_when_symbols_are_bound() {
        let text = "input %x : f32[H]\nconst @two : i64[1] = [2]\nconst @end : i64[1] = [9]\n\
                    %y = Slice(%x, @two, @end)\n%z = ::Mystery(%y)\noutput %z";
        let mut graph: Graph = text.parse().unwrap();
        let (y, z) = (graph.find_value("y").unwrap(), graph.find_value("z").unwrap());
        graph.set_ty(y, ValueType::new(DType::F32, ["H - 2".parse::<Dim>().unwrap()]));
        graph.set_ty(z, symbolic(&["H"]));
        bind(&mut graph, &Bindings::from([("H".into(), 1)])).unwrap();
        assert_eq!(graph.ty(y).to_string(), "f32[0]");
        assert_eq!(graph.ty(z).to_string(), "f32[1]", "what only the model knows is bound");
    }

    #[test]
    fn unknown_operators_leave_what_is_declared() {
        let mut graph = Graph::new("g");
        let x = graph.add_input("x", symbolic(&["N"])).unwrap();
        let attributes = Attributes::new().with("k", AttributeValue::Int(1));
        let op = Opaque::new("local", "Mystery", attributes, 0);
        let (_, y) = graph.add_node("y", op, &[Some(x)], vec![symbolic(&["M"])]).unwrap();
        graph.add_output(y[0]);
        infer(&mut graph).unwrap();
        assert_eq!(graph.ty(y[0]), &symbolic(&["M"]));
    }
}
