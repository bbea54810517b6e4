//! Data caches: their sizes, ways and lines, as Linux publishes them, and rows of a table for machines that cannot be asked.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

/// One cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cache {
    /// Its size.
    pub bytes: usize,
    /// Lines that share a set.
    pub ways: usize,
}

impl Cache {
    const fn new(kib: usize, ways: usize) -> Self {
        Self { bytes: kib << 10, ways }
    }

    /// Bytes after which addresses share a set.
    pub fn period_bytes(&self) -> usize {
        self.bytes / self.ways.max(1)
    }
}

/// The data caches that one core sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Caches {
    /// First level.
    pub l1d: Cache,
    /// Second level.
    pub l2: Cache,
    /// Last level, or the second again where there is no third.
    pub l3: Cache,
    /// Bytes of a line of all of them.
    pub line_bytes: usize,
}

impl Caches {
    /// What is assumed of a machine that we cannot ask: 32 KiB, 512 KiB, 8 MiB.
    pub const ASSUMED: Self = Self::of(Cache::new(32, 8), Cache::new(512, 8), Cache::new(8 << 10, 16));

    /// As in a Zen 3 or Zen 4: 32 KiB of 8 ways.
    pub const ZEN3: Self = Self::of(Cache::new(32, 8), Cache::new(512, 8), Cache::new(32 << 10, 16));

    /// As in a Zen 5: 48 KiB of 12 ways.
    pub const ZEN5: Self = Self::of(Cache::new(48, 12), Cache::new(1 << 10, 16), Cache::new(32 << 10, 16));

    /// As in a Cortex-A76 of a small board: 64 KiB of 4 ways.
    pub const CORTEX_A76: Self = Self::of(Cache::new(64, 4), Cache::new(512, 8), Cache::new(2 << 10, 16));

    /// As in a Neoverse N1 of a server: 64 KiB of 4 ways.
    pub const NEOVERSE_N1: Self =
        Self::of(Cache::new(64, 4), Cache::new(1 << 10, 8), Cache::new(32 << 10, 16));

    /// The rows by name, as [`Target::parse`](crate::Target::parse) takes them.
    pub const NAMED: [(&'static str, Self); 5] = [
        ("assumed", Self::ASSUMED),
        ("zen3", Self::ZEN3),
        ("zen5", Self::ZEN5),
        ("cortex-a76", Self::CORTEX_A76),
        ("neoverse-n1", Self::NEOVERSE_N1),
    ];

    const fn of(l1d: Cache, l2: Cache, l3: Cache) -> Self {
        Self { l1d, l2, l3, line_bytes: 64 }
    }

    /// Those of the first core of this machine, read once; what it does not say is assumed.
    pub(crate) fn of_this_machine() -> Self {
        static READ: OnceLock<Caches> = OnceLock::new();
        *READ.get_or_init(|| Self::read(Path::new("/sys/devices/system/cpu/cpu0/cache")))
    }

    /// Reads a folder in which Linux lists the caches of a core, an `index*` each, in no order that can be relied on: level and
    /// type are files in these. What is missing is assumed.
    pub(crate) fn read(folder: &Path) -> Self {
        let assumed = Self::ASSUMED;
        let listed: Vec<Listed> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let entry = entry.ok()?;
                entry.file_name().to_str()?.starts_with("index").then(|| Listed::read(&entry.path()))?
            })
            .collect();
        let at = |level: usize| listed.iter().find(|cache| cache.level == level);
        let cache = |level: usize, assumed: Cache| at(level).map_or(assumed, |found| found.cache(assumed));
        let l1d = cache(1, assumed.l1d);
        let l2 = cache(2, assumed.l2);
        // A machine that lists a second level and no third has none; one that lists nothing has not been asked.
        let l3 = match (at(2), at(3)) {
            (Some(_), None) => l2,
            _ => cache(3, assumed.l3),
        };
        let line_bytes = listed.iter().find_map(|cache| cache.line_bytes).unwrap_or(assumed.line_bytes);
        Self { l1d, l2, l3, line_bytes }
    }
}

/// A cache that holds data, as it is listed.
struct Listed {
    level: usize,
    bytes: usize,
    /// Where it says so; 0 stands for a cache in which any line may be anywhere.
    ways: Option<usize>,
    line_bytes: Option<usize>,
}

impl Listed {
    /// Nothing for instructions, and for what says no level or size.
    fn read(folder: &Path) -> Option<Self> {
        let text = |name: &str| Some(fs::read_to_string(folder.join(name)).ok()?.trim().to_owned());
        let number = |name: &str| text(name)?.parse().ok();
        if !matches!(text("type")?.as_str(), "Data" | "Unified") {
            return None;
        }
        Some(Self {
            level: number("level")?,
            bytes: bytes_of(&text("size")?)?,
            ways: number("ways_of_associativity").filter(|&ways| ways > 0),
            line_bytes: number("coherency_line_size").filter(|&bytes: &usize| bytes.is_power_of_two()),
        })
    }

    fn cache(&self, assumed: Cache) -> Cache {
        Cache { bytes: self.bytes, ways: self.ways.unwrap_or(assumed.ways) }
    }
}

/// `48K`, `8M` or plain bytes; more than nothing.
fn bytes_of(text: &str) -> Option<usize> {
    let (digits, unit) = match text.strip_suffix('K') {
        Some(digits) => (digits, 1 << 10),
        None => text.strip_suffix('M').map_or((text, 1), |digits| (digits, 1 << 20)),
    };
    digits.parse::<usize>().ok()?.checked_mul(unit).filter(|&bytes| bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A folder like those of Linux; each cache as `level type size ways line`, in the order of their numbers.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str, caches: &[&str]) -> Self {
            let root = std::env::temp_dir().join(format!("tconvc-caches-{name}-{}", std::process::id()));
            for (number, cache) in caches.iter().enumerate() {
                let folder = root.join(format!("index{number}"));
                fs::create_dir_all(&folder).unwrap();
                let files = ["level", "type", "size", "ways_of_associativity", "coherency_line_size"];
                for (file, value) in files.iter().zip(cache.split(' ')) {
                    fs::write(folder.join(file), format!("{value}\n")).unwrap();
                }
            }
            Self(root)
        }

        fn read(&self) -> Caches {
            Caches::read(&self.0)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn level_and_type_count_and_not_the_number() {
        // Instructions come first, and the levels in any order.
        let caches =
            ["1 Instruction 64K 4 64", "3 Unified 16M 16 64", "1 Data 48K 12 64", "2 Unified 1024K 16 64"];
        let found = Folder::new("order", &caches).read();
        let expected = Caches { l3: Cache::new(16 << 10, 16), ..Caches::ZEN5 };
        assert_eq!(found, expected);
        assert_eq!(found.l1d.period_bytes(), 4096);
    }

    #[test]
    fn without_a_third_level_the_second_is_the_last() {
        let found = Folder::new("two", &["1 Data 32K 2 64", "1 Instruction 48K 3 64", "2 Unified 1M 16 64"]);
        let found = found.read();
        assert_eq!((found.l1d, found.l2, found.l3), (Cache::new(32, 2), Cache::new(1024, 16), found.l2));
    }

    #[test]
    fn what_is_not_said_is_assumed() {
        assert_eq!(Caches::read(Path::new("/no/such/folder")), Caches::ASSUMED);
        // No sizes, no numbers, no ways, lines that are none.
        let odd = [
            "1 Data",
            "2 Unified many 8 64",
            "1 Data 64K 0 48",
            "3 Unified 4096K",
            "one Data 32K 8 64",
            "2 Trace 12K 8 64",
            "2 Unified 0K 8 64",
        ];
        let found = Folder::new("odd", &odd).read();
        let expected = Caches { l1d: Cache::new(64, 8), l3: Cache::new(4096, 16), ..Caches::ASSUMED };
        assert_eq!(found, expected);
    }

    #[test]
    fn sets_repeat_after_the_bytes_of_a_way() {
        let periods =
            [Caches::ZEN3, Caches::ZEN5, Caches::CORTEX_A76].map(|caches| caches.l1d.period_bytes());
        assert_eq!(periods, [4096, 4096, 16384]);
    }
}
