//! Text to tiles.

use std::collections::HashMap;

use super::scan::{Parsed, Scanner};
use super::words::{self, elem_of, is_name, op_of, vector_number};
use crate::elem::Elem;
use crate::error::TileError;
use crate::ir::{Address, Count, FmaOp, Inst, Lanes, Loop, Operand, Pointer, Stmt, Tile, Trips, Vector};
use crate::shuffle::Pattern;
use crate::verify;

/// Why a text is no tile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// It does not read as one.
    #[error("line {line}: {message}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// What was found, and what would be accepted.
        message: String,
    },
    /// It breaks a rule of the IR.
    #[error(transparent)]
    Tile(#[from] TileError),
}

/// Numbers of vectors are below this, so that no text asks for much memory.
const VECTORS: u32 = 1 << 20;

/// How deep loops may lie in each other.
const DEPTH: usize = 64;

/// Reads the text of one tile, and verifies it. Lines that begin with `;` are comments.
///
/// # Errors
/// [`TextError`].
pub fn parse(text: &str) -> Result<Tile, TextError> {
    let tile = Tile {
        name: String::new(),
        lanes: 0,
        pointers: Vec::new(),
        pointer_params: 0,
        counts: Vec::new(),
        vectors: 0,
        body: Vec::new(),
    };
    let mut parser =
        Parser { scan: Scanner::new(text), tile, pointers: HashMap::new(), counts: HashMap::new() };
    parser.tile()?;
    verify::verify(&parser.tile)?;
    Ok(parser.tile)
}

struct Parser<'a> {
    scan: Scanner<'a>,
    tile: Tile,
    pointers: HashMap<&'a str, u32>,
    counts: HashMap<&'a str, u32>,
}

impl<'a> Parser<'a> {
    // The tile.

    fn tile(&mut self) -> Parsed<()> {
        self.scan.expect("tile")?;
        self.tile.name = self.scan.name()?;
        self.tile.lanes = match self.scan.word("`f32x4`, `f32x8` or `f32x16`")? {
            "f32x4" => 4,
            "f32x8" => 8,
            "f32x16" => 16,
            other => {
                return self.scan.fail(format!("found `{other}`; accepted is `f32x4`, `f32x8` or `f32x16`"));
            }
        };
        self.scan.expect("(")?;
        if !self.scan.eat(")") {
            self.params()?;
        }
        self.scan.expect("{")?;
        self.tile.body = self.block(0)?;
        self.scan.skip();
        if self.scan.rest.is_empty() { Ok(()) } else { self.scan.wanted("the end of the text") }
    }

    fn params(&mut self) -> Parsed<()> {
        let mut counts = false;
        loop {
            if self.scan.eat(";") {
                counts = true;
            }
            let name = self.scan.word("the name of a parameter")?;
            if counts {
                self.new_count(name)?;
            } else {
                self.new_pointer(name)?;
            }
            if self.scan.eat(")") {
                self.tile.pointer_params = self.tile.pointers.len();
                return Ok(());
            }
            self.scan.skip();
            if counts || !self.scan.rest.starts_with(';') {
                self.scan.expect(",")?;
            }
        }
    }

    fn check_name(&self, name: &str) -> Parsed<()> {
        if !is_name(name) {
            return self.scan.fail(format!("`{name}` cannot be the name of a pointer or a count"));
        }
        if self.pointers.contains_key(name) || self.counts.contains_key(name) {
            return self.scan.fail(format!("`{name}` is there already"));
        }
        Ok(())
    }

    fn new_count(&mut self, name: &'a str) -> Parsed<()> {
        self.check_name(name)?;
        self.counts.insert(name, self.tile.counts.len() as u32);
        self.tile.counts.push(name.to_owned());
        Ok(())
    }

    fn new_pointer(&mut self, name: &'a str) -> Parsed<Pointer> {
        self.check_name(name)?;
        let number = self.tile.pointers.len() as u32;
        self.pointers.insert(name, number);
        self.tile.pointers.push(name.to_owned());
        Ok(Pointer(number))
    }

    fn block(&mut self, depth: usize) -> Parsed<Vec<Stmt>> {
        let mut block = Vec::new();
        while !self.scan.eat("}") {
            block.push(if self.scan.eat("loop") {
                if depth == DEPTH {
                    return self.scan.fail(format!("loops lie in each other more than {DEPTH} deep"));
                }
                Stmt::Loop(Box::new(self.a_loop(depth)?))
            } else {
                Stmt::Inst(self.inst()?)
            });
        }
        Ok(block)
    }

    fn a_loop(&mut self, depth: usize) -> Parsed<Loop> {
        // A count may have that name.
        let before = self.scan.rest;
        let any = self.scan.eat("any");
        self.scan.skip();
        let trips = if any && self.scan.rest.starts_with('v') {
            Trips::Any(self.vector()?)
        } else {
            self.scan.rest = before;
            match self.count_or_number("a number of trips or a count")? {
                Ok(n) => Trips::Param(n),
                Err(n) => Trips::Const(n),
            }
        };
        let mut advances = Vec::new();
        if self.scan.eat("step") {
            loop {
                let pointer = self.pointer()?;
                advances.push((pointer, self.scan.bytes()?));
                if !self.scan.eat(",") {
                    break;
                }
            }
        }
        self.scan.expect("{")?;
        Ok(Loop { trips, body: self.block(depth + 1)?, advances })
    }

    // Operands.

    fn count_or_number(&mut self, wanted: &str) -> Parsed<Result<Count, u32>> {
        self.scan.skip();
        if self.scan.rest.starts_with(|c: char| c.is_ascii_digit()) {
            return self.scan.integer(wanted).map(Err);
        }
        self.count(wanted).map(Ok)
    }

    fn count(&mut self, wanted: &str) -> Parsed<Count> {
        let name = self.scan.word(wanted)?;
        match self.counts.get(name) {
            Some(&n) => Ok(Count(n)),
            None => self.scan.fail(format!("no count is called `{name}`; accepted is {wanted}")),
        }
    }

    fn pointer(&mut self) -> Parsed<Pointer> {
        let name = self.scan.word("a pointer")?;
        match self.pointers.get(name) {
            Some(&p) => Ok(Pointer(p)),
            None => self.scan.fail(format!("no pointer is called `{name}` here")),
        }
    }

    fn address(&mut self) -> Parsed<Address> {
        self.scan.expect("[")?;
        let pointer = self.pointer()?;
        if self.scan.eat("]") {
            return Ok(pointer.at(0));
        }
        let bytes = self.scan.bytes()?;
        self.scan.expect("]")?;
        Ok(pointer.at(bytes))
    }

    fn vector(&mut self) -> Parsed<Vector> {
        let word = self.scan.word("a vector, such as `v0`")?;
        self.vector_of(word)
    }

    fn vector_of(&mut self, word: &str) -> Parsed<Vector> {
        let number = vector_number(word).and_then(|digits| digits.parse().ok());
        let Some(number) = number.filter(|&n: &u32| n < VECTORS) else {
            return self.scan.fail(format!("`{word}` is no vector; accepted is `v0` to `v{}`", VECTORS - 1));
        };
        self.tile.vectors = self.tile.vectors.max(number + 1);
        Ok(Vector(number))
    }

    fn bits(&mut self) -> Parsed<u32> {
        let wanted = "a float, or 32 bits as `0x..`";
        let (before, text) = (self.scan.rest, self.scan.number(wanted)?);
        let bits = match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => text.parse().ok().map(f32::to_bits),
        };
        let Some(bits) = bits else {
            self.scan.rest = before;
            return self.scan.wanted(wanted);
        };
        Ok(bits)
    }

    fn operand(&mut self) -> Parsed<Operand> {
        self.scan.skip();
        if self.scan.eat("splat") {
            return self.address().map(Operand::Splat);
        }
        match self.scan.rest.as_bytes().first() {
            Some(b'[') => self.address().map(Operand::Memory),
            Some(b'v') => self.vector().map(Operand::Vector),
            _ => self.bits().map(Operand::Bits),
        }
    }

    fn lanes(&mut self) -> Parsed<Lanes> {
        if !self.scan.eat("first") {
            return Ok(Lanes::All);
        }
        match self.count_or_number("a number of lanes or a count")? {
            Ok(n) => Ok(Lanes::FirstOf(n)),
            Err(n) => match u8::try_from(n) {
                Ok(n) => Ok(Lanes::First(n)),
                Err(_) => self.scan.fail(format!("{n} lanes are more than a vector has")),
            },
        }
    }

    fn lane(&mut self, digits: &str) -> Parsed<u8> {
        match digits.parse() {
            Ok(lane) => Ok(lane),
            Err(_) => self.scan.fail(format!("`{digits}` is no lane")),
        }
    }

    fn pattern(&mut self) -> Parsed<Pattern> {
        self.scan.expect("(")?;
        let lanes = self.tile.lanes;
        let mut picks = vec![0; lanes];
        for pick in &mut picks {
            let word = self.scan.word("a lane, such as `a0` or `b3`")?;
            let (source, digits) = word.split_at(1);
            let lane = digits.parse().ok().filter(|&lane| lane < lanes);
            *pick = match (source, lane) {
                ("a", Some(lane)) => lane,
                ("b", Some(lane)) => lanes + lane,
                _ => {
                    let last = lanes - 1;
                    return self
                        .scan
                        .fail(format!("`{word}` is no lane; accepted is a0 to a{last}, b0 to b{last}"));
                }
            };
        }
        self.scan.expect(")")?;
        Ok(Pattern::new(lanes, |i| picks[i]))
    }

    // Instructions.

    fn inst(&mut self) -> Parsed<Inst> {
        if self.scan.eat("prefetch") {
            return Ok(Inst::Prefetch { at: self.address()? });
        }
        let word = self.scan.word("a statement")?;
        if let Some(elem) = elem_of(word, "store") {
            return self.store(elem);
        }
        if vector_number(word).is_some() {
            let dst = self.vector_of(word)?;
            return self.vector_inst(dst);
        }
        self.pointer_inst(word)
    }

    fn store(&mut self, elem: Elem) -> Parsed<Inst> {
        let at = self.address()?;
        self.scan.expect(",")?;
        let word = self.scan.word("a vector, such as `v0`, or one lane of it, such as `v0.3`")?;
        if let Some((vector, lane)) = word.split_once('.')
            && elem == Elem::F32
        {
            return Ok(Inst::StoreLane { src: self.vector_of(vector)?, lane: self.lane(lane)?, at });
        }
        Ok(Inst::Store { src: self.vector_of(word)?, at, lanes: self.lanes()?, elem })
    }

    fn pointer_inst(&mut self, name: &'a str) -> Parsed<Inst> {
        if self.scan.eat("+=") {
            let Some(&number) = self.pointers.get(name) else {
                return self.scan.fail(format!("no pointer is called `{name}` here"));
            };
            let (pointer, bytes) = (Pointer(number), self.scan.bytes()?);
            if self.scan.eat("*") {
                return Ok(Inst::AdvanceBy { pointer, count: self.count("a count")?, bytes });
            }
            return Ok(Inst::Advance { pointer, bytes });
        }
        self.scan.expect("=")?;
        let (base, bytes) = (self.pointer()?, self.scan.bytes()?);
        let dst = match self.pointers.get(name) {
            Some(&known) => Pointer(known),
            None => self.new_pointer(name)?,
        };
        Ok(Inst::Derive { dst, base, bytes })
    }

    fn vector_inst(&mut self, dst: Vector) -> Parsed<Inst> {
        for (sign, op) in [("+=", FmaOp::Add), ("-=", FmaOp::Sub)] {
            if self.scan.eat(sign) {
                let a = self.vector()?;
                self.scan.expect("*")?;
                return Ok(Inst::Fma { op, dst, a, b: self.operand()? });
            }
        }
        self.scan.expect("=")?;
        self.scan.skip();
        if self.scan.rest.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+') {
            return Ok(Inst::Const { dst, bits: self.bits()? });
        }
        let word = self.scan.word("an operation, a vector or a number")?;
        if vector_number(word).is_some() {
            let a = self.vector_of(word)?;
            return self.behind_vector(dst, a);
        }
        if let Some(elem) = elem_of(word, "load") {
            return Ok(Inst::Load { dst, at: self.address()?, lanes: self.lanes()?, elem });
        }
        if let Some(elem) = elem_of(word, "splat") {
            return Ok(Inst::LoadSplat { dst, at: self.address()?, elem });
        }
        match word {
            "gather" => return self.gather(dst),
            "shuffle" => {
                let a = self.vector()?;
                self.scan.expect(",")?;
                return Ok(Inst::Shuffle { dst, a, b: self.vector()?, pattern: self.pattern()? });
            }
            _ => {}
        }
        if let Some(op) = op_of(&words::UNARY, word) {
            return Ok(Inst::Unary { op, dst, a: self.vector()? });
        }
        let (binary, shift) = (op_of(&words::BINARY, word), op_of(&words::SHIFT, word));
        if binary.is_none() && shift.is_none() {
            return self.scan.fail(format!("there is no operation `{word}`"));
        }
        let a = self.vector()?;
        self.scan.expect(",")?;
        match (binary, shift) {
            (Some(op), _) => Ok(Inst::Binary { op, dst, a, b: self.operand()? }),
            (None, Some(op)) => Ok(Inst::Shift { op, dst, a, by: self.scan.integer("bits to shift by")? }),
            (None, None) => self.scan.wanted("an operation"),
        }
    }

    fn gather(&mut self, dst: Vector) -> Parsed<Inst> {
        let at = self.address()?;
        self.scan.expect("stride")?;
        let stride = self.scan.bytes()?;
        self.scan.expect("first")?;
        Ok(Inst::Gather { dst, at, stride, lanes: self.scan.integer("a number of lanes")? })
    }

    /// `dst = a ..`: a step of Horner's rule, where `a` is `dst`, or a choice.
    fn behind_vector(&mut self, dst: Vector, a: Vector) -> Parsed<Inst> {
        if self.scan.eat("*") {
            if a != dst {
                return self.scan.fail(format!("found `{dst} = {a} *`; accepted is `{dst} = {dst} *`"));
            }
            let a = self.vector()?;
            self.scan.expect("+")?;
            return Ok(Inst::Fma { op: FmaOp::Horner, dst, a, b: self.operand()? });
        }
        let Some(&(cmp, _)) = words::CMP.iter().find(|(_, sign)| self.scan.eat(sign)) else {
            return self.scan.wanted("`*` or a comparison");
        };
        let b = self.operand()?;
        self.scan.expect("?")?;
        let yes = self.vector()?;
        self.scan.expect(":")?;
        Ok(Inst::Select { cmp, dst, a, b, yes, no: self.vector()? })
    }
}
