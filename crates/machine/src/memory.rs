//! How much memory this process may have: that of the machine, of its control groups, and of its own limit, the least of them.

use std::fs;
use std::path::Path;

/// Bytes of memory that this process may have; `None` where the system does not say.
pub fn memory_bytes() -> Option<u64> {
    memory_below(Path::new("/"))
}

fn memory_below(root: &Path) -> Option<u64> {
    let text = |path: &str| fs::read_to_string(root.join(path)).ok();
    let machine = text("proc/meminfo").and_then(|text| total(&text));
    let address_space = text("proc/self/limits").and_then(|text| address_space(&text));
    let groups = text("proc/self/cgroup").unwrap_or_default();
    let groups = groups.lines().filter_map(|line| group(root, line));
    groups.chain(machine).chain(address_space).min()
}

/// `MemTotal:       16384000 kB`
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// `Max address space         8192000000           unlimited            bytes`, the first of the two
fn address_space(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The least limit of a group and of those around it: `0::/user.slice/app`, or `5:memory:/app` in the older hierarchy.
fn group(root: &Path, line: &str) -> Option<u64> {
    let mut parts = line.splitn(3, ':');
    let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let (folder, file) = match controllers {
        "" if number == "0" => ("sys/fs/cgroup", "memory.max"),
        controllers if controllers.split(',').any(|name| name == "memory") => {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return None,
    };
    let top = root.join(folder);
    let inner = top.join(path.trim_start_matches('/'));
    let around = inner.ancestors().take_while(|folder| folder.starts_with(&top));
    // What the older hierarchy says where there is no limit is more than any machine has.
    let limit = |folder: &Path| fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok();
    around.filter_map(limit).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(name: &str, files: &[(&str, &str)]) -> Option<u64> {
        let root = std::env::temp_dir().join(format!("tconvc-memory-{name}-{}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let found = memory_below(&root);
        let _ = fs::remove_dir_all(root);
        found
    }

    #[test]
    fn the_least_of_all_limits_counts() {
        let meminfo = ("proc/meminfo", "MemTotal:       1000 kB\nMemFree: 10 kB\n");
        assert_eq!(machine("none", &[]), None);
        assert_eq!(machine("whole", &[meminfo]), Some(1_024_000));
        let limits =
            ("proc/self/limits", "Limit Soft Hard\nMax address space         5000    unlimited   bytes\n");
        assert_eq!(machine("limit", &[meminfo, limits]), Some(5000));
        let unlimited = ("proc/self/limits", "Max address space         unlimited   unlimited   bytes\n");
        assert_eq!(machine("unlimited", &[meminfo, unlimited]), Some(1_024_000));
    }

    #[test]
    fn groups_around_count() {
        let meminfo = ("proc/meminfo", "MemTotal:       1000 kB\n");
        let files = [
            meminfo,
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/memory.max", "700000\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
        ];
        assert_eq!(machine("two", &files), Some(700_000));
        let files = [
            meminfo,
            ("proc/self/cgroup", "7:cpu:/\n5:memory:/x\n"),
            ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "600000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(machine("one", &files), Some(600_000));
    }
}
