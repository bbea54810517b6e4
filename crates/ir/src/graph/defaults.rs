//! Inputs that a caller may leave out: each has a tensor that counts unless another one is given. ONNX spells one as an
//! initialiser with the name of an input.

use super::{Definition, Graph, ValueId};
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

impl Graph {
    /// Gives an input a default. Its type is that of what a caller may give, and the default has to fit it.
    ///
    /// # Errors
    /// When the value is no input, or the tensor is of another type or shape than the input.
    pub fn set_default(&mut self, id: ValueId, tensor: Tensor) -> Result<()> {
        let value = self.value(id);
        if value.definition != Definition::Input {
            return Err(Error::Graph(format!("`{}` is no input, and has no default", value.name)));
        }
        if !value.ty.holds(&tensor) {
            let (name, ty, found) = (&value.name, &value.ty, ValueType::of(&tensor));
            return Err(Error::Graph(format!("input `{name}` is {ty}, its default is {found}")));
        }
        self.defaults.insert(id, tensor);
        Ok(())
    }

    /// What counts for an input that a caller leaves out; `None` where one has to be given.
    pub fn default_of(&self, id: ValueId) -> Option<&Tensor> {
        self.defaults.get(&id)
    }

    /// Takes the default away: the input has to be given.
    pub fn require_input(&mut self, id: ValueId) {
        self.defaults.remove(&id);
    }

    /// Inputs that have to be given, in order.
    pub fn required_inputs(&self) -> impl Iterator<Item = ValueId> {
        self.inputs.iter().copied().filter(|id| !self.defaults.contains_key(id))
    }

    /// True when every input has to be given.
    pub fn all_inputs_required(&self) -> bool {
        self.defaults.is_empty()
    }

    /// Turns the inputs with a default, but for those that are to `stay`, into constants.
    pub fn fix_defaults(&mut self, stay: impl Fn(&str) -> bool) {
        let fixed: Vec<ValueId> =
            self.defaults.keys().copied().filter(|&id| !stay(&self.value(id).name)).collect();
        for id in fixed {
            let Some(tensor) = self.defaults.remove(&id) else { continue };
            self.inputs.retain(|&input| input != id);
            let value = self.value_mut(id);
            value.ty = ValueType::of(&tensor);
            value.definition = Definition::Constant(tensor);
        }
    }

    /// Makes what reads an input read a constant of that tensor. The input itself stays, for callers to give.
    pub fn replace_input(&mut self, id: ValueId, tensor: Tensor) {
        let name = format!("{}.given", self.value(id).name);
        let ty = ValueType::of(&tensor);
        let constant = self.add_constant(&name, tensor);
        self.replace_uses(id, constant);
        self.defaults.remove(&id);
        self.set_ty(id, ty);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Binary;
    use crate::{DType, Dim};

    /// `y = x + w`, where `w` is 7 unless it is given.
    fn graph() -> (Graph, ValueId, ValueId) {
        let mut graph = Graph::new("g");
        let ty = || ValueType::new(DType::F32, [Dim::symbol("N")]);
        let x = graph.add_input("x", ty()).unwrap();
        let w = graph.add_input("w", ty()).unwrap();
        graph.set_default(w, Tensor::from_vec([1], vec![7f32]).unwrap()).unwrap();
        let (_, y) =
            graph.add_node("y", Binary::Add, &[Some(x), Some(w)], vec![ValueType::default()]).unwrap();
        graph.add_output(y[0]);
        (graph, x, w)
    }

    #[test]
    fn a_default_fits_its_input() {
        let (mut graph, _, w) = graph();
        let wrong = Tensor::from_vec([1, 1], vec![7f32]).unwrap();
        let error = graph.set_default(w, wrong).unwrap_err().to_string();
        assert_eq!(error, "graph: input `w` is f32[N], its default is f32[1, 1]");
        assert!(graph.set_default(w, Tensor::from_i64s(&[7])).is_err());
        assert!(graph.set_default(graph.outputs()[0], Tensor::scalar(1f32)).is_err());
    }

    #[test]
    fn what_is_fixed_is_no_input_any_more() {
        let (mut graph, x, w) = graph();
        assert_eq!(graph.required_inputs().collect::<Vec<_>>(), [x]);
        graph.fix_defaults(|name| name == "w");
        assert_eq!(graph.inputs(), [x, w]);
        graph.fix_defaults(|_| false);
        assert_eq!((graph.inputs(), graph.all_inputs_required()), ([x].as_slice(), true));
        assert_eq!(graph.constant(w).map(Tensor::len), Some(1));
        graph.check_structure().unwrap();
    }

    #[test]
    fn an_input_whose_value_is_known_is_not_read() {
        let (mut graph, x, w) = graph();
        graph.replace_input(w, Tensor::scalar(3f32));
        assert_eq!((graph.inputs(), graph.users(w).len()), ([x, w].as_slice(), 0));
        graph.check_structure().unwrap();
    }
}
