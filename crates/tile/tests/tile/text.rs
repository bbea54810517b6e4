//! The text form: what is printed parses to the same tile, and what does not parse is told why.

use crate::random;
use proptest::prelude::*;
use tconvc_machine::Target;
use tconvc_tile::{Tile, TileBuilder, parse};

fn tile(target: &str, name: &str, body: impl FnOnce(&mut TileBuilder)) -> Tile {
    let mut b = TileBuilder::new(name, &Target::parse(target).unwrap());
    body(&mut b);
    b.finish().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_tiles_come_back(seed: u64) {
        for target in ["x86-64", "x86-64-v3", "x86-64-v4"] {
            let tile = tile(target, "random", |b| random::write(b, seed));
            let text = tile.to_string();
            prop_assert_eq!(parse(&text).unwrap(), tile, "{}", text);
        }
    }

    #[test]
    fn damaged_texts_are_refused_without_a_panic(seed: u64, cuts in proptest::collection::vec((0_usize..4000, 0_u8..128), 1..8)) {
        let mut text = tile("x86-64-v3", "random", |b| random::write(b, seed)).to_string().into_bytes();
        for (at, byte) in cuts {
            let at = at % text.len();
            match byte {
                0..32 => drop(text.drain(at..(at + usize::from(byte)).min(text.len()))),
                byte => text[at] = byte,
            }
            if text.is_empty() {
                break;
            }
        }
        let text = String::from_utf8_lossy(&text);
        if let Ok(tile) = parse(&text) {
            prop_assert_eq!(parse(&tile.to_string()).unwrap(), tile);
        }
    }
}

#[test]
fn bits_come_back() {
    for bits in [
        0,
        1,
        1 << 31,
        0x7fc0_0001,
        0x7f80_0000,
        0xff80_0000,
        0x3f80_0001,
        0x0080_0000,
        0x60ad_78ec,
        0x1e3c_e508,
    ] {
        let tile = tile("x86-64", "bits", |b| {
            let p = b.pointer("p");
            let v = b.splat_bits(bits);
            let v = b.binary(tconvc_tile::BinaryOp::Xor, v, tconvc_tile::Operand::Bits(bits));
            b.store(v, p.at(0));
        });
        assert_eq!(parse(&tile.to_string()).unwrap(), tile, "{bits:#x}");
    }
}

#[test]
fn names_are_made_to_parse() {
    let name = "odd \"name\" \\ with\nlines and \u{e9}";
    let tile = tile("x86-64", name, |b| {
        let p = b.pointers(["v1", "x", "x", "store", "a b", "", "1", "loop.2"]);
        let n = [b.count("x"), b.count("v2.3"), b.count("n")];
        let d = b.derive(p[0], 16);
        let e = b.derive(d, -16);
        let v = b.load(e.at(0));
        for (p, n) in p.into_iter().zip(n.into_iter().cycle()) {
            b.advance_by(p, n, -4);
            b.store_lanes(v, p.at(0), tconvc_tile::Lanes::FirstOf(n));
        }
    });
    assert_eq!(parse(&tile.to_string()).unwrap(), tile, "{tile}");
    assert_eq!(tile.name(), name);
}

#[test]
fn errors_name_the_line_and_what_would_be_accepted() {
    let refused = |body: &str, words: &str| {
        let text = format!("; a comment\n\ntile t f32x8 (x, out; n) {{\n    v0 = load [x]\n    {body}\n}}\n");
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains(words), "{body}: {error}");
    };
    refused("v1 = frobnicate v0", "line 5: there is no operation `frobnicate`");
    refused("v1 = add v0", "found `");
    refused("v1 = add v0, maybe", "accepted is a float, or 32 bits as `0x..`");
    refused("v1 = load [y]", "no pointer is called `y` here");
    refused("v1 = load [x] first m", "no count is called `m`; accepted is a number of lanes or a count");
    refused("v1 = load [x 99999999999]", "accepted is a number of bytes that an i32 holds");
    refused("v1 = shuffle v0, v0 (a0 a1)", "accepted is a lane");
    refused(
        "v1 = shuffle v0, v0 (a0 a1 a2 a3 a4 a5 a6 b8)",
        "`b8` is no lane; accepted is a0 to a7, b0 to b7",
    );
    refused("v1 = v0 * v0 + 1.0", "accepted is `v1 = v1 *`");
    refused("v9999999 = load [x]", "`v9999999` is no vector");
    refused("store = x +4", "accepted is `[`");
    refused("v2 = x +4", "there is no operation `x`");
    refused("loop 2 {", "found the end; accepted is a statement");
    refused("store [out], v7", "`v7` is read in `store [out], v7` but not defined there");
    refused("store [out], v0 first 9", "number of lanes is 9; accepted is 1 to 8");
    refused("store [out], v0.9", "lane is 9; accepted is 0 to 7");
    refused("loop 0 {\n}", "number of trips is 0");
    refused("loop any v7 {\n}", "`v7` is read in `loop any v7` but not defined there");
    refused("loop any n {\n}", "no count is called `any`");
    let deep = "loop 2 {\n".repeat(100_000);
    refused(&deep, "more than 64 deep");
    let header = |text: &str| parse(text).unwrap_err().to_string();
    assert!(header("").contains("found the end; accepted is `tile`"));
    assert!(header("tile t f32x2 () {}").contains("accepted is `f32x4`, `f32x8` or `f32x16`"));
    assert!(header("tile t f32x4 (a, a) {}").contains("`a` is there already"));
    assert!(header("tile t f32x4 (v1) {}").contains("`v1` cannot be the name"));
    assert!(header("tile \"t f32x4 (v1) {}").contains("a name that ends in"));
    assert!(header("tile t f32x4 (; n) {} more").contains("found `more`; accepted is the end of the text"));
    assert!(parse("tile t f32x4 (; n) {}").is_ok() && parse("tile t f32x4 () {}").is_ok());
}
