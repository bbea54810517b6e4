//! Names of operations and operands, once for the printer and the parser.

use crate::elem::Elem;
use crate::ir::{BinaryOp, Cmp, ShiftOp, UnaryOp};

pub(super) const UNARY: [(UnaryOp, &str); 10] = [
    (UnaryOp::Copy, "copy"),
    (UnaryOp::Neg, "neg"),
    (UnaryOp::Abs, "abs"),
    (UnaryOp::Sqrt, "sqrt"),
    (UnaryOp::Floor, "floor"),
    (UnaryOp::Ceil, "ceil"),
    (UnaryOp::Trunc, "trunc"),
    (UnaryOp::Round, "round"),
    (UnaryOp::ToInt, "to_int"),
    (UnaryOp::ToFloat, "to_float"),
];

pub(super) const BINARY: [(BinaryOp, &str); 14] = [
    (BinaryOp::Add, "add"),
    (BinaryOp::Sub, "sub"),
    (BinaryOp::Mul, "mul"),
    (BinaryOp::Div, "div"),
    (BinaryOp::Max, "max"),
    (BinaryOp::Min, "min"),
    (BinaryOp::And, "and"),
    (BinaryOp::Or, "or"),
    (BinaryOp::Xor, "xor"),
    (BinaryOp::IntAdd, "int_add"),
    (BinaryOp::IntSub, "int_sub"),
    (BinaryOp::IntMul, "int_mul"),
    (BinaryOp::IntMax, "int_max"),
    (BinaryOp::IntMin, "int_min"),
];

pub(super) const SHIFT: [(ShiftOp, &str); 3] =
    [(ShiftOp::Left, "shl"), (ShiftOp::Right, "shr"), (ShiftOp::RightSigned, "sar")];

/// What a word such as `load.f16` reads or writes; `load` alone is f32.
pub(super) fn elem_of(word: &str, statement: &str) -> Option<Elem> {
    match word.strip_prefix(statement)? {
        "" => Some(Elem::F32),
        name => Elem::ALL.into_iter().find(|elem| name.strip_prefix('.') == Some(elem.name())),
    }
}

/// Two characters before one, for the parser.
pub(super) const CMP: [(Cmp, &str); 6] =
    [(Cmp::Eq, "=="), (Cmp::Ne, "!="), (Cmp::Le, "<="), (Cmp::Ge, ">="), (Cmp::Lt, "<"), (Cmp::Gt, ">")];

/// The name of an operation.
pub(super) fn name_of<T: PartialEq + Copy>(table: &[(T, &'static str)], op: T) -> &'static str {
    table.iter().find(|(known, _)| *known == op).map_or("?", |&(_, name)| name)
}

/// The operation of a name.
pub(super) fn op_of<T: Copy>(table: &[(T, &'static str)], name: &str) -> Option<T> {
    table.iter().find(|(_, known)| *known == name).map(|&(op, _)| op)
}

/// Words that statements begin with; no pointer can have their names.
const STATEMENTS: [&str; 3] = ["store", "loop", "prefetch"];

/// Whether a pointer or count can be called so: letters, digits, `_` and `.` behind a letter or `_`; neither a
/// vector (`v7`) nor a word that a statement begins with.
pub(crate) fn is_name(name: &str) -> bool {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let first = name.split('.').next().unwrap_or_default();
    starts && name.bytes().all(is_word) && vector_number(first).is_none() && !STATEMENTS.contains(&first)
}

/// Characters of words: names, numbers, operations.
pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.'
}

/// `7` of `v7`. Digits behind a `v` are a vector, however many there are.
pub(super) fn vector_number(word: &str) -> Option<&str> {
    let digits = word.strip_prefix('v')?;
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then_some(digits)
}
