//! Names of namespaces, tables and columns: stored exactly as given, never folded or normalised.

use std::fmt;

use crate::limits::NAME_BYTES_MAX;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameError {
    /// No character at all.
    Empty,
    /// More than [`NAME_BYTES_MAX`] bytes.
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// A character that names may not hold.
    Character(char),
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("must not be empty"),
            Self::TooLong { bytes } => write!(f, "has {bytes} bytes, at most {NAME_BYTES_MAX} are allowed"),
            Self::Character(c) => write!(f, "must not hold {c:?}"),
        }
    }
}

impl std::error::Error for NameError {}

/// Checks a namespace or a table: letters and numbers of any script, `_` and `-`.
///
/// # Errors
/// Says what is wrong with the name.
pub fn check_table_name(name: &str) -> Result<(), NameError> {
    check(name, |c| c == '_' || c == '-')
}

/// Checks a column: as a table, and `.`, `:`, `/` and space.
///
/// # Errors
/// Says what is wrong with the name.
pub fn check_column_name(name: &str) -> Result<(), NameError> {
    check(name, |c| matches!(c, '_' | '-' | '.' | ':' | '/' | ' '))
}

fn check(name: &str, extra: impl Fn(char) -> bool) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { bytes: name.len() });
    }
    match name.chars().find(|&c| !(c.is_alphanumeric() || extra(c))) {
        Some(c) => Err(NameError::Character(c)),
        None => Ok(()),
    }
}

/// A table's full name within its tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// The namespace.
    pub namespace: String,
    /// The table in it.
    pub table: String,
}

impl TableName {
    /// A name from its two parts, which the caller has checked or is about to look up.
    pub fn new(namespace: impl Into<String>, table: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), table: table.into() }
    }
}

impl fmt::Display for TableName {
    /// `namespace.table`, as the pseudo-column `table` shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.namespace, self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: exactly the characters of the contract pass.
    #[test]
    fn names_hold_what_the_contract_allows() {
        for good in ["a", "shop-eu_1", "größe", "表", "٣"] {
            assert_eq!(check_table_name(good), Ok(()), "{good}");
            assert_eq!(check_column_name(good), Ok(()), "{good}");
        }
        assert_eq!(check_column_name("http.status code:a/b"), Ok(()));
        assert_eq!(check_table_name("a.b"), Err(NameError::Character('.')));
        assert_eq!(check_column_name("a\0"), Err(NameError::Character('\0')));
        assert_eq!(check_column_name("\u{202e}"), Err(NameError::Character('\u{202e}')));
        assert_eq!(check_column_name(""), Err(NameError::Empty));
        assert_eq!(check_column_name(&"x".repeat(129)), Err(NameError::TooLong { bytes: 129 }));
    }
}
