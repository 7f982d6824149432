//! What an embedded log is told, and why it may not open.

use std::{io, path::PathBuf, time::Duration};

use types::LogIdentity;

/// How an embedded log is kept. [`EmbeddedConfig::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// The log's directory; made if it is not there.
    pub dir: PathBuf,
    /// Partitions of a new log, 1 to [`types::limits::PARTITIONS_MAX`]; one that exists keeps its own number.
    pub partitions: u32,
    /// What the checksums of a new log are seeded with; `None`: a random number. One that exists keeps its own. Who knows it
    /// can write events that a recovery may take for records.
    pub frame_key: Option<u64>,
    /// Which log a new one is; `None`: a random number. One that exists keeps its own.
    pub identity: Option<LogIdentity>,
    /// Bytes of a file; one group of blocks that is larger makes its file longer.
    pub segment_bytes: u64,
    /// Bytes queued and not yet durable past which `append` refuses.
    pub queue_bytes_max: u64,
    /// Bytes that one sync covers at most; one larger append is a group of its own.
    pub group_bytes_max: u64,
    /// Bytes that are written while the group before them is synced; fewer wait for that sync.
    pub overlap_bytes_min: u64,
    /// How long a group waits for more once it has its first block. Zero: not at all; what comes during a sync makes
    /// the next group.
    pub linger: Duration,
    /// Bytes of the newest records that are kept in memory for readers.
    pub tail_bytes_max: u64,
    /// Bytes of indexes of older files that are kept in memory.
    pub index_bytes_max: u64,
    /// Bytes that stay on disk though they were released.
    pub retention_bytes_min: u64,
}

impl EmbeddedConfig {
    /// A log of `partitions` partitions in `dir`, by the defaults.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, partitions: u32) -> Self {
        Self {
            dir: dir.into(),
            partitions,
            frame_key: None,
            identity: None,
            segment_bytes: 128 << 20,
            queue_bytes_max: 64 << 20,
            group_bytes_max: 8 << 20,
            overlap_bytes_min: 256 << 10,
            linger: Duration::ZERO,
            tail_bytes_max: 64 << 20,
            index_bytes_max: 32 << 20,
            retention_bytes_min: 0,
        }
    }
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configuration cannot be.
    #[error("{field} is {value}, must be {must}")]
    Config {
        /// The setting.
        field: &'static str,
        /// What it is.
        value: u64,
        /// What it should be.
        must: &'static str,
    },
    /// Another process has it open.
    #[error("log directory {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// What is stored contradicts itself in a way that would lose or repeat offsets.
    #[error("{} is damaged: {what}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// Written by other code.
    #[error("{} has format version {found}, this program reads {read}: move the directory away, or use the program that wrote it", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version that it has.
        found: u32,
        /// The version that is read.
        read: u32,
    },
    /// The disk failed.
    #[error("open log in {}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The failure.
        source: io::Error,
    },
}

impl OpenError {
    /// For `map_err`: a failure at `path`.
    pub(crate) fn at(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.into(), source }
    }
}

/// What a start found and mended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Files of records.
    pub files: u64,
    /// Bytes behind the last whole record of the last file that were cut off. None of them was ever acked, unless
    /// the disk lost what it had synced.
    pub cut_bytes: u64,
    /// Records of the last file that are damaged though they were synced; reading them gives `Corrupt`.
    pub damaged_records: u64,
}
