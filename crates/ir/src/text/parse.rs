//! Text to graph, a line at a time. Values are defined before they are used, so that no text makes a cycle.

use super::cursor::Cursor;
use super::elements::{Literal, read_elements, read_hex, tensor_of_bytes};
use super::lexer::Token;
use super::weights::{Weights, read_generator};
use crate::attributes::{AttributeValue, Attributes};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Definition, Graph, ValueId};
use crate::ops::{Op, Opaque};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// Reads a graph from the text form. Tensors that stand there by their hash are taken from `weights`.
///
/// # Errors
/// Names line and column, what was found and what was expected.
pub fn parse(text: &str, weights: &Weights) -> Result<Graph> {
    let mut parser = Parser { cursor: Cursor::new(text)?, weights, graph: Graph::default() };
    loop {
        match parser.cursor.token() {
            Token::End => return Ok(parser.graph),
            Token::Newline => {
                parser.cursor.advance()?;
            }
            _ => {
                parser.line()?;
                if !matches!(parser.cursor.token(), Token::End | Token::Newline) {
                    return Err(parser.cursor.expected("the end of the line"));
                }
            }
        }
    }
}

struct Parser<'t> {
    cursor: Cursor<'t>,
    weights: &'t Weights,
    graph: Graph,
}

/// An output of a node as its line names it; `None` for `_`.
type Target = Option<(String, ValueType, usize)>;

impl Parser<'_> {
    fn line(&mut self) -> Result<()> {
        match self.cursor.token() {
            Token::Word("graph") => {
                self.cursor.advance()?;
                self.graph.name = self.cursor.word_or_string("the name of the graph")?;
                Ok(())
            }
            Token::Word("opset") => self.opset(),
            Token::Word("meta") => self.meta(),
            Token::Word("input") => self.input(),
            Token::Word("const") => self.constant(),
            Token::Word("output") => {
                self.cursor.advance()?;
                let Some(id) = self.operand()? else {
                    return Err(self.cursor.expected("the value that is the output"));
                };
                self.graph.add_output(id);
                Ok(())
            }
            Token::Value(_) | Token::Word(_) | Token::Text(_) | Token::Mark("::") => self.node(),
            _ => {
                let what = "graph, opset, meta, input, const, output or a node such as `%y = Relu(%x)`";
                Err(self.cursor.expected(what))
            }
        }
    }

    /// `opset 17`, `opset com.microsoft = 1`.
    fn opset(&mut self) -> Result<()> {
        self.cursor.advance()?;
        let position = self.cursor.position();
        let domain = match self.cursor.token() {
            Token::Number(_) | Token::Mark("-") => String::new(),
            _ => {
                let domain = self.cursor.word_or_string("a version, or a domain and its version")?;
                self.cursor.expect("=")?;
                domain
            }
        };
        let version = self.cursor.integer("a version")?;
        if self.graph.opsets.insert(domain, version).is_some() {
            return Err(self.cursor.error_at(position, "the version of this domain is given twice"));
        }
        Ok(())
    }

    /// `meta producer = "somebody"`.
    fn meta(&mut self) -> Result<()> {
        self.cursor.advance()?;
        let position = self.cursor.position();
        let key = self.cursor.word_or_string("a key")?;
        self.cursor.expect("=")?;
        let Token::Text(value) = self.cursor.token().clone() else {
            return Err(self.cursor.expected("a string"));
        };
        self.cursor.advance()?;
        if self.graph.metadata.insert(key, value.into_owned()).is_some() {
            return Err(self.cursor.error_at(position, "this key is given twice"));
        }
        Ok(())
    }

    /// `input %x : f32[1, H]`, `input %w : f32[H] default f32[2] = [1.0, 2.0]`.
    fn input(&mut self) -> Result<()> {
        self.cursor.advance()?;
        let Some((name, ty, position)) = self.target()? else {
            return Err(self.cursor.expected("the input's name"));
        };
        let added = self.graph.add_input(&name, ty);
        let id = added.map_err(|error| self.cursor.error_at(position, error.to_string()))?;
        if self.cursor.accept_word("default")? {
            let position = self.cursor.position();
            let tensor = self.tensor(&name)?;
            let set = self.graph.set_default(id, tensor);
            set.map_err(|error| self.cursor.error_at(position, error.to_string()))?;
        }
        Ok(())
    }

    /// `const @w : f32[2] = [1.0, 2.0]`, `const @w : f32[64, 3] #0123456789abcdef`.
    fn constant(&mut self) -> Result<()> {
        self.cursor.advance()?;
        let position = self.cursor.position();
        let Token::Constant(name) = self.cursor.token().clone() else {
            return Err(self.cursor.expected("the constant's name, such as `@w`"));
        };
        self.cursor.advance()?;
        if self.graph.find_value(&name).is_some() {
            return Err(self.cursor.error_at(position, format!("two values are named `{name}`")));
        }
        self.cursor.expect(":")?;
        let tensor = self.tensor(&name)?;
        self.graph.add_constant(&name, tensor);
        Ok(())
    }

    /// A type whose extents are all known, and elements.
    fn tensor(&mut self, name: &str) -> Result<Tensor> {
        let position = self.cursor.position();
        let ty = self.cursor.value_type()?;
        let (Some(dtype), Some(shape)) = (ty.dtype, ty.known_shape()) else {
            return Err(self
                .cursor
                .error_at(position, format!("{ty} is no type of a tensor: numbers are expected")));
        };
        let position = self.cursor.position();
        if let Token::Hash(hash) = *self.cursor.token() {
            self.cursor.advance()?;
            let found = self.weights.tensor(hash, name, dtype, &shape);
            let missing = || format!("no {ty} tensor of hash #{hash:016x} is among the weights at hand");
            return found.cloned().ok_or_else(|| self.cursor.error_at(position, missing()));
        }
        if !self.cursor.accept("=")? {
            return Err(self.cursor.expected("`=` and elements, or a hash"));
        }
        if self.cursor.accept_word("hex")? {
            let tensor = tensor_of_bytes(dtype, &shape, read_hex(&mut self.cursor)?);
            return tensor.map_err(|error| self.cursor.error_at(position, error.to_string()));
        }
        match read_generator(&mut self.cursor, dtype, &shape)? {
            Some(tensor) => Ok(tensor),
            None => read_elements(&mut self.cursor, dtype, &shape),
        }
    }

    /// `_` or `%x : f32[1]`.
    fn target(&mut self) -> Result<Target> {
        if self.cursor.accept_word("_")? {
            return Ok(None);
        }
        let position = self.cursor.position();
        let Token::Value(name) = self.cursor.token().clone() else {
            return Err(self.cursor.expected("a value such as `%x`"));
        };
        self.cursor.advance()?;
        let ty = if self.cursor.accept(":")? { self.cursor.value_type()? } else { ValueType::default() };
        Ok(Some((name.into_owned(), ty, position)))
    }

    /// `%x`, `@w` or `_`.
    fn operand(&mut self) -> Result<Option<ValueId>> {
        if self.cursor.accept_word("_")? {
            return Ok(None);
        }
        let (name, constant) = match self.cursor.token() {
            Token::Value(name) => (name, false),
            Token::Constant(name) => (name, true),
            _ => return Err(self.cursor.expected("a value such as `%x`, a constant such as `@w`, or `_`")),
        };
        let Some(id) = self.graph.find_value(name) else {
            let problem = format!("{} is not defined above this line", self.cursor.token());
            return Err(self.cursor.error_at(self.cursor.position(), problem));
        };
        if constant != matches!(self.graph.value(id).definition(), Definition::Constant(_)) {
            let problem = if constant { "is no constant: write `%`" } else { "is a constant: write `@`" };
            let problem = format!("`{name}` {problem}");
            return Err(self.cursor.error_at(self.cursor.position(), problem));
        }
        self.cursor.advance()?;
        Ok(Some(id))
    }

    /// `%a : f32[1], _ = Op(%x, @w, _) {k=1} "name"`.
    fn node(&mut self) -> Result<()> {
        let mut targets = vec![];
        if matches!(self.cursor.token(), Token::Value(_) | Token::Word("_")) {
            targets.push(self.target()?);
            while self.cursor.accept(",")? {
                targets.push(self.target()?);
            }
            self.cursor.expect("=")?;
        }
        let position = self.cursor.position();
        let (domain, op_type) = self.operator()?;
        self.cursor.expect("(")?;
        let (inputs, captures) = self.operands(domain.is_some())?;
        let attributes = if self.cursor.accept("{")? { self.attributes()? } else { Attributes::new() };
        let op = match domain {
            Some(domain) => Op::Opaque(Opaque::new(domain, op_type, attributes, captures)),
            None => match Op::read(&op_type, attributes) {
                Ok(Some(op)) => op,
                Ok(None) => {
                    let problem =
                        format!("`{op_type}` is no operator known here; others are written `::{op_type}`");
                    return Err(self.cursor.error_at(position, problem));
                }
                Err(error) => return Err(self.cursor.error_at(position, error.to_string())),
            },
        };
        let first = targets.iter().flatten().next().map(|(name, ..)| name.clone());
        let name_position = self.cursor.position();
        let name = match self.cursor.token().clone() {
            Token::Text(name) => {
                self.cursor.advance()?;
                name.into_owned()
            }
            _ => match first {
                Some(name) => name,
                None => return Err(self.cursor.expected("a name in quotes, for a node without outputs")),
            },
        };
        let mut outputs = Vec::with_capacity(targets.len());
        for target in targets {
            outputs.push(match target {
                None => None,
                Some((name, ty, position)) => {
                    let added = self.graph.add_undefined(&name, ty);
                    Some(added.map_err(|error| self.cursor.error_at(position, error.to_string()))?)
                }
            });
        }
        let added = self.graph.add_node_defining(&name, op, &inputs, &outputs);
        let id = added.map_err(|error| self.cursor.error_at(position, error.to_string()))?;
        if self.graph.node(id).name != name {
            let problem = format!("`{name}` is no name for a node: it is empty or taken");
            return Err(self.cursor.error_at(name_position, problem));
        }
        Ok(())
    }

    /// `Relu`, `::NonZero`, `com.microsoft::FusedConv`: the domain of an operator that is not read, and the name.
    fn operator(&mut self) -> Result<(Option<String>, String)> {
        const WHAT: &str = "an operator such as `Relu` or `::NonZero`";
        if self.cursor.accept("::")? {
            return Ok((Some(String::new()), self.cursor.word_or_string(WHAT)?));
        }
        let name = self.cursor.word_or_string(WHAT)?;
        if self.cursor.accept("::")? {
            return Ok((Some(name), self.cursor.word_or_string(WHAT)?));
        }
        Ok((None, name))
    }

    /// Operands up to `)`; those behind `|` are captured. Gives their number, too.
    fn operands(&mut self, may_capture: bool) -> Result<(Vec<Option<ValueId>>, usize)> {
        let (mut operands, mut own) = (vec![], None);
        loop {
            if self.cursor.accept(")")? {
                let captures = own.map_or(0, |own| operands.len() - own);
                return Ok((operands, captures));
            }
            if may_capture && own.is_none() && self.cursor.accept("|")? {
                own = Some(operands.len());
            } else if !operands.is_empty() && !self.cursor.accept(",")? {
                return Err(self.cursor.expected("`,` or `)`"));
            }
            operands.push(self.operand()?);
        }
    }

    /// Attributes up to `}`.
    fn attributes(&mut self) -> Result<Attributes> {
        let mut attributes = Attributes::new();
        let weights = self.weights;
        while !self.cursor.accept("}")? {
            if !attributes.is_empty() && !self.cursor.accept(",")? {
                return Err(self.cursor.expected("`,` or `}`"));
            }
            let position = self.cursor.position();
            let name = self.cursor.word_or_string("the name of an attribute")?;
            if attributes.contains(&name) {
                return Err(self.cursor.error_at(position, format!("attribute `{name}` is given twice")));
            }
            self.cursor.expect("=")?;
            let value = self.attribute(&name, weights)?;
            attributes.set(&name, value);
        }
        Ok(attributes)
    }

    fn attribute(&mut self, name: &str, weights: &Weights) -> Result<AttributeValue> {
        let position = self.cursor.position();
        match self.cursor.token().clone() {
            Token::Mark("[") => {
                self.cursor.advance()?;
                self.list("")
            }
            Token::Word(kind @ ("floats" | "strings")) => {
                self.cursor.advance()?;
                self.cursor.expect("[")?;
                self.list(kind)
            }
            Token::Word("tensor") => {
                self.cursor.advance()?;
                Ok(AttributeValue::Tensor(self.tensor(name)?))
            }
            Token::Word("hex") => {
                self.cursor.advance()?;
                Ok(AttributeValue::Opaque(read_hex(&mut self.cursor)?))
            }
            Token::Word("encoded") => {
                self.cursor.advance()?;
                let Token::Hash(hash) = *self.cursor.token() else {
                    return Err(self.cursor.expected("a hash"));
                };
                self.cursor.advance()?;
                let found = weights.encoded(hash).map(|bytes| AttributeValue::Opaque(bytes.to_vec()));
                let missing =
                    || format!("no encoded attribute of hash #{hash:016x} is among the weights at hand");
                found.ok_or_else(|| self.cursor.error_at(position, missing()))
            }
            _ => scalar(&mut self.cursor),
        }
    }

    /// Items up to `]`. They must all be of one kind, which `kind` or the first one says.
    fn list(&mut self, kind: &str) -> Result<AttributeValue> {
        let mut places = vec![];
        let items = self.cursor.list("]", |cursor| {
            places.push(cursor.position());
            scalar(cursor)
        })?;
        let mut list = match (kind, items.first()) {
            ("floats", _) | (_, Some(AttributeValue::Float(_))) => AttributeValue::Floats(vec![]),
            ("strings", _) | (_, Some(AttributeValue::String(_))) => AttributeValue::Strings(vec![]),
            _ => AttributeValue::Ints(vec![]),
        };
        for (item, place) in items.into_iter().zip(places) {
            match (&mut list, item) {
                (AttributeValue::Ints(list), AttributeValue::Int(item)) => list.push(item),
                (AttributeValue::Floats(list), AttributeValue::Float(item)) => list.push(item),
                (AttributeValue::Strings(list), AttributeValue::String(item)) => list.push(item),
                (list, item) => {
                    let problem =
                        format!("expected {} of one kind, found {} in it", list.kind(), item.kind());
                    return Err(self.cursor.error_at(place, problem));
                }
            }
        }
        Ok(list)
    }
}

/// An integer, a float, a string, or an element type for its number. A float has a point, an exponent, `inf` or `nan`.
fn scalar(cursor: &mut Cursor<'_>) -> Result<AttributeValue> {
    match cursor.token().clone() {
        Token::Text(text) => {
            cursor.advance()?;
            Ok(AttributeValue::String(text.into_owned()))
        }
        Token::Word("inf" | "nan") => Ok(AttributeValue::Float(Literal::read(cursor)?)),
        Token::Word(word) => match DType::from_name(word) {
            Some(dtype) => {
                cursor.advance()?;
                Ok(dtype.into())
            }
            None => Err(cursor.expected("the value of an attribute")),
        },
        Token::Number(digits) => Ok(if is_float(digits) {
            AttributeValue::Float(Literal::read(cursor)?)
        } else {
            AttributeValue::Int(Literal::read(cursor)?)
        }),
        Token::Mark("-") => {
            // The sign does not tell which it is: look behind it.
            let mut ahead = cursor.clone();
            ahead.advance()?;
            let integer = matches!(ahead.token(), Token::Number(digits) if !is_float(digits));
            Ok(if integer {
                AttributeValue::Int(Literal::read(cursor)?)
            } else {
                AttributeValue::Float(Literal::read(cursor)?)
            })
        }
        _ => Err(cursor.expected("the value of an attribute")),
    }
}

fn is_float(digits: &str) -> bool {
    !digits.starts_with("0x") && digits.contains(['.', 'e', 'E'])
}

impl std::str::FromStr for Graph {
    type Err = Error;

    /// As [`parse`], for a text without hashes.
    fn from_str(text: &str) -> Result<Self> {
        parse(text, &Weights::none())
    }
}
