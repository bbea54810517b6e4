//! File tests: a tile as text, and what becomes of it on each target named: why the verifier refuses it, the registers that it
//! gets, or its code as assembly. `TCONVC_BLESS=1 cargo test -p tconvc-tile filetests` writes what was found.
//!
//! Directives: `targets`, names or triples with their level; `show`, `registers` or `code`. Names without a system take the
//! host's calling convention, and what is found must be the same on every machine: take triples.

use std::path::{Path, PathBuf};

use tconvc_machine::Target;
use tconvc_testing::filetest::{Directives, run_text};
use tconvc_tile::backend::{self, Settings, x86};
use tconvc_tile::{Tile, parse};

fn show(tile: &Tile, target: &Target, what: &str) -> Result<String, String> {
    let backend = backend::of(target, Settings { keep_text: true, ..Settings::default() });
    let allocated = match backend.allocate(tile.clone()) {
        Ok(allocated) => allocated,
        Err(error) => return Ok(format!("; error: {error}\n")),
    };
    match what {
        "registers" => {
            let text = allocated.to_string();
            if parse(&text).as_ref() != Ok(tile) {
                return Err(format!("the text with registers parses to another tile:\n{text}"));
            }
            Ok(text.lines().filter(|line| line.starts_with(';')).flat_map(|line| [line, "\n"]).collect())
        }
        "code" => {
            let code = backend.lower(&allocated).map_err(|error| error.to_string())?;
            let none = |_: std::ops::Range<usize>| None;
            let text = code.asm.unwrap_or_else(|| x86::disassemble(&code.bytes[..code.code_len], none));
            Ok(format!("{}\n; {} bytes\n", text.trim_end(), code.bytes.len()))
        }
        other => Err(format!("directive show: found `{other}`; accepted is `registers` or `code`")),
    }
}

fn find(directives: &Directives, text: &str) -> Result<String, String> {
    let tile = match parse(text) {
        Ok(tile) => tile,
        Err(error) => return Ok(format!("; error: {error}\n")),
    };
    if parse(&tile.to_string()).as_ref() != Ok(&tile) {
        return Err(format!("what is printed parses to another tile:\n{tile}"));
    }
    let mut found = String::new();
    for name in directives.get("targets").unwrap_or_default().split(',').map(str::trim) {
        let target = Target::parse(name).map_err(|error| error.to_string())?;
        let text = show(&tile, &target, directives.get("show").unwrap_or("registers"))?;
        found.extend(["; ", name, "\n", &text, "\n"]);
    }
    Ok(found)
}

#[test]
fn tiles_become_what_their_files_say() {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/filetests/tile");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "tile"))
        .collect();
    paths.sort();
    assert!(paths.len() >= 10, "{} of them in {}", paths.len(), folder.display());
    let failed: Vec<String> = paths.iter().filter_map(|path| run_text(path, &find).err()).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
