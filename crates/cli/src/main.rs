//! The command `tconvc`.

fn main() {}
