//! The rules of the graph's own bookkeeping: names, definitions, users and edges say the same. What operators ask for is
//! in [`crate::verify`].

use super::{Definition, Graph, NodeId, ValueId, index};
use crate::error::{Error, Result};
use petgraph::visit::{EdgeRef, IntoEdgeReferences};
use std::collections::{HashMap, HashSet};

fn broken(rule: &str, detail: impl std::fmt::Display) -> Error {
    Error::Graph(format!("rule `{rule}` is broken: {detail}"))
}

impl Graph {
    /// Checks names, definitions, users and edges against each other. The edits of this module keep these rules; a
    /// finished graph also has every value that is read defined.
    pub(crate) fn check_structure(&self) -> Result<()> {
        self.check_names()?;
        self.check_nodes()?;
        self.check_definitions()?;
        self.check_users()?;
        self.check_edges()
    }

    fn check_names(&self) -> Result<()> {
        for (id, value) in self.values() {
            if self.names.get(&value.name) != Some(&id) {
                return Err(broken("value names are unique", format!("`{}`", value.name)));
            }
        }
        if self.names.len() != self.values().count() {
            return Err(broken("value names are those of values", "a name is left of a removed value"));
        }
        let mut seen = HashSet::new();
        for node in self.dag.node_weights() {
            if node.name.is_empty() || !self.node_names.contains(&node.name) || !seen.insert(&node.name) {
                return Err(broken("node names are unique and not empty", format!("`{}`", node.name)));
            }
        }
        if self.node_names.len() != seen.len() {
            return Err(broken("node names are those of nodes", "a name is left of a removed node"));
        }
        Ok(())
    }

    /// Inputs and outputs of nodes exist, and each output is defined by the node and position where it stands.
    fn check_nodes(&self) -> Result<()> {
        for (id, node) in self.dag.node_indices().map(super::node_id).map(|id| (id, self.node(id))) {
            if node.inputs.iter().chain(&node.outputs).flatten().any(|&value| !self.contains(value)) {
                return Err(broken("nodes name values that exist", format!("node `{}`", node.name)));
            }
            for (position, &output) in node.outputs.iter().enumerate() {
                let Some(output) = output else { continue };
                if self.value(output).definition != Definition::Node(id, position) {
                    let name = &self.value(output).name;
                    return Err(broken(
                        "a value has one definition",
                        format!(
                            "`{name}` is output {position} of node `{}` and defined elsewhere",
                            node.name
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    fn check_definitions(&self) -> Result<()> {
        let inputs: HashSet<ValueId> = self.inputs.iter().copied().collect();
        if inputs.len() != self.inputs.len() {
            return Err(broken("inputs are listed once", "one is listed twice"));
        }
        for (id, value) in self.values() {
            let name = &value.name;
            match &value.definition {
                Definition::Nothing if !value.is_unused() => {
                    return Err(broken(
                        "values that are used are defined",
                        format!("nothing defines `{name}`"),
                    ));
                }
                Definition::Input if !inputs.contains(&id) => {
                    return Err(broken("inputs are listed", format!("`{name}` is not")));
                }
                Definition::Node(node, position) => {
                    let made = self.dag.node_weight(index(*node)).and_then(|node| node.output(*position));
                    if made != Some(id) {
                        return Err(broken("definitions point at their node", format!("`{name}`")));
                    }
                }
                Definition::Nothing | Definition::Input | Definition::Constant(_) => {}
            }
        }
        let defined_as_input =
            |id: &ValueId| self.contains(*id) && self.value(*id).definition == Definition::Input;
        if !self.inputs.iter().all(defined_as_input) {
            return Err(broken("graph inputs are defined as such", "one is not"));
        }
        if let Some(id) = self.defaults.keys().find(|id| !inputs.contains(id)) {
            return Err(broken("defaults are those of inputs", format!("value {} is none", id.0)));
        }
        if !self.outputs.iter().all(|&id| self.contains(id)) {
            return Err(broken("graph outputs exist", "one was removed"));
        }
        Ok(())
    }

    /// Users of each value are the inputs that name it, and no others.
    fn check_users(&self) -> Result<()> {
        let users: HashSet<(ValueId, NodeId, u32)> = self
            .values()
            .flat_map(|(id, value)| value.users.iter().map(move |&(node, position)| (id, node, position)))
            .collect();
        let mut uses = 0;
        for id in self.dag.node_indices().map(super::node_id) {
            for (position, input) in self.node(id).inputs.iter().enumerate() {
                let Some(input) = *input else { continue };
                uses += 1;
                if !users.contains(&(input, id, position as u32)) {
                    let (value, node) = (&self.value(input).name, &self.node(id).name);
                    return Err(broken("values know their users", format!("`{value}` misses node `{node}`")));
                }
            }
        }
        if self.values().map(|(_, value)| value.users.len()).sum::<usize>() != uses {
            return Err(broken("values know their users", "one lists a user that does not read it"));
        }
        let outputs = self.values().map(|(_, value)| value.outputs as usize).sum::<usize>();
        if outputs != self.outputs.len() || self.outputs.iter().any(|&id| self.value(id).outputs == 0) {
            return Err(broken("values know whether they are graph outputs", "one does not"));
        }
        Ok(())
    }

    /// One edge for each use of a value that a node makes, and no others.
    fn check_edges(&self) -> Result<()> {
        let mut expected: HashMap<(NodeId, NodeId, ValueId), i64> = HashMap::new();
        for (id, value) in self.values() {
            if let Definition::Node(maker, _) = value.definition {
                for &(user, _) in &value.users {
                    *expected.entry((maker, user, id)).or_default() += 1;
                }
            }
        }
        for edge in self.dag.edge_references() {
            let key = (super::node_id(edge.source()), super::node_id(edge.target()), *edge.weight());
            *expected.entry(key).or_default() -= 1;
        }
        match expected.into_iter().filter(|(_, count)| *count != 0).map(|(key, _)| key).min() {
            None => Ok(()),
            Some((maker, user, _)) => Err(broken(
                "edges are the uses of values",
                format!("between nodes `{}` and `{}`", self.node(maker).name, self.node(user).name),
            )),
        }
    }

    fn contains(&self, id: ValueId) -> bool {
        self.values.get(id.0 as usize).is_some_and(Option::is_some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Unary;
    use crate::tensor::Tensor;
    use crate::value_type::ValueType;

    fn unary(graph: &mut Graph, name: &str, input: ValueId) -> ValueId {
        graph.add_node(name, Unary::Relu, &[Some(input)], vec![ValueType::default()]).unwrap().1[0]
    }

    /// `depth` rows of nodes, edited in every way that the graph offers.
    fn edited() -> Graph {
        let mut graph = Graph::new("g");
        let x = graph.add_input("x", ValueType::default()).unwrap();
        let (a, b) = (unary(&mut graph, "a", x), unary(&mut graph, "a", x));
        let c = unary(&mut graph, "c", a);
        let d = unary(&mut graph, "d", a);
        graph.replace_uses(a, b);
        let made = graph.producer(a).unwrap();
        graph.remove_node(made);
        graph.define_constant(a, Tensor::scalar(1f32)).unwrap();
        graph.set_input(graph.producer(d).unwrap(), 2, Some(c));
        graph.set_input(graph.producer(d).unwrap(), 1, Some(a));
        graph.add_output(d);
        graph.add_output(d);
        graph.rename_value(c, "renamed").unwrap();
        graph
    }

    #[test]
    fn edits_keep_the_rules() {
        let mut graph = edited();
        graph.check_structure().unwrap();
        let names = |graph: &Graph, name: &str| -> Vec<(String, usize)> {
            let users = graph.users(graph.find_value(name).unwrap());
            users.into_iter().map(|(node, position)| (graph.node(node).name.clone(), position)).collect()
        };
        assert_eq!(names(&graph, "a.1"), [("c".to_owned(), 0), ("d".to_owned(), 0)]);
        assert_eq!(names(&graph, "a"), [("d".to_owned(), 1)]);
        assert_eq!(names(&graph, "renamed"), [("d".to_owned(), 2)]);
        let d = graph.producer(graph.find_value("d").unwrap()).unwrap();
        graph.set_input(d, 1, None);
        graph.remove_unused_values();
        assert_eq!(graph.find_value("a"), None);
        graph.check_structure().unwrap();
    }

    #[test]
    fn broken_bookkeeping_is_found() {
        type Damage = fn(&mut Graph);
        let cases: [(&str, Damage); 8] = [
            ("value names are unique", |graph| {
                let c = graph.find_value("renamed").unwrap();
                graph.value_mut(c).name = "d".into();
            }),
            ("value names are those of values", |graph| {
                graph.names.insert("ghost".into(), ValueId(0));
            }),
            ("node names are unique and not empty", |graph| {
                let d = graph.producer(graph.find_value("d").unwrap()).unwrap();
                graph.dag[index(d)].name.clear();
            }),
            ("a value has one definition", |graph| {
                let (c, d) = (graph.find_value("renamed").unwrap(), graph.find_value("d").unwrap());
                graph.value_mut(d).definition = graph.value(c).definition.clone();
            }),
            ("inputs are listed", |graph| graph.inputs.clear()),
            ("values know their users", |graph| {
                let c = graph.find_value("renamed").unwrap();
                graph.value_mut(c).users.clear();
            }),
            ("values know whether they are graph outputs", |graph| {
                let d = graph.find_value("d").unwrap();
                graph.value_mut(d).outputs = 1;
            }),
            ("edges are the uses of values", |graph| {
                let edge = graph.dag.edge_indices().next().unwrap();
                graph.dag.remove_edge(edge);
            }),
        ];
        for (rule, damage) in cases {
            let mut graph = edited();
            damage(&mut graph);
            let error = graph.check_structure().unwrap_err().to_string();
            assert!(error.contains(&format!("rule `{rule}`")), "{rule}: {error}");
        }
    }

    #[test]
    fn a_cycle_is_named() {
        let mut graph = Graph::new("g");
        let x = graph.add_input("x", ValueType::default()).unwrap();
        let a = unary(&mut graph, "a", x);
        let b = unary(&mut graph, "b", a);
        unary(&mut graph, "behind", b);
        graph.set_input(graph.producer(a).unwrap(), 0, Some(b));
        graph.check_structure().unwrap();
        let error = graph.order().unwrap_err().to_string();
        assert!(error.contains("`a`") || error.contains("`b`"), "{error}");
        let a_node = graph.producer(a).unwrap();
        graph.set_input(a_node, 0, Some(a));
        assert!(graph.order().unwrap_err().to_string().contains("`a`"));
        graph.set_input(a_node, 0, Some(x));
        assert_eq!(graph.order().unwrap().len(), 3);
    }

    #[test]
    fn large_graphs_are_edited() {
        // One value read by all, equal names, removal oldest first: each must stay about linear.
        let mut graph = Graph::new("g");
        let x = graph.add_input("x", ValueType::default()).unwrap();
        let (hub, other) = (unary(&mut graph, "hub", x), unary(&mut graph, "hub", x));
        let leaves: Vec<ValueId> = (0..10_000).map(|_| unary(&mut graph, "leaf", hub)).collect();
        graph.replace_uses(hub, other);
        assert_eq!(graph.users(other).len(), leaves.len());
        graph.order().unwrap();
        for &leaf in &leaves {
            graph.remove_node(graph.producer(leaf).unwrap());
        }
        graph.remove_unused_values();
        graph.check_structure().unwrap();
    }
}
