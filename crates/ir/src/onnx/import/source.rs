//! A node of the file.

use super::super::proto::NodeProto;
use super::super::subgraph::Contents;
use super::domain;
use crate::error::{Error, Result};

/// A node of the file, after functions are inlined.
pub(super) struct Source {
    /// Its name, never empty, unique.
    pub name: String,
    pub proto: NodeProto,
    /// Opset of ONNX's own domain that it is written for.
    pub opset: Option<i64>,
    /// What its subgraphs read and hold.
    pub contents: Contents,
    /// Functions around it.
    pub depth: usize,
}

impl Source {
    pub fn new(name: String, proto: NodeProto, opset: Option<i64>, depth: usize) -> Result<Self> {
        let contents = Contents::of(&proto.attribute).map_err(|error| error.at(&name, &proto.op_type))?;
        Ok(Self { name, proto, opset, contents, depth })
    }

    /// Names of the values it reads, those of its subgraphs included.
    pub fn reads(&self) -> impl Iterator<Item = &str> {
        let own = self.proto.input.iter().filter(|name| !name.is_empty());
        own.chain(&self.contents.free).map(String::as_str)
    }

    /// Names the node in an error.
    pub fn at(&self, error: Error) -> Error {
        error.at(&self.name, &self.proto.op_type)
    }

    pub fn is_constant(&self) -> bool {
        domain(&self.proto.domain).is_empty() && self.proto.op_type == "Constant"
    }
}
