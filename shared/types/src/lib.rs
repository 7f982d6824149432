//! Ids, time, schemas, limits and error codes that every part of TrueNow shares. Standard library only.

mod error;
mod gap;
mod ids;
pub mod limits;
mod name;
mod schema;
mod table;
mod time;

pub use error::{ApiError, ErrorCode};
pub use gap::{GapReason, LogGap};
pub use ids::{
    AppenderId, Generation, LogIdentity, NodeId, Offset, PartitionId, SchemaVersion, TableId, TableKey, TenantId,
};
pub use name::{NameError, TableName, check_column_name, check_table_name};
pub use schema::{ColumnDef, ColumnKind, Schema, SchemaConflict};
pub use table::{Rollup, Table, TableSettings};
pub use time::{Interval, TimeRange, Timestamp};
