//! From bytes to messages and back, with a bound on what decoding may allocate.

use super::proto;
use crate::error::{Error, Result};
use prost::Message;
use prost::bytes::Bytes;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};

/// Most fields a single message may have: decoded elements take up to about 50 bytes each.
const MAX_FIELDS: usize = 1 << 22;

/// Longest field that may grow when decoded (a varint of one byte becomes an element of eight).
const MAX_GROWING_BYTES: usize = 1 << 27;

/// A message of ours.
pub(super) trait Proto: Message + Default {
    /// ONNX's name, for error messages.
    const NAME: &'static str;
    /// Tags of fields that do not grow when decoded: they are shared or copied as they are, whatever their length.
    const FLAT: &'static [u32] = &[];
}

macro_rules! protos {
    ($($name:ident: $flat:expr;)*) => {
        $(impl Proto for proto::$name {
            const NAME: &'static str = stringify!($name);
            const FLAT: &'static [u32] = &$flat;
        })*
    };
}

protos! {
    ModelProto: [7, 25];
    GraphProto: [1, 5, 15];
    NodeProto: [5];
    AttributeProto: [4, 5, 6, 7, 9, 10, 11, 22, 23];
    TensorProto: [4, 6, 9, 10];
    SparseTensorProto: [1, 2];
    ValueInfoProto: [];
    TypeProto: [];
    TensorTypeProto: [];
    TensorShapeProto: [];
    FunctionProto: [7, 11];
}

/// Decodes a message; its `bytes` fields share the buffer.
pub(super) fn decode<M: Proto>(bytes: &Bytes) -> Result<M> {
    check_size(bytes, M::FLAT).map_err(|problem| Error::Malformed(format!("{}: {problem}", M::NAME)))?;
    M::decode(bytes.clone()).map_err(|error| {
        let error = error.to_string();
        let problem = error.strip_prefix("failed to decode Protobuf message: ").unwrap_or(&error);
        Error::Malformed(format!("{}: {problem}", M::NAME))
    })
}

/// Walks over the fields of one message, not into them.
fn check_size(mut rest: &[u8], flat: &[u32]) -> Result<(), String> {
    let broken = |_| "broken off or no protocol buffer".to_owned();
    let mut fields = 0;
    while !rest.is_empty() {
        fields += 1;
        if fields > MAX_FIELDS {
            return Err(format!("more than {MAX_FIELDS} fields in one message"));
        }
        let (tag, wire_type) = decode_key(&mut rest).map_err(broken)?;
        let length = match wire_type {
            WireType::Varint => decode_varint(&mut rest).map(|_| 0).map_err(broken)?,
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::LengthDelimited => decode_varint(&mut rest).map_err(broken)?,
            WireType::StartGroup | WireType::EndGroup => {
                return Err(format!("field {tag} is a group, which ONNX does not use"));
            }
        };
        if length > MAX_GROWING_BYTES as u64 && !flat.contains(&tag) {
            return Err(format!(
                "field {tag} is {length} bytes long, accepted are {MAX_GROWING_BYTES} (large tensors belong into raw_data)"
            ));
        }
        let length = usize::try_from(length).ok().filter(|&length| length <= rest.len());
        let length = length
            .ok_or_else(|| format!("field {tag} reaches past the end: the file is cut off or damaged"))?;
        rest = &rest[length..];
    }
    Ok(())
}

/// Encodes a message.
pub(super) fn encode(message: &impl Proto) -> Bytes {
    message.encode_to_vec().into()
}

/// Appends a field that holds a message.
pub(super) fn put_message(out: &mut Vec<u8>, tag: u32, message: &impl Proto) {
    put_header(out, tag, message.encoded_len());
    message.encode_raw(out);
}

/// Appends the beginning of a field of `length` bytes.
pub(super) fn put_header(out: &mut Vec<u8>, tag: u32, length: usize) {
    out.reserve(length + 16);
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}
