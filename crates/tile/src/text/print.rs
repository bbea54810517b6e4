//! Tiles as text, whole and by instruction: for reports, file tests and error messages.

use std::fmt::{self, Display, Formatter, Write as _};

use super::words::{self, is_word, name_of};
use crate::elem::Elem;
use crate::ir::{Address, Count, FmaOp, Inst, Lanes, Loop, Operand, Pointer, Stmt, Tile, Trips, Vector};

impl Display for Vector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl Display for Tile {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let pointers = self.pointers[..self.pointer_params].join(", ");
        write!(f, "tile {} f32x{} ({pointers}", show_tile_name(&self.name), self.lanes)?;
        if !self.counts.is_empty() {
            write!(f, "; {}", self.counts.join(", "))?;
        }
        writeln!(f, ") {{")?;
        self.write_block(f, &self.body, 1)?;
        writeln!(f, "}}")
    }
}

impl Tile {
    /// One instruction as the listing shows it.
    pub fn show(&self, inst: &Inst) -> String {
        ShowInst { tile: self, inst }.to_string()
    }

    pub(crate) fn pointer_name(&self, p: Pointer) -> &str {
        self.pointers.get(p.0 as usize).map_or("?", String::as_str)
    }

    pub(crate) fn count_name(&self, n: Count) -> &str {
        self.counts.get(n.0 as usize).map_or("?", String::as_str)
    }

    fn write_block(&self, f: &mut Formatter<'_>, block: &[Stmt], depth: usize) -> fmt::Result {
        for stmt in block {
            match stmt {
                Stmt::Inst(inst) => {
                    writeln!(f, "{:1$}{2}", "", 4 * depth, ShowInst { tile: self, inst })?;
                }
                Stmt::Loop(l) => {
                    writeln!(f, "{:1$}{2} {{", "", 4 * depth, self.show_loop(l))?;
                    self.write_block(f, &l.body, depth + 1)?;
                    writeln!(f, "{:1$}}}", "", 4 * depth)?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn show_loop(&self, l: &Loop) -> String {
        let mut text = match l.trips {
            Trips::Const(n) => format!("loop {n}"),
            Trips::Param(n) => format!("loop {}", self.count_name(n)),
            Trips::Any(v) => format!("loop any {v}"),
        };
        for (i, &(p, bytes)) in l.advances.iter().enumerate() {
            text += if i == 0 { " step " } else { ", " };
            let _ = write!(text, "{} {bytes:+}", self.pointer_name(p));
        }
        text
    }
}

struct ShowInst<'a> {
    tile: &'a Tile,
    inst: &'a Inst,
}

impl ShowInst<'_> {
    fn at(&self, at: Address) -> String {
        let name = self.tile.pointer_name(at.pointer);
        if at.bytes == 0 { format!("[{name}]") } else { format!("[{name} {:+}]", at.bytes) }
    }

    fn operand(&self, b: Operand) -> String {
        match b {
            Operand::Vector(v) => v.to_string(),
            Operand::Memory(at) => self.at(at),
            Operand::Splat(at) => format!("splat {}", self.at(at)),
            Operand::Bits(bits) => show_bits(bits),
        }
    }

    fn lanes(&self, lanes: Lanes) -> String {
        match lanes {
            Lanes::All => String::new(),
            Lanes::First(n) => format!(" first {n}"),
            Lanes::FirstOf(n) => format!(" first {}", self.tile.count_name(n)),
        }
    }
}

impl Display for ShowInst<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self.inst {
            Inst::Const { dst, bits } => write!(f, "{dst} = {}", show_bits(bits)),
            Inst::Load { dst, at, lanes, elem } => {
                write!(f, "{dst} = load{} {}{}", show_elem(elem), self.at(at), self.lanes(lanes))
            }
            Inst::Store { src, at, lanes, elem } => {
                write!(f, "store{} {}, {src}{}", show_elem(elem), self.at(at), self.lanes(lanes))
            }
            Inst::LoadSplat { dst, at, elem } => {
                write!(f, "{dst} = splat{} {}", show_elem(elem), self.at(at))
            }
            Inst::Gather { dst, at, stride, lanes } => {
                write!(f, "{dst} = gather {} stride {stride} first {lanes}", self.at(at))
            }
            Inst::StoreLane { src, lane, at } => write!(f, "store {}, {src}.{lane}", self.at(at)),
            Inst::Unary { op, dst, a } => write!(f, "{dst} = {} {a}", name_of(&words::UNARY, op)),
            Inst::Binary { op, dst, a, b } => {
                write!(f, "{dst} = {} {a}, {}", name_of(&words::BINARY, op), self.operand(b))
            }
            Inst::Shift { op, dst, a, by } => write!(f, "{dst} = {} {a}, {by}", name_of(&words::SHIFT, op)),
            Inst::Fma { op, dst, a, b } => {
                let b = self.operand(b);
                match op {
                    FmaOp::Add => write!(f, "{dst} += {a} * {b}"),
                    FmaOp::Sub => write!(f, "{dst} -= {a} * {b}"),
                    FmaOp::Horner => write!(f, "{dst} = {dst} * {a} + {b}"),
                }
            }
            Inst::Select { cmp, dst, a, b, yes, no } => {
                write!(f, "{dst} = {a} {} {} ? {yes} : {no}", name_of(&words::CMP, cmp), self.operand(b))
            }
            Inst::Shuffle { dst, a, b, pattern } => {
                write!(f, "{dst} = shuffle {a}, {b} {}", pattern.show(self.tile.lanes))
            }
            Inst::Derive { dst, base, bytes } => {
                let (dst, base) = (self.tile.pointer_name(dst), self.tile.pointer_name(base));
                write!(f, "{dst} = {base} {bytes:+}")
            }
            Inst::Advance { pointer, bytes } => {
                write!(f, "{} += {bytes}", self.tile.pointer_name(pointer))
            }
            Inst::AdvanceBy { pointer, count, bytes } => {
                write!(f, "{} += {bytes} * {}", self.tile.pointer_name(pointer), self.tile.count_name(count))
            }
            Inst::Prefetch { at } => write!(f, "prefetch {}", self.at(at)),
        }
    }
}

/// Behind the name of an access: nothing for f32.
fn show_elem(elem: Elem) -> String {
    if elem == Elem::F32 { String::new() } else { format!(".{}", elem.name()) }
}

/// A float where it is a plain one, else the bits.
fn show_bits(bits: u32) -> String {
    let value = f32::from_bits(bits);
    if value == 0.0 || value.is_normal() && (1e-20..1e20).contains(&value.abs()) {
        format!("{value:?}")
    } else {
        format!("{bits:#010x}")
    }
}

/// As it is where that reads as one word, else quoted.
fn show_tile_name(name: &str) -> String {
    if !name.is_empty() && name.bytes().all(is_word) { name.to_owned() } else { format!("{name:?}") }
}
