//! The machine that tests make code for: what `TCONVC_TARGET` names, else the one that they run on.
//!
//! Only tests read this variable; the library reads no environment. Tests choose the target, never the machine: what is
//! counted is counted over [`every_target`], and run where [`is_run`] says so.

use std::io::Write;
use std::sync::OnceLock;
use tconvc_machine::{Caches, Target};

/// Names the target, see [`Target::NAMES`].
const VARIABLE: &str = "TCONVC_TARGET";

/// Targets of different tiles.
const LEVELS: [&str; 3] = ["x86-64", "x86-64-v3", "x86-64-v4"];

/// The target that tests compile for and run.
///
/// # Panics
/// When `TCONVC_TARGET` names nothing that can run here.
pub fn target() -> Target {
    targets().last().expect("there is always one").clone()
}

/// Name of [`target`], as the command line takes it.
pub fn target_name() -> &'static str {
    &chosen().name
}

/// [`target`] and those of lesser tiles, the least first: all run here.
///
/// # Panics
/// As [`target`].
pub fn targets() -> Vec<Target> {
    chosen().targets.clone()
}

/// Targets of every kind of tile, whatever the machine, and with the same caches everywhere: what is made for them is the
/// same in every run of the tests. Whether it can be run is for [`is_run`] to say.
pub fn every_target() -> Vec<Target> {
    LEVELS.iter().map(|name| parse(name).with_caches(Caches::ASSUMED)).collect()
}

/// Whether code for this target is run: this machine can, and `TCONVC_TARGET` asks for no lesser one.
pub fn is_run(target: &Target) -> bool {
    target.runs_here() && targets().iter().any(|run| run.isa() >= target.isa())
}

struct Chosen {
    name: String,
    targets: Vec<Target>,
}

fn chosen() -> &'static Chosen {
    static CHOSEN: OnceLock<Chosen> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let named = std::env::var(VARIABLE).ok().filter(|name| !name.is_empty());
        let (chosen, passed_over) = choose(named.as_deref().unwrap_or("host"), &Target::host())
            .unwrap_or_else(|error| panic!("{VARIABLE}: {error}"));
        if let Some(reason) = passed_over {
            // Past what captures the output of tests, and whoever does not listen has reasons.
            let _ = writeln!(std::io::stderr(), "{VARIABLE}: {reason}");
        }
        chosen
    })
}

/// The targets of a name on a machine; and why another one takes its place, when one does.
fn choose(name: &str, host: &Target) -> Result<(Chosen, Option<String>), String> {
    let asked = Target::parse(name).map_err(|error| error.to_string())?;
    let runs = |target: &Target| {
        target.triple().architecture == host.triple().architecture && target.x86_level() <= host.x86_level()
    };
    let below = |name: &&str| {
        let target = parse(name);
        target.x86_level() < asked.x86_level() && target.isa() <= asked.isa() && runs(&target)
    };
    let mut names: Vec<&str> = LEVELS.into_iter().filter(below).collect();
    if runs(&asked) && asked.runs_here() {
        names.push(name);
    }
    let Some(&last) = names.last() else {
        return Err(format!("code for `{name}` does not run on this machine, which is {host}"));
    };
    let reason = (last != name).then(|| {
        format!("code for `{name}` is not run, because this machine is {host}; `{last}` takes its place")
    });
    let targets = names.iter().map(|name| parse(name)).collect();
    Ok((Chosen { name: last.to_owned(), targets }, reason))
}

fn parse(name: &str) -> Target {
    Target::parse(name).expect("a name of the list")
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use super::*;

    fn names(name: &str, host: &str) -> Result<Vec<String>, String> {
        let (chosen, reason) = choose(name, &parse(host))?;
        assert_eq!(reason.is_some(), chosen.name != name, "{reason:?}");
        Ok(chosen.targets.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_name_is_a_target_and_those_below() {
        assert_eq!(names("x86-64", "x86-64").unwrap(), ["x86-64 (f32x4 tiles)"]);
        if parse("x86-64-v2").runs_here() {
            let expected = ["x86-64 (f32x4 tiles)", "x86-64-v2 (f32x4 tiles)"];
            assert_eq!(names("x86-64-v2", "x86-64-v4").unwrap(), expected);
        }
        if parse("x86-64-v3").runs_here() {
            let expected = ["x86-64 (f32x4 tiles)", "x86-64-v3 (avx2 tiles)"];
            assert_eq!(names("x86-64-v3", "x86-64-v4").unwrap(), expected);
        }
        assert!(!names("host", "x86-64-v4").unwrap().is_empty());
    }

    #[test]
    fn what_the_machine_has_not_is_passed_over() {
        assert_eq!(names("x86-64-v4", "x86-64-v2").unwrap(), ["x86-64 (f32x4 tiles)"]);
        let expected = ["x86-64 (f32x4 tiles)", "x86-64-v3 (avx2 tiles)"];
        assert_eq!(names("x86-64-v4", "x86-64-v3").unwrap(), expected);
    }

    #[test]
    fn what_cannot_be_is_an_error() {
        let error = names("avx9", "x86-64-v4").unwrap_err();
        assert!(error.contains("`avx9`") && error.contains("x86-64-v3"), "{error}");
        let error = names("aarch64", "x86-64-v4").unwrap_err();
        assert!(error.contains("`aarch64` does not run on this machine, which is x86-64-v4"), "{error}");
    }

    #[test]
    fn targets_are_counted_on_every_machine() {
        let every = every_target();
        assert_eq!(every.iter().map(Target::lanes).collect::<Vec<_>>(), [4, 8, 16]);
        assert!(every.iter().all(|target| target.caches() == Caches::ASSUMED));
        assert!(is_run(&every[0]) && targets().contains(&target()));
    }
}
