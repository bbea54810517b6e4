//! The text form of tiles, printed and parsed: `parse(print(tile))` is the tile. The grammar is in the crate's README.

mod parse;
mod print;
mod scan;
mod words;

pub use self::parse::{TextError, parse};
pub(crate) use self::words::is_name;
