//! `ValueInfoProto` to name and [`ValueType`] and back, with the names of symbolic extents.

use super::proto::{DimensionProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto};
use super::wire::decode;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::ValueType;
use prost::bytes::Bytes;
use std::collections::{HashMap, HashSet};

/// Name of a value and what the file says of its type.
pub(super) struct Declared {
    pub name: String,
    /// `None` for a type other than a tensor's; its name is in `kind`.
    pub ty: Option<ValueType>,
    /// What it is, for error messages.
    pub kind: &'static str,
}

/// Names of symbolic extents: those of the file where they can be symbols of ours, else close to them.
#[derive(Default)]
pub(super) struct Symbols {
    names: HashMap<String, String>,
    taken: HashSet<String>,
}

impl Symbols {
    /// The symbol for a name in the file.
    fn named(&mut self, name: &str) -> Dim {
        if let Some(known) = self.names.get(name) {
            return Dim::symbol(known);
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let mut base: String = name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
        if base.starts_with(|c: char| c.is_ascii_digit()) {
            base.insert(0, '_');
        }
        let symbol = self.fresh(&base);
        let dim = Dim::symbol(&symbol);
        self.names.insert(name.to_owned(), symbol);
        dim
    }

    /// A symbol of its own for an extent without a name.
    fn unnamed(&mut self) -> Dim {
        let symbol = self.fresh("d");
        Dim::symbol(&symbol)
    }

    fn fresh(&mut self, base: &str) -> String {
        let mut name = base.to_owned();
        let mut number = 0;
        while name.is_empty() || name == Dim::UNKNOWN || !self.taken.insert(name.clone()) {
            name = format!("{base}{number}");
            number += 1;
        }
        name
    }
}

/// Reads a declaration. Extents without a name are symbols of their own for an input, unknown elsewhere.
pub(super) fn read(bytes: &Bytes, symbols: &mut Symbols, input: bool) -> Result<Declared> {
    let proto: ValueInfoProto = decode(bytes)?;
    let name = proto.name;
    let at = |error: Error| Error::Malformed(format!("type of value `{name}`: {error}"));
    let Some(ty) = proto.ty else {
        return Ok(Declared { name, ty: Some(ValueType::default()), kind: "of no stated type" });
    };
    let ty: TypeProto = decode(&ty).map_err(at)?;
    let kind = if ty.sequence_type.is_some() {
        "a sequence"
    } else if ty.map_type.is_some() {
        "a map"
    } else if ty.optional_type.is_some() {
        "an optional"
    } else if ty.sparse_tensor_type.is_some() {
        "a sparse tensor"
    } else if ty.opaque_type.is_some() {
        "of an opaque type"
    } else {
        "a tensor"
    };
    let ty = match ty.tensor_type {
        Some(tensor) if kind == "a tensor" => Some(tensor_type(&tensor, symbols, input).map_err(at)?),
        _ if kind == "a tensor" => Some(ValueType::default()),
        _ => None,
    };
    Ok(Declared { name, ty, kind })
}

fn tensor_type(bytes: &Bytes, symbols: &mut Symbols, input: bool) -> Result<ValueType> {
    let proto: TensorTypeProto = decode(bytes)?;
    let dtype = match proto.elem_type {
        0 => None,
        code => Some(DType::from_onnx_code(code)?),
    };
    let Some(shape) = proto.shape else {
        return Ok(ValueType { dtype, shape: None });
    };
    let shape: TensorShapeProto = decode(&shape)?;
    let extent = |dim: DimensionProto| match dim {
        DimensionProto { dim_value: Some(value), .. } if value >= 0 => Dim::constant(value),
        DimensionProto { dim_param: Some(name), .. } if !name.is_empty() => symbols.named(&name),
        _ if input => symbols.unnamed(),
        _ => Dim::unknown(),
    };
    Ok(ValueType { dtype, shape: Some(shape.dim.into_iter().map(extent).collect()) })
}
