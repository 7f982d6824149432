//! The durable, replayable event log: a fixed set of partitions, shared by all tables.
//!
//! 1. What `append` returned is durable, in the class that [`EventLog::durability`] names, and stays until released.
//! 2. Only what is durable is ever shown to a reader.
//! 3. Offsets of a partition are dense from 0; append times never fall within a partition.
//! 4. What cannot be read is reported (a gap, damage), never skipped.
//! 5. Rows are counted per table and partition as they become durable, and those counts outlive the records.
//!
//! [`EmbeddedLog`] keeps it in files of one directory. Its files and its clock are arguments, so that tests can drop
//! what was not synced and fail any call ([`faults`]). [`KafkaLog`] keeps it on the brokers of Kafka. Every log passes the
//! suite in [`conformance`].

mod api;
mod clock;
pub mod conformance;
mod disk;
mod embedded;
pub mod faults;
mod files;
mod kafka;
mod rows;
mod tail;

pub use api::{
    Append, AppendError, Appended, Bounds, Durability, EventLog, Load, LogLedger, LogReader, ReadError, Record,
};
pub use clock::{Clock, SystemClock};
pub use disk::DiskFiles;
pub use embedded::{Driver, EmbeddedConfig, EmbeddedLog, OpenError, Recovery, Step};
pub use files::{FileSystem, LogFile, OpenMode};
pub use kafka::{Compression, KafkaConfig, KafkaLog, KafkaOpenError};
