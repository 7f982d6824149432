//! Errors of the configuration: what was given, where, and what would be right.

use std::{io, path::PathBuf};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key that does not exist.
    #[error("{origin}: unknown setting {key}{}", suggestion(.similar.as_deref()))]
    UnknownKey {
        /// Where it was given.
        origin: String,
        /// The key as it was given.
        key: String,
        /// The key that exists and is spelt most like it.
        similar: Option<String>,
    },
    /// A value of the wrong type.
    #[error("{origin}: {key} is {value:?}, but must be {expected}")]
    BadValue {
        /// Where it was given.
        origin: String,
        /// The key.
        key: String,
        /// The value as it was given.
        value: String,
        /// What is right.
        expected: &'static str,
    },
    /// A value of the right type that cannot be used.
    #[error("{key} ({variable}) is {value}, but {expected}")]
    OutOfRange {
        /// The key.
        key: String,
        /// Its environment variable.
        variable: String,
        /// The value.
        value: String,
        /// What is right.
        expected: String,
    },
    /// The file is no TOML.
    #[error("{path:?} is not valid TOML: {reason}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why, by the parser.
        reason: String,
    },
    /// The file could not be read.
    #[error("cannot read the configuration file {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn suggestion(similar: Option<&str>) -> String {
    similar.map(|key| format!(" (did you mean {key}?)")).unwrap_or_default()
}
