//! `TensorProto` and `SparseTensorProto` to [`Tensor`] and back.

use super::files::Files;
use super::proto::{SparseTensorProto, TensorProto};
use super::raw::from_raw;
use super::wire::decode;
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::packed::pack;
use crate::tensor::{LargeVec, MAX_TENSOR_BYTES, Tensor, element_count};
use crate::{bf16, dispatch_numeric, f16};
use prost::bytes::Bytes;

/// Reads a tensor that stands in encoded form, and its name.
pub(super) fn read(bytes: &Bytes, files: &Files) -> Result<(String, Tensor)> {
    let proto: TensorProto = decode(bytes)?;
    let name = proto.name.clone();
    match from_proto(proto, files) {
        Ok(tensor) => Ok((name, tensor)),
        Err(error) => Err(Error::Malformed(format!("tensor `{name}`: {}", bare(&error)))),
    }
}

/// The text of an error without the prefix that says its kind, for nesting.
fn bare(error: &Error) -> String {
    match error {
        Error::Malformed(text) | Error::Size(text) | Error::Type(text) | Error::Unsupported(text) => {
            text.clone()
        }
        other => other.to_string(),
    }
}

fn from_proto(proto: TensorProto, files: &Files) -> Result<Tensor> {
    let dtype = DType::from_onnx_code(proto.data_type)
        .map_err(|_| Error::Type(format!("data_type {} is no element type of ONNX", proto.data_type)))?;
    let shape = extents(&proto.dims)?;
    let count = element_count(&shape)?;
    if proto.segment.is_some() {
        return Err(Error::Unsupported("segments; the whole tensor has to be in one piece".into()));
    }
    match proto.data_location {
        0 if proto.external_data.is_empty() || proto.raw_data.is_some() => {}
        0 | 1 => return files.read(dtype, shape, &proto.external_data),
        other => {
            return Err(Error::Malformed(format!(
                "data_location is {other}, accepted are 0 (DEFAULT) and 1 (EXTERNAL)"
            )));
        }
    }
    match proto.raw_data {
        Some(_) if dtype == DType::String => {
            Err(Error::Malformed("strings cannot stand in raw_data, string_data is where they go".into()))
        }
        Some(raw) if count == 0 || !raw.is_empty() => from_raw(dtype, shape, raw),
        _ => from_typed(dtype, shape, count, proto),
    }
}

/// Extents from ONNX's numbers.
pub(super) fn extents(dims: &[i64]) -> Result<Vec<usize>> {
    let extent = |&dim: &i64| {
        usize::try_from(dim)
            .map_err(|_| Error::Size(format!("extent {dim} in {dims:?}, accepted is 0 or more")))
    };
    dims.iter().map(extent).collect()
}

/// From the field that holds elements of this type.
fn from_typed(dtype: DType, shape: Vec<usize>, count: usize, proto: TensorProto) -> Result<Tensor> {
    let bytes = |data: Vec<u8>| Tensor::from_bytes(dtype, shape.clone(), data);
    match dtype {
        DType::F32 => Tensor::from_vec(shape, expect(proto.float_data, "float_data", count)?),
        DType::F64 => Tensor::from_vec(shape, expect(proto.double_data, "double_data", count)?),
        DType::I64 => Tensor::from_vec(shape, expect(proto.int64_data, "int64_data", count)?),
        DType::U64 => Tensor::from_vec(shape, expect(proto.uint64_data, "uint64_data", count)?),
        DType::U32 => {
            let data = expect(proto.uint64_data, "uint64_data", count)?;
            Tensor::from_vec(shape, narrow::<u64, u32>(dtype, &data)?)
        }
        DType::I32 => Tensor::from_vec(shape, expect(proto.int32_data, "int32_data", count)?),
        DType::C64 => {
            bytes(bytemuck::cast_slice(&expect(proto.float_data, "float_data", count * 2)?).to_vec())
        }
        DType::C128 => {
            bytes(bytemuck::cast_slice(&expect(proto.double_data, "double_data", count * 2)?).to_vec())
        }
        DType::String => {
            let strings = expect(proto.string_data, "string_data", count)?;
            bytes(pack_strings(strings.iter().map(AsRef::as_ref)))
        }
        DType::U4 | DType::I4 | DType::F4E2M1 => {
            let data = expect(proto.int32_data, "int32_data", count.div_ceil(2))?;
            bytes(data.into_iter().map(|pair| pair as u8).collect())
        }
        DType::F16 | DType::BF16 => {
            let bits = narrow::<i32, u16>(dtype, &expect(proto.int32_data, "int32_data", count)?)?;
            if dtype == DType::F16 {
                Tensor::from_vec(shape, bits.into_iter().map(f16::from_bits).collect())
            } else {
                Tensor::from_vec(shape, bits.into_iter().map(bf16::from_bits).collect())
            }
        }
        DType::I16 => Tensor::from_vec(
            shape,
            narrow::<i32, i16>(dtype, &expect(proto.int32_data, "int32_data", count)?)?,
        ),
        DType::U16 => Tensor::from_vec(
            shape,
            narrow::<i32, u16>(dtype, &expect(proto.int32_data, "int32_data", count)?)?,
        ),
        DType::I8 => Tensor::from_vec(
            shape,
            narrow::<i32, i8>(dtype, &expect(proto.int32_data, "int32_data", count)?)?,
        ),
        DType::U2 | DType::I2 => {
            let data = expect(proto.int32_data, "int32_data", count.div_ceil(4))?;
            bytes(data.into_iter().map(|four| four as u8).collect())
        }
        DType::F6E2M3 | DType::F6E3M2 => {
            let codes = narrow::<i32, u8>(dtype, &expect(proto.int32_data, "int32_data", count)?)?;
            if let Some(code) = codes.iter().find(|&&code| code > 63) {
                return Err(Error::Type(format!("element {code} does not fit {dtype}")));
            }
            bytes(pack(&codes, 6))
        }
        DType::Bool
        | DType::U8
        | DType::F8E4M3FN
        | DType::F8E4M3FNUZ
        | DType::F8E5M2
        | DType::F8E5M2FNUZ
        | DType::F8E8M0 => bytes(narrow::<i32, u8>(dtype, &expect(proto.int32_data, "int32_data", count)?)?),
    }
}

fn expect<T>(data: Vec<T>, field: &str, count: usize) -> Result<Vec<T>> {
    if data.len() == count {
        Ok(data)
    } else {
        Err(Error::Size(format!("{field} has {} elements, the shape asks for {count}", data.len())))
    }
}

fn narrow<A: Copy + std::fmt::Display, B: TryFrom<A>>(dtype: DType, data: &[A]) -> Result<Vec<B>> {
    data.iter()
        .map(|&value| {
            B::try_from(value).map_err(|_| Error::Type(format!("element {value} does not fit {dtype}")))
        })
        .collect()
}

/// Strings as the bytes of a tensor: each with its length in front, as a protocol buffer has them.
pub(super) fn pack_strings<'a>(strings: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut packed = vec![];
    for string in strings {
        prost::encoding::encode_varint(string.len() as u64, &mut packed);
        packed.extend_from_slice(string);
    }
    packed
}

fn unpack_strings(tensor: &Tensor) -> Vec<Bytes> {
    let mut rest = tensor.bytes();
    let mut strings = vec![];
    while let Ok(length) = prost::encoding::decode_varint(&mut rest) {
        let (string, tail) = rest.split_at((length as usize).min(rest.len()));
        strings.push(Bytes::copy_from_slice(string));
        rest = tail;
    }
    strings
}

/// A tensor in the form in which we write it: raw data in this file.
pub(super) fn to_proto(name: &str, tensor: &Tensor) -> TensorProto {
    let mut proto = TensorProto {
        name: name.to_owned(),
        data_type: tensor.dtype().onnx_code(),
        dims: tensor.shape().iter().map(|&extent| extent as i64).collect(),
        ..TensorProto::default()
    };
    if tensor.dtype() == DType::String {
        proto.string_data = unpack_strings(tensor);
    } else {
        proto.raw_data = Some(Bytes::from_owner(Owner(tensor.clone())));
    }
    proto
}

/// Lets a tensor own bytes that a message shares.
struct Owner(Tensor);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// Reads a sparse tensor and makes it dense; its name is that of its values.
pub(super) fn read_sparse(bytes: &Bytes, files: &Files) -> Result<(String, Tensor)> {
    let sparse: SparseTensorProto = decode(bytes)?;
    let missing = |what: &str| Error::Malformed(format!("a sparse tensor without {what}"));
    let (name, values) = read(&sparse.values.ok_or_else(|| missing("values"))?, files)?;
    let (_, indices) = read(&sparse.indices.ok_or_else(|| missing("indices"))?, files)?;
    let dense = densify(&values, &indices, &extents(&sparse.dims)?);
    Ok((
        name.clone(),
        dense.map_err(|error| Error::Malformed(format!("sparse tensor `{name}`: {}", bare(&error))))?,
    ))
}

fn densify(values: &Tensor, indices: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let size = element_count(shape)?;
    let positions = indices.elements::<i64>()?;
    let count = values.len();
    let rank = shape.len();
    let flat: Vec<usize> = if indices.shape() == [count] {
        let position = |&index: &i64| usize::try_from(index).ok().filter(|&index| index < size);
        positions.iter().map(position).collect::<Option<_>>()
    } else if indices.shape() == [count, rank] && rank > 0 {
        let position = |index: &[i64]| {
            index.iter().zip(shape).try_fold(0usize, |flat, (&index, &extent)| {
                let index = usize::try_from(index).ok().filter(|&index| index < extent)?;
                Some(flat * extent + index)
            })
        };
        positions.chunks_exact(rank).map(position).collect::<Option<_>>()
    } else {
        return Err(Error::Size(format!(
            "indices of shape {:?}, accepted are [{count}] and [{count}, {rank}]",
            indices.shape()
        )));
    }
    .ok_or_else(|| Error::Size(format!("an index is outside the shape {shape:?}")))?;
    let mut sorted = flat.clone();
    sorted.sort_unstable();
    if let Some([twice, _]) = sorted.array_windows().find(|[one, next]| one == next) {
        return Err(Error::Malformed(format!("element {twice} of shape {shape:?} is given twice")));
    }
    dispatch_numeric!(values.dtype(), T => scatter(&values.elements::<T>()?, &flat, shape, size))
}

fn scatter<T: Element>(values: &[T], flat: &[usize], shape: &[usize], size: usize) -> Result<Tensor> {
    // The limit on tensors holds before the memory is taken.
    let bytes = T::DTYPE.bytes_for(size).filter(|&bytes| bytes <= MAX_TENSOR_BYTES);
    bytes.ok_or_else(|| Error::Size(format!("shape {shape:?} is too large")))?;
    let mut dense = LargeVec::<T>::zeroed(size)?;
    let elements = dense.as_mut_slice();
    for (&value, &position) in values.iter().zip(flat) {
        elements[position] = value;
    }
    dense.into_tensor(shape)
}

#[cfg(test)]
mod tests {
    use super::super::wire::encode;
    use super::*;

    fn round(proto: &TensorProto) -> Result<Tensor> {
        read(&encode(proto), &Files::none()).map(|(_, tensor)| tensor)
    }

    fn typed(code: DType, dims: &[i64]) -> TensorProto {
        TensorProto { data_type: code.onnx_code(), dims: dims.to_vec(), ..TensorProto::default() }
    }

    #[test]
    fn typed_fields_hold_every_element_type() {
        for &dtype in DType::ALL {
            let bits = match dtype {
                DType::U4 | DType::I4 | DType::F4E2M1 | DType::U2 | DType::I2 => 1,
                _ => 2,
            };
            let proto = TensorProto {
                float_data: vec![1.5; if dtype == DType::C64 { 4 } else { 2 }],
                double_data: vec![1.5; if dtype == DType::C128 { 4 } else { 2 }],
                int32_data: vec![1; bits],
                int64_data: vec![1; 2],
                uint64_data: vec![1; 2],
                string_data: vec![Bytes::from_static(b"ab"), Bytes::new()],
                ..typed(dtype, &[2])
            };
            let tensor = round(&proto).unwrap_or_else(|error| panic!("{dtype}: {error}"));
            assert_eq!((tensor.dtype(), tensor.shape()), (dtype, [2].as_slice()));
            let back = round(&to_proto("t", &tensor)).unwrap();
            assert_eq!(back, tensor, "{dtype}");
        }
    }

    #[test]
    fn wrong_amounts_and_values_are_refused() {
        let cases = [
            TensorProto { float_data: vec![0.0; 3], ..typed(DType::F32, &[2]) },
            TensorProto { raw_data: Some(Bytes::from_static(b"1234567")), ..typed(DType::F32, &[2]) },
            TensorProto { int32_data: vec![300], ..typed(DType::U8, &[1]) },
            TensorProto { uint64_data: vec![1 << 40], ..typed(DType::U32, &[1]) },
            typed(DType::F32, &[-1]),
            typed(DType::F32, &[i64::MAX, i64::MAX]),
            typed(DType::F32, &[1 << 29]),
            TensorProto { data_type: 99, ..TensorProto::default() },
            TensorProto { raw_data: Some(Bytes::from_static(b"a")), ..typed(DType::String, &[1]) },
            TensorProto { data_location: 1, ..typed(DType::F32, &[1]) },
            TensorProto { segment: Some(Bytes::new()), ..typed(DType::F32, &[0]) },
        ];
        for case in cases {
            assert!(round(&case).is_err(), "{case:?}");
        }
    }

    #[test]
    fn raw_data_are_shared_and_elements_are_aligned() {
        let file = Bytes::from((0..=255).cycle().take(4096).collect::<Vec<u8>>());
        let start = file.as_ptr().align_offset(8);
        for offset in [0, 1] {
            let raw = file.slice(start + offset..start + offset + 64);
            let (address, expected) = (raw.as_ptr(), raw.to_vec());
            let tensor = from_raw(DType::F32, vec![16], raw).unwrap();
            assert_eq!(tensor.bytes().as_ptr(), address);
            // Where they cannot be read in place they are copied, once.
            let elements = tensor.elements::<f32>().unwrap();
            let bytes: Vec<u8> = elements.iter().flat_map(|value| value.to_bits().to_le_bytes()).collect();
            assert_eq!(bytes, expected);
            let again = tensor.elements::<f32>().unwrap();
            assert_eq!(elements.as_ptr(), again.as_ptr());
        }
    }

    #[test]
    fn sparse_tensors_become_dense() {
        let values = TensorProto { name: "s".into(), float_data: vec![1.0, 2.0], ..typed(DType::F32, &[2]) };
        let flat = TensorProto { int64_data: vec![1, 5], ..typed(DType::I64, &[2]) };
        let pairs = TensorProto { int64_data: vec![0, 1, 1, 2], ..typed(DType::I64, &[2, 2]) };
        let outside = TensorProto { int64_data: vec![0, 1, 2, 0], ..typed(DType::I64, &[2, 2]) };
        let read = |indices: &TensorProto, dims: &[i64]| {
            let sparse = SparseTensorProto {
                values: Some(encode(&values)),
                indices: Some(encode(indices)),
                dims: dims.to_vec(),
            };
            read_sparse(&encode(&sparse), &Files::none())
        };
        let dense = Tensor::from_vec([2, 3], vec![0f32, 1.0, 0.0, 0.0, 0.0, 2.0]).unwrap();
        assert_eq!(read(&flat, &[2, 3]), Ok(("s".into(), dense.clone())));
        assert_eq!(read(&pairs, &[2, 3]), Ok(("s".into(), dense)));
        assert!(read(&outside, &[2, 3]).is_err());
        assert!(read(&flat, &[1 << 40, 1 << 40]).is_err());
        assert!(read(&flat, &[1 << 29]).is_err());
    }
}
