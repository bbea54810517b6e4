//! Operator attributes in their generic form: what ONNX stores, what the text form prints, and what typed operators are
//! read from and written to.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use std::collections::BTreeMap;

/// Value of an attribute. Equality compares the bits of floats, so that NaN equals itself and -0.0 differs from 0.0.
#[derive(Debug, Clone)]
pub enum AttributeValue {
    /// A 64-bit integer.
    Int(i64),
    /// Integers.
    Ints(Vec<i64>),
    /// A 32-bit float.
    Float(f32),
    /// Floats.
    Floats(Vec<f32>),
    /// A string; ONNX allows any bytes, other than UTF-8 is kept as [`AttributeValue::Opaque`].
    String(String),
    /// Strings.
    Strings(Vec<String>),
    /// A tensor.
    Tensor(Tensor),
    /// Anything else (graphs, sparse tensors, type descriptions): the encoded ONNX `AttributeProto`, passed through.
    Opaque(Vec<u8>),
}

/// Attributes by name, sorted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attributes(BTreeMap<String, AttributeValue>);

macro_rules! getters {
    ($($(#[$doc:meta])* $get:ident, $variant:ident, $ty:ty, $what:literal;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// When the attribute has another type.
        pub fn $get(&mut self, name: &str) -> Result<Option<$ty>> {
            match self.0.remove(name) {
                None => Ok(None),
                Some(AttributeValue::$variant(value)) => Ok(Some(value)),
                Some(other) => Err(Error::attribute(name, format!(concat!("expected ", $what, ", found {}"), other.kind()))),
            }
        }
    )*};
}

impl Attributes {
    /// No attributes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets an attribute; builder style.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<AttributeValue>) -> Self {
        self.set(name, value);
        self
    }

    /// Sets an attribute.
    pub fn set(&mut self, name: &str, value: impl Into<AttributeValue>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Looks at an attribute.
    pub fn get(&self, name: &str) -> Option<&AttributeValue> {
        self.0.get(name)
    }

    /// True when the attribute is set.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Attributes in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &AttributeValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes an attribute of any type out.
    pub fn take(&mut self, name: &str) -> Option<AttributeValue> {
        self.0.remove(name)
    }

    getters! {
        /// Takes an integer out.
        int, Int, i64, "an integer";
        /// Takes a list of integers out.
        ints, Ints, Vec<i64>, "a list of integers";
        /// Takes a float out.
        float, Float, f32, "a float";
        /// Takes a list of floats out.
        floats, Floats, Vec<f32>, "a list of floats";
        /// Takes a string out.
        string, String, String, "a string";
        /// Takes a list of strings out.
        strings, Strings, Vec<String>, "a list of strings";
        /// Takes a tensor out.
        tensor, Tensor, Tensor, "a tensor";
    }

    /// Takes an integer that is a truth value out; absent is `default`.
    ///
    /// # Errors
    /// When it is not 0 or 1.
    pub fn flag(&mut self, name: &str, default: bool) -> Result<bool> {
        match self.int(name)? {
            None => Ok(default),
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            Some(other) => Err(Error::attribute(name, format!("expected 0 or 1, found {other}"))),
        }
    }

    /// Takes a list of positive sizes (strides, dilations, kernel extents) out.
    ///
    /// # Errors
    /// When one is not between 1 and 2^31 - 1.
    pub fn sizes(&mut self, name: &str) -> Result<Option<Vec<usize>>> {
        self.ints(name)?
            .map(|values| values.into_iter().map(|value| positive(name, value)).collect())
            .transpose()
    }

    /// Takes an element type (an integer with ONNX's number, or its name in the text form) out.
    ///
    /// # Errors
    /// When it is not the number or name of one.
    pub fn dtype(&mut self, name: &str) -> Result<Option<DType>> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(AttributeValue::Int(code)) => {
                let code = i32::try_from(code)
                    .map_err(|_| Error::attribute(name, format!("{code} is no element type")))?;
                DType::from_onnx_code(code)
                    .map(Some)
                    .map_err(|error| Error::attribute(name, error.to_string()))
            }
            Some(other) => Err(Error::attribute(
                name,
                format!("expected an element type's number, found {}", other.kind()),
            )),
        }
    }

    /// For the end of reading an operator: every attribute must have been taken.
    ///
    /// # Errors
    /// Names the first one left.
    pub fn finish(self, accepted: &str) -> Result<()> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(Error::attribute(name, format!("is not known here; accepted: {accepted}"))),
        }
    }
}

fn positive(name: &str, value: i64) -> Result<usize> {
    match usize::try_from(value) {
        Ok(size) if (1..=i32::MAX as usize).contains(&size) => Ok(size),
        _ => Err(Error::attribute(name, format!("expected sizes from 1 to {}, found {value}", i32::MAX))),
    }
}

impl PartialEq for AttributeValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Ints(a), Self::Ints(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Floats(a), Self::Floats(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
            }
            (Self::String(a), Self::String(b)) => a == b,
            (Self::Strings(a), Self::Strings(b)) => a == b,
            (Self::Tensor(a), Self::Tensor(b)) => a == b,
            (Self::Opaque(a), Self::Opaque(b)) => a == b,
            _ => false,
        }
    }
}

impl AttributeValue {
    /// What it is, for error messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Int(_) => "an integer",
            Self::Ints(_) => "a list of integers",
            Self::Float(_) => "a float",
            Self::Floats(_) => "a list of floats",
            Self::String(_) => "a string",
            Self::Strings(_) => "a list of strings",
            Self::Tensor(_) => "a tensor",
            Self::Opaque(_) => "an attribute of another kind",
        }
    }
}

macro_rules! into_value {
    ($($ty:ty => $variant:ident),*) => {$(
        impl From<$ty> for AttributeValue {
            fn from(value: $ty) -> Self { Self::$variant(value.into()) }
        }
    )*};
}
into_value!(i64 => Int, i32 => Int, Vec<i64> => Ints, f32 => Float, Vec<f32> => Floats, String => String, &str => String, Vec<String> => Strings, Tensor => Tensor);

impl From<bool> for AttributeValue {
    fn from(value: bool) -> Self {
        Self::Int(i64::from(value))
    }
}

impl From<&[usize]> for AttributeValue {
    fn from(values: &[usize]) -> Self {
        Self::Ints(values.iter().map(|&value| value as i64).collect())
    }
}

impl From<&[i64]> for AttributeValue {
    fn from(values: &[i64]) -> Self {
        Self::Ints(values.to_vec())
    }
}

impl From<DType> for AttributeValue {
    fn from(value: DType) -> Self {
        Self::Int(i64::from(value.onnx_code()))
    }
}
