//! Tables, schemas and placement, kept in SQLite.
