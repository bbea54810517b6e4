//! Builds ONNX models field by field, also ones that no exporter would write.

pub mod damage;
pub mod hostile;
mod seeds;

pub use seeds::with_external;

/// An encoded message, or part of one.
pub type Message = Vec<u8>;

/// Numbers of `TensorProto.DataType`.
pub const F32: u64 = 1;
/// See [`F32`].
pub const I64: u64 = 7;

fn varint(mut value: u64, out: &mut Message) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field with a number.
pub fn int(tag: u64, value: i64) -> Message {
    let mut out = vec![];
    varint(tag << 3, &mut out);
    varint(value as u64, &mut out);
    out
}

/// A field with a 32-bit float.
pub fn float(tag: u64, value: f32) -> Message {
    let mut out = vec![];
    varint(tag << 3 | 5, &mut out);
    out.extend(value.to_le_bytes());
    out
}

/// A field with bytes, a text or a message.
pub fn field(tag: u64, bytes: impl AsRef<[u8]>) -> Message {
    let mut out = vec![];
    varint(tag << 3 | 2, &mut out);
    varint(bytes.as_ref().len() as u64, &mut out);
    out.extend_from_slice(bytes.as_ref());
    out
}

/// A node; `""` is an absent input or output.
pub fn node(op_type: &str, inputs: &[&str], outputs: &[&str], attributes: &[Message]) -> Message {
    named_node("", op_type, inputs, outputs, attributes)
}

/// A node with a name.
pub fn named_node(
    name: &str,
    op_type: &str,
    inputs: &[&str],
    outputs: &[&str],
    attributes: &[Message],
) -> Message {
    let mut out: Message = inputs.iter().flat_map(|name| field(1, name)).collect();
    out.extend(outputs.iter().flat_map(|name| field(2, name)));
    out.extend(field(3, name));
    out.extend(field(4, op_type));
    out.extend(attributes.iter().flat_map(|attribute| field(5, attribute)));
    out
}

/// An attribute with an integer.
pub fn int_attribute(name: &str, value: i64) -> Message {
    [field(1, name), int(3, value), int(20, 2)].concat()
}

/// An attribute with integers.
pub fn ints_attribute(name: &str, values: &[i64]) -> Message {
    let values: Message = values.iter().flat_map(|&value| int(8, value)).collect();
    [field(1, name), values, int(20, 7)].concat()
}

/// An attribute with a float.
pub fn float_attribute(name: &str, value: f32) -> Message {
    [field(1, name), float(2, value), int(20, 1)].concat()
}

/// An attribute with floats.
pub fn floats_attribute(name: &str, values: &[f32]) -> Message {
    let values: Message = values.iter().flat_map(|&value| float(7, value)).collect();
    [field(1, name), values, int(20, 6)].concat()
}

/// An attribute with a text.
pub fn text_attribute(name: &str, value: &str) -> Message {
    [field(1, name), field(4, value), int(20, 3)].concat()
}

/// An attribute with a tensor.
pub fn tensor_attribute(name: &str, tensor: &Message) -> Message {
    [field(1, name), field(5, tensor), int(20, 4)].concat()
}

/// An attribute with a graph.
pub fn graph_attribute(name: &str, graph: &Message) -> Message {
    [field(1, name), field(6, graph), int(20, 5)].concat()
}

/// Extents and element type of a tensor.
pub fn tensor_head(name: &str, data_type: u64, dims: &[i64]) -> Message {
    let dims: Message = dims.iter().flat_map(|&dim| int(1, dim)).collect();
    [dims, int(2, data_type as i64), field(8, name)].concat()
}

/// A tensor of floats.
pub fn floats(name: &str, dims: &[i64], values: &[f32]) -> Message {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    [tensor_head(name, F32, dims), field(9, raw)].concat()
}

/// A tensor of integers.
pub fn ints(name: &str, dims: &[i64], values: &[i64]) -> Message {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    [tensor_head(name, I64, dims), field(9, raw)].concat()
}

/// A tensor whose data stand in another file.
pub fn external(name: &str, dims: &[i64], entries: &[(&str, &str)]) -> Message {
    let entries: Message = entries
        .iter()
        .flat_map(|(key, value)| field(13, [field(1, key), field(2, value)].concat()))
        .collect();
    [tensor_head(name, F32, dims), entries, int(14, 1)].concat()
}

/// The declaration of a tensor of floats; an extent is a number or a name.
pub fn value(name: &str, dims: &[&str]) -> Message {
    let dim =
        |text: &&str| field(1, text.parse().map_or_else(|_| field(2, text), |value: i64| int(1, value)));
    let shape: Message = dims.iter().flat_map(dim).collect();
    [field(1, name), field(2, field(1, [int(1, 1), field(2, shape)].concat()))].concat()
}

/// The declaration of a value of which nothing is said.
pub fn untyped(name: &str) -> Message {
    field(1, name)
}

/// A graph.
#[derive(Default, Clone)]
pub struct Graph {
    /// Declarations.
    pub inputs: Vec<Message>,
    /// Declarations.
    pub outputs: Vec<Message>,
    /// Tensors.
    pub initializers: Vec<Message>,
    /// Nodes.
    pub nodes: Vec<Message>,
}

impl Graph {
    /// Its encoding.
    pub fn encode(&self) -> Message {
        let all = |tag, messages: &[Message]| -> Message {
            messages.iter().flat_map(|message| field(tag, message)).collect()
        };
        [
            all(1, &self.nodes),
            field(2, "g"),
            all(5, &self.initializers),
            all(11, &self.inputs),
            all(12, &self.outputs),
        ]
        .concat()
    }

    /// A model around it.
    pub fn model(&self, opset: i64) -> Message {
        model(8, opset, &self.encode(), &[])
    }
}

/// A model.
pub fn model(ir_version: i64, opset: i64, graph: &Message, functions: &[Message]) -> Message {
    let functions: Message = functions.iter().flat_map(|function| field(25, function)).collect();
    [int(1, ir_version), field(7, graph), field(8, int(2, opset)), functions].concat()
}
