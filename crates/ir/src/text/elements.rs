//! Elements of tensors and float attributes, written so that they read back bit for bit.

use super::cursor::Cursor;
use super::lexer::Token;
use crate::dispatch_numeric;
use crate::dtype::{DType, Element};
use crate::error::Result;
use crate::tensor::Tensor;
use half::{bf16, f16};
use std::fmt::Write;

/// A number type of the text form.
pub(super) trait Literal: Element {
    /// Exact, and as short as that allows.
    fn write(self, out: &mut String);
    /// Reads what [`Literal::write`] writes.
    fn read(cursor: &mut Cursor<'_>) -> Result<Self>;
}

macro_rules! integers {
    ($($ty:ty),*) => {$(
        impl Literal for $ty {
            fn write(self, out: &mut String) {
                let _ = write!(out, "{self}");
            }
            fn read(cursor: &mut Cursor<'_>) -> Result<Self> {
                cursor.integer(concat!("an integer that fits ", stringify!($ty)))
            }
        }
    )*};
}
integers!(i8, i16, i32, i64, u8, u16, u32, u64);

/// Floats: numbers as Rust prints them; `nan` is the quiet NaN without payload, others have their bits behind it.
macro_rules! floats {
    ($($ty:ty, $bits:ty, $nan:literal, |$x:ident| $show:expr, |$text:ident| $parse:expr;)*) => {$(
        impl Literal for $ty {
            fn write(self, out: &mut String) {
                let _ = match self.to_bits() {
                    $nan => write!(out, "nan"),
                    bits if self.is_nan() => write!(out, "nan({bits:#x})"),
                    _ => { let $x = self; write!(out, "{:?}", $show) }
                };
            }
            fn read(cursor: &mut Cursor<'_>) -> Result<Self> {
                let negative = cursor.accept("-")?;
                let position = cursor.position();
                let value = match cursor.token() {
                    Token::Number(digits) => {
                        let $text = *digits;
                        let value: Option<$ty> = $parse;
                        let value = value.filter(|value| value.is_finite());
                        let Some(value) = value else {
                            return Err(cursor.expected(concat!("a number that fits ", stringify!($ty))));
                        };
                        cursor.advance()?;
                        value
                    }
                    Token::Word("inf") => {
                        cursor.advance()?;
                        <$ty>::INFINITY
                    }
                    Token::Word("nan") if !negative => {
                        cursor.advance()?;
                        let bits = if cursor.accept("(")? {
                            let bits = match cursor.token() {
                                Token::Number(digits) => digits.strip_prefix("0x"),
                                _ => None,
                            };
                            let bits = bits.and_then(|digits| <$bits>::from_str_radix(digits, 16).ok());
                            let Some(bits) = bits.filter(|&bits| <$ty>::from_bits(bits).is_nan()) else {
                                return Err(cursor.expected("the bits of a NaN, such as 0x7fc00001"));
                            };
                            cursor.advance()?;
                            cursor.expect(")")?;
                            bits
                        } else {
                            $nan
                        };
                        return Ok(<$ty>::from_bits(bits));
                    }
                    _ => return Err(cursor.error_at(position, format!("expected a number, inf or nan, found {}", cursor.token()))),
                };
                Ok(if negative { -value } else { value })
            }
        }
    )*};
}
floats! {
    f32, u32, 0x7fc0_0000, |x| x, |text| text.parse().ok();
    f64, u64, 0x7ff8_0000_0000_0000, |x| x, |text| text.parse().ok();
    f16, u16, 0x7e00, |x| x.to_f32(), |text| text.parse::<f32>().ok().map(f16::from_f32);
    bf16, u16, 0x7fc0, |x| x.to_f32(), |text| text.parse::<f32>().ok().map(bf16::from_f32);
}

/// True for tensors whose elements are written out one by one; the bytes of others are.
pub(super) fn has_elements(dtype: DType) -> bool {
    dtype.is_numeric() || dtype == DType::Bool
}

/// `[1, 2, 3]`, or a lone element for rank 0.
pub(super) fn write_elements(tensor: &Tensor, out: &mut String) {
    let separate = |out: &mut String, i: usize| {
        if i > 0 {
            out.push_str(", ");
        }
    };
    if tensor.rank() > 0 {
        out.push('[');
    }
    if tensor.dtype() == DType::Bool {
        for (i, &byte) in tensor.bytes().iter().enumerate() {
            separate(out, i);
            out.push_str(if byte == 0 { "false" } else { "true" });
        }
    } else {
        // The caller asked `has_elements`.
        let _: Result<()> = dispatch_numeric!(tensor.dtype(), T => tensor.elements::<T>().map(|elements| {
            for (i, &value) in elements.iter().enumerate() {
                separate(out, i);
                Literal::write(value, out);
            }
        }));
    }
    if tensor.rank() > 0 {
        out.push(']');
    }
}

/// Reads what [`write_elements`] writes.
pub(super) fn read_elements(cursor: &mut Cursor<'_>, dtype: DType, shape: &[usize]) -> Result<Tensor> {
    let position = cursor.position();
    let result = if dtype == DType::Bool {
        let bools = items(cursor, shape, |cursor| {
            if cursor.accept_word("true")? {
                Ok(true)
            } else if cursor.accept_word("false")? {
                Ok(false)
            } else {
                Err(cursor.expected("true or false"))
            }
        })?;
        Tensor::from_bools(shape, bools)
    } else {
        dispatch_numeric!(dtype, T => Tensor::from_vec(shape, items(cursor, shape, <T as Literal>::read)?))
    };
    result.map_err(|error| match error {
        error @ crate::Error::Text { .. } => error,
        error => cursor.error_at(position, error.to_string()),
    })
}

fn items<T>(
    cursor: &mut Cursor<'_>,
    shape: &[usize],
    item: impl FnMut(&mut Cursor<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut item = item;
    if shape.is_empty() {
        return Ok(vec![item(cursor)?]);
    }
    cursor.expect("[")?;
    cursor.list("]", item)
}

/// `hex"0a0b"`.
pub(super) fn write_hex(bytes: &[u8], out: &mut String) {
    out.push_str("hex\"");
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out.push('"');
}

/// The string behind `hex`, which was taken.
pub(super) fn read_hex(cursor: &mut Cursor<'_>) -> Result<Vec<u8>> {
    let Token::Text(digits) = cursor.token() else {
        return Err(cursor.expected("a string of hexadecimal digits"));
    };
    let pairs = digits.as_bytes().chunks(2).map(|pair| {
        let text = std::str::from_utf8(pair).ok().filter(|text| text.len() == 2 && !text.starts_with('+'))?;
        u8::from_str_radix(text, 16).ok()
    });
    let Some(bytes) = pairs.collect::<Option<Vec<u8>>>() else {
        return Err(cursor.expected("pairs of hexadecimal digits"));
    };
    cursor.advance()?;
    Ok(bytes)
}

/// A tensor of bytes that are not elements we know.
pub(super) fn tensor_of_bytes(dtype: DType, shape: &[usize], bytes: Vec<u8>) -> Result<Tensor> {
    let given = bytes.len();
    let tensor = Tensor::from_bytes(dtype, shape.to_vec(), bytes)?;
    if tensor.bytes().len() != given {
        let problem = format!(
            "a {dtype} tensor of shape {shape:?} takes {} bytes, {given} are given",
            tensor.bytes().len()
        );
        return Err(crate::Error::Size(problem));
    }
    Ok(tensor)
}
