//! From the sources to one valid [`Config`]: file, then environment, then flags, each over the one before.

use std::{
    io,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use crate::{
    Config, ConfigError, Machine,
    settings::{RawConfig, SetError, keys},
};

/// The file that is read from the working directory where none is named; it need not exist.
pub const FILE_DEFAULT: &str = "truenow.toml";

/// The variable that names another file, which must exist then.
const FILE_VARIABLE: &str = "TRUENOW_CONFIG";

/// Where settings come from. Later fields win over earlier ones.
#[derive(Debug, Default)]
pub struct Sources {
    /// The file's path and text, where there is a file.
    pub file: Option<(PathBuf, String)>,
    /// The environment: all of it; what is not TrueNow's is skipped.
    pub environment: Vec<(String, String)>,
    /// Flags, as `section.key` and value.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// Collects the sources of a process. `file`: the file that a flag names, if one does.
    ///
    /// # Errors
    /// A named file that cannot be read, or the default one if it exists and cannot be read.
    pub fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let environment: Vec<_> = environment.into_iter().collect();
        let from_environment = environment.iter().find(|(name, _)| name == FILE_VARIABLE).map(|(_, path)| path.into());
        let named: Option<PathBuf> = file.map(Path::to_path_buf).or(from_environment);
        let file = match named {
            Some(path) => Some(read_file(path)?),
            None => match read_file(FILE_DEFAULT.into()) {
                Ok(file) => Some(file),
                Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            },
        };
        Ok(Self { file, environment, flags: flags.into_iter().collect() })
    }

    /// The configuration that the sources give on `machine`.
    ///
    /// # Errors
    /// The first unknown key, bad value or contradiction.
    pub fn into_config(self, machine: &Machine) -> Result<Config, ConfigError> {
        let mut raw = RawConfig::default();
        if let Some((path, text)) = &self.file {
            apply_file(&mut raw, path, text)?;
        }
        apply_environment(&mut raw, &self.environment)?;
        for (path, value) in &self.flags {
            let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
            apply(&mut raw, "flag", path, section, name, value)?;
        }
        Config::try_from((raw, machine))
    }
}

fn read_file(path: PathBuf) -> Result<(PathBuf, String), ConfigError> {
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(source) => Err(ConfigError::Read { path, source }),
    }
}

fn apply_file(raw: &mut RawConfig, path: &Path, text: &str) -> Result<(), ConfigError> {
    let table: Table = text
        .parse()
        .map_err(|error: toml::de::Error| ConfigError::Syntax { path: path.into(), reason: error.to_string() })?;
    let origin = path.display().to_string();
    for (name, value) in &table {
        match value {
            Value::Table(section) => apply_section(raw, &origin, name, section)?,
            _ => apply(raw, &origin, name, "", name, &text_of(value))?,
        }
    }
    Ok(())
}

fn apply_section(raw: &mut RawConfig, origin: &str, section: &str, table: &Table) -> Result<(), ConfigError> {
    for (key, value) in table {
        let path = format!("{section}.{key}");
        match value {
            Value::Table(inner) => apply_section(raw, origin, &path, inner)?,
            _ => apply(raw, origin, &path, section, key, &text_of(value))?,
        }
    }
    Ok(())
}

/// A TOML value as an environment variable would spell it.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(text_of).collect::<Vec<_>>().join(","),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(flag) => flag.to_string(),
        // No setting is a date or a table: their text only shows in the error that follows.
        Value::Datetime(_) | Value::Table(_) => format!("{value:?}"),
    }
}

fn apply_environment(raw: &mut RawConfig, environment: &[(String, String)]) -> Result<(), ConfigError> {
    // The short names come last: where both are set, the one that everybody knows wins.
    let short = |name: &str| keys().find(|key| key.variable() == name && !name.starts_with("TRUENOW_"));
    for (name, value) in environment.iter().filter(|(name, _)| name.starts_with("TRUENOW_") && name != FILE_VARIABLE) {
        match keys().find(|key| key.systematic_variable() == *name) {
            Some(key) => apply(raw, "environment", name, key.section, key.name, value)?,
            None => return Err(unknown("environment", name, keys().map(|key| key.variable()))),
        }
    }
    for (name, value) in environment {
        if let Some(key) = short(name) {
            apply(raw, "environment", name, key.section, key.name, value)?;
        }
    }
    Ok(())
}

fn apply(
    raw: &mut RawConfig,
    origin: &str,
    given: &str,
    section: &str,
    name: &str,
    value: &str,
) -> Result<(), ConfigError> {
    match raw.set(section, name, value) {
        Ok(()) => Ok(()),
        Err(SetError::UnknownKey) => Err(unknown(origin, given, keys().map(|key| key.path()))),
        Err(SetError::BadValue { expected }) => {
            Err(ConfigError::BadValue { origin: origin.into(), key: given.into(), value: value.into(), expected })
        }
    }
}

fn unknown(origin: &str, given: &str, known: impl Iterator<Item = String>) -> ConfigError {
    let similar = known
        .map(|key| (edit_distance(&key, given), key))
        .filter(|(distance, _)| *distance <= given.len() / 3)
        .min()
        .map(|(_, key)| key);
    ConfigError::UnknownKey { origin: origin.into(), key: given.into(), similar }
}

/// Levenshtein distance in bytes.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
