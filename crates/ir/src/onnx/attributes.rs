//! `AttributeProto` to [`AttributeValue`] and back.

use super::files::Files;
use super::proto::{AttributeProto, NodeProto, kind};
use super::tensors;
use super::wire::{decode, encode};
use crate::attributes::{AttributeValue, Attributes};
use crate::error::{Error, Result};
use prost::bytes::Bytes;

/// Reads the attributes of a node.
pub(super) fn read(node: &NodeProto, files: &Files) -> Result<Attributes> {
    let mut attributes = Attributes::new();
    for bytes in &node.attribute {
        let proto: AttributeProto = decode(bytes)?;
        if attributes.contains(&proto.name) {
            return Err(Error::attribute(proto.name, "is given twice"));
        }
        let name = proto.name.clone();
        let value = value(proto, bytes, files).map_err(|error| match error {
            error @ Error::Attribute { .. } => error,
            other => Error::attribute(&name, other.to_string()),
        })?;
        attributes.set(&name, value);
    }
    Ok(attributes)
}

/// What kind an attribute is; files from before IR version 2 do not say so.
pub(super) fn kind_of(proto: &AttributeProto) -> i32 {
    if proto.kind != 0 {
        return proto.kind;
    }
    let present = [
        (proto.f.is_some(), kind::FLOAT),
        (proto.i.is_some(), kind::INT),
        (proto.s.is_some(), kind::STRING),
        (proto.t.is_some(), kind::TENSOR),
        (proto.g.is_some(), kind::GRAPH),
        (!proto.floats.is_empty(), kind::FLOATS),
        (!proto.ints.is_empty(), kind::INTS),
        (!proto.strings.is_empty(), kind::STRINGS),
        (!proto.tensors.is_empty(), kind::TENSORS),
        (!proto.graphs.is_empty(), kind::GRAPHS),
    ];
    present.into_iter().find(|(present, _)| *present).map_or(0, |(_, kind)| kind)
}

fn value(proto: AttributeProto, bytes: &Bytes, files: &Files) -> Result<AttributeValue> {
    if !proto.ref_attr_name.is_empty() {
        let problem = format!("refers to `{}` of a function, outside of any function", proto.ref_attr_name);
        return Err(Error::attribute(proto.name, problem));
    }
    Ok(match kind_of(&proto) {
        kind::FLOAT => AttributeValue::Float(proto.f.unwrap_or_default()),
        kind::INT => AttributeValue::Int(proto.i.unwrap_or_default()),
        kind::FLOATS => AttributeValue::Floats(proto.floats),
        kind::INTS => AttributeValue::Ints(proto.ints),
        kind::STRING => match String::from_utf8(proto.s.unwrap_or_default().into()) {
            Ok(text) => AttributeValue::String(text),
            Err(_) => opaque(bytes),
        },
        kind::STRINGS => {
            let texts = proto.strings.into_iter().map(|text| String::from_utf8(text.into()));
            texts.collect::<Result<_, _>>().map_or_else(|_| opaque(bytes), AttributeValue::Strings)
        }
        kind::TENSOR => {
            let tensor =
                proto.t.ok_or_else(|| Error::attribute(&proto.name, "is a tensor, but none is there"))?;
            AttributeValue::Tensor(tensors::read(&tensor, files)?.1)
        }
        kind::GRAPH
        | kind::TENSORS
        | kind::GRAPHS
        | kind::SPARSE_TENSOR
        | kind::SPARSE_TENSORS
        | kind::TYPE_PROTO
        | kind::TYPE_PROTOS => opaque(bytes),
        0 => return Err(Error::attribute(proto.name, "has neither a type nor a value")),
        other => {
            return Err(Error::attribute(
                proto.name,
                format!("its type is {other}, accepted are 1 (FLOAT) to 14 (TYPE_PROTOS)"),
            ));
        }
    })
}

fn opaque(bytes: &Bytes) -> AttributeValue {
    AttributeValue::Opaque(bytes.to_vec())
}

/// An attribute in encoded form.
pub(super) fn write(name: &str, value: &AttributeValue) -> Bytes {
    let mut proto = AttributeProto { name: name.to_owned(), ..AttributeProto::default() };
    match value {
        AttributeValue::Opaque(bytes) => return Bytes::copy_from_slice(bytes),
        AttributeValue::Int(value) => (proto.kind, proto.i) = (kind::INT, Some(*value)),
        AttributeValue::Ints(values) => (proto.kind, proto.ints) = (kind::INTS, values.clone()),
        AttributeValue::Float(value) => (proto.kind, proto.f) = (kind::FLOAT, Some(*value)),
        AttributeValue::Floats(values) => (proto.kind, proto.floats) = (kind::FLOATS, values.clone()),
        AttributeValue::String(text) => {
            (proto.kind, proto.s) = (kind::STRING, Some(Bytes::copy_from_slice(text.as_bytes())));
        }
        AttributeValue::Strings(texts) => {
            let texts = texts.iter().map(|text| Bytes::copy_from_slice(text.as_bytes()));
            (proto.kind, proto.strings) = (kind::STRINGS, texts.collect());
        }
        AttributeValue::Tensor(tensor) => {
            (proto.kind, proto.t) = (kind::TENSOR, Some(encode(&tensors::to_proto("", tensor))));
        }
    }
    encode(&proto)
}
