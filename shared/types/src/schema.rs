//! The columns of a table. They only ever grow, and a column never changes its kind.

use std::fmt;

use crate::{SchemaVersion, limits::TABLE_COLUMNS_MAX};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ColumnKind {
    /// Text, dictionary encoded.
    Dimension,
    /// Finite `f64`.
    Metric,
}

impl fmt::Display for ColumnKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dimension => "dimension",
            Self::Metric => "metric",
        })
    }
}

/// A column: its name and kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ColumnDef {
    /// Its name, unique in its table across both kinds.
    pub name: String,
    /// What it holds.
    pub kind: ColumnKind,
}

/// Why columns could not be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaConflict {
    /// The name is taken by a column of the other kind.
    Kind {
        /// The column.
        name: String,
        /// What it is in the table.
        is: ColumnKind,
    },
    /// The table would have more than [`TABLE_COLUMNS_MAX`] columns.
    TooManyColumns,
}

impl fmt::Display for SchemaConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind { name, is } => write!(f, "{name} is a {is} of this table"),
            Self::TooManyColumns => write!(f, "a table has at most {TABLE_COLUMNS_MAX} columns"),
        }
    }
}

impl std::error::Error for SchemaConflict {}

/// The columns of a table at one version, in the order in which they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    version: SchemaVersion,
    columns: Vec<ColumnDef>,
}

impl Default for Schema {
    fn default() -> Self {
        Self { version: SchemaVersion(1), columns: Vec::new() }
    }
}

impl Schema {
    /// A schema as it was stored.
    #[must_use]
    pub fn from_parts(version: SchemaVersion, columns: Vec<ColumnDef>) -> Self {
        Self { version, columns }
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> SchemaVersion {
        self.version
    }

    /// Its columns.
    #[must_use]
    pub fn columns(&self) -> &[ColumnDef] {
        &self.columns
    }

    /// The kind of the column `name`, if the table has it. A linear search: resolve once per query or batch.
    #[must_use]
    pub fn kind_of(&self, name: &str) -> Option<ColumnKind> {
        self.columns.iter().find(|column| column.name == name).map(|column| column.kind)
    }

    /// Names of the columns of one kind, in order.
    pub fn names(&self, kind: ColumnKind) -> impl Iterator<Item = &str> {
        self.columns.iter().filter(move |column| column.kind == kind).map(|column| column.name.as_str())
    }

    /// This schema with `columns` added: `None` if all of them were there already, else one version higher.
    ///
    /// # Errors
    /// A column of the other kind has a name of `columns`, or there would be too many.
    pub fn with_columns(&self, columns: &[ColumnDef]) -> Result<Option<Self>, SchemaConflict> {
        let mut grown = self.columns.clone();
        for column in columns {
            match grown.iter().find(|known| known.name == column.name) {
                Some(known) if known.kind == column.kind => {}
                Some(known) => return Err(SchemaConflict::Kind { name: column.name.clone(), is: known.kind }),
                None => grown.push(column.clone()),
            }
        }
        if grown.len() > TABLE_COLUMNS_MAX {
            return Err(SchemaConflict::TooManyColumns);
        }
        let version = SchemaVersion(self.version.0 + 1);
        Ok((grown.len() > self.columns.len()).then_some(Self { version, columns: grown }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, kind: ColumnKind) -> ColumnDef {
        ColumnDef { name: name.into(), kind }
    }

    /// Goal: a schema grows by what is new, and refuses a change of kind.
    #[test]
    fn schemas_only_grow() {
        let empty = Schema::default();
        let one = empty.with_columns(&[column("a", ColumnKind::Dimension)]).unwrap().unwrap();
        assert_eq!(one.version(), SchemaVersion(2));
        assert_eq!(one.with_columns(&[column("a", ColumnKind::Dimension)]), Ok(None));
        assert_eq!(
            one.with_columns(&[column("a", ColumnKind::Metric)]),
            Err(SchemaConflict::Kind { name: "a".into(), is: ColumnKind::Dimension })
        );
        let many: Vec<_> = (0..TABLE_COLUMNS_MAX).map(|n| column(&format!("m{n}"), ColumnKind::Metric)).collect();
        assert_eq!(one.with_columns(&many), Err(SchemaConflict::TooManyColumns));
    }
}
