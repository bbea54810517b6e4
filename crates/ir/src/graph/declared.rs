//! What a file says of the types of values that nodes make. It may be stale: what follows from the inputs counts, and where
//! both are known and differ, that is worth a warning. What a pass or a text records is held to.

use super::{Graph, ValueId};
use crate::value_type::ValueType;

impl Graph {
    /// Notes what a file says of a value's type, and takes it for what is known until types are inferred.
    pub fn declare(&mut self, id: ValueId, ty: ValueType) {
        if ty != ValueType::default() {
            self.declared.insert(id, ty.clone());
        }
        self.set_ty(id, ty);
    }

    /// What a file says of a value's type, where it says something.
    pub fn declared(&self, id: ValueId) -> Option<&ValueType> {
        self.declared.get(&id)
    }

    /// Where what was inferred is not what the file says: the first such value, outputs first, with both types, and how many
    /// there are. `None` where they agree.
    pub fn stale_declarations(&self) -> Option<String> {
        let stale = |id: ValueId| {
            let declared = self.declared(id)?;
            declared.contradicts(self.ty(id)).then_some((id, declared))
        };
        let all: Vec<_> = self.values().filter_map(|(id, _)| stale(id)).collect();
        let &(id, declared) = all.iter().find(|(id, _)| self.is_output(*id)).or(all.first())?;
        let what = if self.is_output(id) { "output" } else { "value" };
        let rest = match all.len() - 1 {
            0 => String::new(),
            1 => "; so is one more value".into(),
            more => format!("; so are {more} more values"),
        };
        let (name, found) = (&self.value(id).name, self.ty(id));
        Some(format!(
            "{what} `{name}` is declared {declared}, but {found} follows from the inputs, which counts{rest}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Unary;
    use crate::{DType, infer};

    fn graph(x: &[usize], y: ValueType) -> Graph {
        let mut graph = Graph::new("g");
        let x = graph.add_input("x", ValueType::new(DType::F32, x.iter().copied())).unwrap();
        let (_, made) = graph.add_node("y", Unary::Relu, &[Some(x)], vec![ValueType::default()]).unwrap();
        graph.declare(made[0], y);
        graph.add_output(made[0]);
        graph
    }

    #[test]
    fn what_follows_from_the_inputs_counts() {
        for declared in [vec![1usize, 4], vec![2, 3, 4], vec![], vec![3, 2]] {
            let mut graph = graph(&[2, 3], ValueType::new(DType::F32, declared));
            infer::infer(&mut graph).unwrap();
            assert_eq!(graph.ty(graph.outputs()[0]).to_string(), "f32[2, 3]");
            let warning = graph.stale_declarations().unwrap();
            assert!(warning.contains("f32[2, 3] follows from the inputs"), "{warning}");
        }
    }

    #[test]
    fn element_types_are_held_to_and_what_agrees_is_no_news() {
        let mut wrong = graph(&[2, 3], ValueType::new(DType::F64, [2usize, 3]));
        assert!(infer::infer(&mut wrong).unwrap_err().to_string().contains("f64 is not f32"));
        let mut right = graph(&[2, 3], ValueType::unranked(DType::F32));
        infer::infer(&mut right).unwrap();
        assert_eq!(right.stale_declarations(), None);
    }
}
