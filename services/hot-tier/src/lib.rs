//! Rings of column segments and partial query execution.
