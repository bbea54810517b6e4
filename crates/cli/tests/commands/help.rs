//! Help texts.

use crate::support::{Folder, check};

#[test]
fn every_command_has_help() {
    let folder = Folder::new();
    check("help", &folder.run(&["--help"]));
    for command in ["compile", "run", "bench", "verify", "explain", "inspect", "completions"] {
        check(&format!("help_{command}"), &folder.run(&[command, "--help"]));
    }
}

#[test]
fn completions_name_every_command() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = folder.run(&["completions", shell]);
        for command in ["compile", "run", "bench", "verify", "explain", "inspect"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
}
