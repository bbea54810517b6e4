//! What was measured to be the fastest, as data that a file keeps.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;
use tconvc_codegen::options::Schedules;
use tconvc_passes::Form;

/// Forms and schedules that [`Compiler::tune`](crate::Compiler::tune) measured to be the fastest, by processor, number of threads
/// and geometry. [`Compiler::tuning`](crate::Compiler::tuning) takes them in the place of estimates.
///
/// Kept in a file, it spares measuring again. What another version of tconvc has measured is forgotten.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tuning {
    version: String,
    settings: BTreeMap<String, Record>,
}

/// What was measured on one processor with one number of threads.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Record {
    /// Names of forms by geometry.
    forms: BTreeMap<String, String>,
    /// Names of schedules by problem.
    schedules: BTreeMap<String, String>,
}

/// Most bytes of a file that is read: a layer takes about 200.
const MOST_BYTES: u64 = 64 << 20;

impl Default for Tuning {
    fn default() -> Self {
        Self { version: env!("CARGO_PKG_VERSION").into(), settings: BTreeMap::new() }
    }
}

impl Tuning {
    /// Nothing measured yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads what [`Tuning::write`] has written; nothing where there is no such file, or another version has written it.
    ///
    /// # Errors
    /// When the file cannot be read or is no such file.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let problem = |problem: String| Error::Tuning { file: path.display().to_string(), problem };
        let about = match fs::metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::new()),
            about => about.map_err(|error| problem(error.to_string()))?,
        };
        if !about.is_file() || about.len() > MOST_BYTES {
            return Err(problem(format!(
                "is no plain file of at most {MOST_BYTES} bytes, as files of measured schedules are"
            )));
        }
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text));
        read.map_err(|error| problem(error.to_string()))?;
        let unknown = |error| {
            problem(format!("is no file of measured schedules ({error}); delete it, or name another"))
        };
        let read: Self = serde_json::from_str(&text).map_err(unknown)?;
        let new = Self::new();
        Ok(if read.version == new.version { read } else { new })
    }

    /// Writes a file, together with what others have measured and written there in the meantime.
    ///
    /// # Errors
    /// When the file or its folder cannot be made, or [`Tuning::read`] fails.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let mut all = Self::read(path)?;
        for (setting, record) in &self.settings {
            let known = all.settings.entry(setting.clone()).or_default();
            known.forms.extend(record.forms.clone());
            known.schedules.extend(record.schedules.clone());
        }
        let problem = |error: std::io::Error| Error::Tuning {
            file: path.display().to_string(),
            problem: error.to_string(),
        };
        let text = serde_json::to_string_pretty(&all).map_err(|error| problem(error.into()))?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(problem)?;
        }
        // Readers see the old file or the new one, whole.
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}", std::process::id()));
        let draft = path.with_file_name(name);
        let written = fs::write(&draft, text + "\n").and_then(|()| fs::rename(&draft, path));
        written.map_err(|error| {
            let _ = fs::remove_file(&draft);
            problem(error)
        })
    }

    /// Number of layers whose form or schedule is known, on all processors.
    pub fn len(&self) -> usize {
        self.settings.values().map(|record| record.forms.len() + record.schedules.len()).sum()
    }

    /// True when nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forms by geometry, on this processor.
    pub(crate) fn forms(&self, setting: &str) -> BTreeMap<String, Form> {
        let record = self.settings.get(setting).into_iter();
        let forms = record.flat_map(|record| &record.forms);
        forms.filter_map(|(geometry, form)| Some((geometry.clone(), form.parse().ok()?))).collect()
    }

    pub(crate) fn schedules(&self, setting: &str) -> Schedules {
        let record = self.settings.get(setting).into_iter();
        record.flat_map(|record| record.schedules.clone()).collect()
    }

    pub(crate) fn has_form(&self, setting: &str, geometry: &str) -> bool {
        self.settings.get(setting).is_some_and(|record| record.forms.contains_key(geometry))
    }

    pub(crate) fn has_schedule(&self, setting: &str, problem: &str) -> bool {
        self.settings.get(setting).is_some_and(|record| record.schedules.contains_key(problem))
    }

    pub(crate) fn set_form(&mut self, setting: &str, geometry: &str, form: Form) {
        let record = self.settings.entry(setting.into()).or_default();
        record.forms.insert(geometry.into(), form.name().into());
    }

    pub(crate) fn set_schedule(&mut self, setting: &str, problem: &str, schedule: &str) {
        let record = self.settings.entry(setting.into()).or_default();
        record.schedules.insert(problem.into(), schedule.into());
    }
}
