//! `ValueInfoProto` to name and [`ValueType`] and back, with the names of symbolic extents.

use super::proto::{DimensionProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto};
use super::wire::{decode, encode};
use crate::dim::Dim;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::value_type::ValueType;
use prost::bytes::Bytes;
use std::collections::HashSet;

/// Name of a value and what the file says of its type.
pub(super) struct Declared {
    pub name: String,
    /// `None` for a type other than a tensor's; its name is in `kind`.
    pub ty: Option<ValueType>,
    /// What it is, for error messages.
    pub kind: &'static str,
}

/// Symbolic extents: those of the inputs, by the names that the file has for them.
#[derive(Default)]
pub(super) struct Symbols {
    named: HashSet<String>,
    unnamed: usize,
}

impl Symbols {
    /// Extent of an input; one without a name is unknown for now.
    fn of_input(&mut self, name: &str) -> Dim {
        if name.is_empty() || name == Dim::UNKNOWN {
            return Dim::unknown();
        }
        self.named.insert(name.to_owned());
        Dim::symbol(name)
    }

    /// Gives the extents of an input that have no name symbols of their own, once all names are known.
    pub fn name_unknown(&mut self, ty: &mut ValueType) {
        for dim in ty.shape.iter_mut().flatten().filter(|dim| dim.is_unknown()) {
            let mut name = format!("d{}", self.unnamed);
            while !self.named.insert(name.clone()) {
                self.unnamed += 1;
                name = format!("d{}", self.unnamed);
            }
            *dim = Dim::symbol(&name);
        }
    }

    /// Extent of another value: a symbol of an input, an expression of them as we write it, or a symbol that gives way
    /// when types are inferred.
    fn of_value(&self, name: &str) -> Dim {
        if name.is_empty() {
            Dim::unknown()
        } else if self.named.contains(name) {
            Dim::symbol(name)
        } else {
            name.parse().unwrap_or_else(|_| Dim::symbol(name))
        }
    }
}

/// Reads a declaration, of an input or of another value. Extents without a name are unknown.
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
        None | Some(0) => None,
        Some(code) => Some(DType::from_onnx_code(code)?),
    };
    let Some(shape) = proto.shape else {
        return Ok(ValueType { dtype, shape: None });
    };
    let shape: TensorShapeProto = decode(&shape)?;
    let extent = |dim: DimensionProto| match dim {
        DimensionProto { dim_value: Some(value), .. } if value >= 0 => Dim::constant(value),
        DimensionProto { dim_param, .. } if input => symbols.of_input(&dim_param.unwrap_or_default()),
        DimensionProto { dim_param, .. } => symbols.of_value(&dim_param.unwrap_or_default()),
    };
    Ok(ValueType { dtype, shape: Some(shape.dim.into_iter().map(extent).collect()) })
}

/// The declaration of a value.
pub(super) fn write(name: &str, ty: &ValueType) -> ValueInfoProto {
    let dimension = |dim: &Dim| match dim.known_i64() {
        Some(value) => DimensionProto { dim_value: Some(value), dim_param: None },
        None if dim.is_unknown() => DimensionProto::default(),
        None => {
            let name = dim.as_symbol().map_or_else(|| dim.to_string(), str::to_owned);
            DimensionProto { dim_value: None, dim_param: Some(name) }
        }
    };
    if ty.dtype.is_none() {
        return ValueInfoProto { name: name.to_owned(), ty: None };
    }
    let shape =
        ty.shape.as_ref().map(|shape| TensorShapeProto { dim: shape.iter().map(dimension).collect() });
    let tensor = TensorTypeProto {
        elem_type: Some(ty.dtype.map_or(0, DType::onnx_code)),
        shape: shape.map(|shape| encode(&shape)),
    };
    let ty = TypeProto { tensor_type: Some(encode(&tensor)), ..TypeProto::default() };
    ValueInfoProto { name: name.to_owned(), ty: Some(encode(&ty)) }
}
