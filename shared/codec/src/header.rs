//! The header of a block: what it holds, whose it is, who appended it. 128 bytes, little-endian.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `TNB1` |
//! | 4 | 2 | format version, [`FORMAT_VERSION`] |
//! | 6 | 1 | kind: 0 events, 1 control |
//! | 7 | 1 | flags: bit 0, the batch has an identity; bit 1, the gateway gave event times to some rows |
//! | 8 | 8 | tenant |
//! | 16 | 8 | table |
//! | 24 | 4 | generation |
//! | 28 | 4 | schema version |
//! | 32 | 4 | rows |
//! | 36 | 4 | body length, bytes |
//! | 40 | 8 | xxh3-64 of the body |
//! | 48 | 8 | appender |
//! | 56 | 8 | rows that this appender appended to this table and partition, this block included |
//! | 64 | 8 | least event time, µs (0 in a control record) |
//! | 72 | 8 | greatest event time, µs (0 in a control record) |
//! | 80 | 16 | batch identity: xxh3-128 of the producer id or idempotency key |
//! | 96 | 8 | batch identity: sequence |
//! | 104 | 4 | partition |
//! | 108 | 12 | reserved, 0 |
//! | 120 | 8 | xxh3-64 of bytes 0..120 |
//!
//! The gateway fills all but the appender's two fields; the event log's appender fills these and the checksum.

use types::{AppenderId, Generation, PartitionId, SchemaVersion, TableId, TableKey, TenantId, Timestamp};
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of an encoded header.
pub const HEADER_BYTES: usize = 128;
/// The version of header and body that this code writes, and the only one that it reads.
pub const FORMAT_VERSION: u16 = 1;

const MAGIC: [u8; 4] = *b"TNB1";
const CHECKED_BYTES: usize = 120;
const FLAG_BATCH: u8 = 1;
const FLAG_TIMES_GIVEN: u8 = 2;

/// What a block's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockKind {
    /// Columns of events.
    Events,
    /// A control record: a change of a table, or a tick of the time.
    Control,
}

/// Identity of a batch without event ids: the events in it are identified by (this, their index in the batch).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchIdentity {
    /// xxh3-128 of the `producer_id` or the `Idempotency-Key`.
    pub producer: u128,
    /// The producer's sequence; 0 with an `Idempotency-Key`.
    pub sequence: u64,
}

/// A block's header. Field by field as in the module's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHeader {
    /// What the body is.
    pub kind: BlockKind,
    /// Whose data, which table and which life of it.
    pub key: TableKey,
    /// The table's schema at the gateway; the body names its own columns.
    pub schema_version: SchemaVersion,
    /// The log partition for which the block was made.
    pub partition: PartitionId,
    /// Events in the body; 0 in a control record.
    pub rows: u32,
    /// Length of the body in bytes.
    pub body_len: u32,
    /// xxh3-64 of the body.
    pub body_checksum: u64,
    /// Who appended the block.
    pub appender: AppenderId,
    /// Rows that this appender appended to this table and partition, this block included.
    pub appender_rows: u64,
    /// Least event time of the body.
    pub time_min: Timestamp,
    /// Greatest event time of the body.
    pub time_max: Timestamp,
    /// Identity of the batch, where it has one.
    pub batch: Option<BatchIdentity>,
    /// Whether the gateway gave event times to some rows that came without: their times are no part of what was sent, and
    /// differ when the same events are sent again.
    pub times_given: bool,
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Fewer than [`HEADER_BYTES`].
    #[error("block header is cut off: {0} of {HEADER_BYTES} bytes")]
    Short(usize),
    /// Not a block at all.
    #[error("not a block: wrong magic")]
    Magic,
    /// Damaged.
    #[error("block header checksum does not match")]
    Checksum,
    /// Written by other code.
    #[error("block format version {0} is not supported, {FORMAT_VERSION} is")]
    Version(u16),
    /// A kind that this version does not have.
    #[error("block kind {0} is unknown")]
    Kind(u8),
}

impl BlockHeader {
    /// The header as bytes, its checksum included.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let batch = self.batch.unwrap_or(BatchIdentity { producer: 0, sequence: 0 });
        out[0..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[6] = match self.kind {
            BlockKind::Events => 0,
            BlockKind::Control => 1,
        };
        out[7] = if self.batch.is_some() { FLAG_BATCH } else { 0 };
        out[7] |= if self.times_given { FLAG_TIMES_GIVEN } else { 0 };
        out[8..16].copy_from_slice(&self.key.tenant.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.key.table.0.to_le_bytes());
        out[24..28].copy_from_slice(&self.key.generation.0.to_le_bytes());
        out[28..32].copy_from_slice(&self.schema_version.0.to_le_bytes());
        out[32..36].copy_from_slice(&self.rows.to_le_bytes());
        out[36..40].copy_from_slice(&self.body_len.to_le_bytes());
        out[40..48].copy_from_slice(&self.body_checksum.to_le_bytes());
        out[48..56].copy_from_slice(&self.appender.0.to_le_bytes());
        out[56..64].copy_from_slice(&self.appender_rows.to_le_bytes());
        out[64..72].copy_from_slice(&self.time_min.0.to_le_bytes());
        out[72..80].copy_from_slice(&self.time_max.0.to_le_bytes());
        out[80..96].copy_from_slice(&batch.producer.to_le_bytes());
        out[96..104].copy_from_slice(&batch.sequence.to_le_bytes());
        out[104..108].copy_from_slice(&self.partition.0.to_le_bytes());
        let checksum = xxh3_64(&out[..CHECKED_BYTES]);
        out[CHECKED_BYTES..].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads a header from the start of `bytes`. The body is not looked at.
    ///
    /// # Errors
    /// The bytes are no intact header of this format version.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(HeaderError::Short(bytes.len()));
        };
        if bytes[0..4] != MAGIC {
            return Err(HeaderError::Magic);
        }
        if u64_at(bytes, CHECKED_BYTES) != xxh3_64(&bytes[..CHECKED_BYTES]) {
            return Err(HeaderError::Checksum);
        }
        let version = u16::from_le_bytes([bytes[4], bytes[5]]);
        if version != FORMAT_VERSION {
            return Err(HeaderError::Version(version));
        }
        let kind = match bytes[6] {
            0 => BlockKind::Events,
            1 => BlockKind::Control,
            other => return Err(HeaderError::Kind(other)),
        };
        let producer = u128::from(u64_at(bytes, 80)) | u128::from(u64_at(bytes, 88)) << 64;
        let batch = (bytes[7] & FLAG_BATCH != 0).then(|| BatchIdentity { producer, sequence: u64_at(bytes, 96) });
        Ok(Self {
            kind,
            key: TableKey {
                tenant: TenantId(u64_at(bytes, 8)),
                table: TableId(u64_at(bytes, 16)),
                generation: Generation(u32_at(bytes, 24)),
            },
            schema_version: SchemaVersion(u32_at(bytes, 28)),
            partition: PartitionId(u32_at(bytes, 104)),
            rows: u32_at(bytes, 32),
            body_len: u32_at(bytes, 36),
            body_checksum: u64_at(bytes, 40),
            appender: AppenderId(u64_at(bytes, 48)),
            appender_rows: u64_at(bytes, 56),
            time_min: Timestamp(u64_at(bytes, 64).cast_signed()),
            time_max: Timestamp(u64_at(bytes, 72).cast_signed()),
            batch,
            times_given: bytes[7] & FLAG_TIMES_GIVEN != 0,
        })
    }
}

fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> BlockHeader {
        BlockHeader {
            kind: BlockKind::Events,
            key: TableKey { tenant: TenantId(1), table: TableId(2), generation: Generation(3) },
            schema_version: SchemaVersion(4),
            partition: PartitionId(5),
            rows: 6,
            body_len: 7,
            body_checksum: 8,
            appender: AppenderId(9),
            appender_rows: 10,
            time_min: Timestamp(-11),
            time_max: Timestamp(12),
            batch: Some(BatchIdentity { producer: u128::MAX - 13, sequence: 14 }),
            times_given: true,
        }
    }

    /// Goal: a header survives its bytes, and any single damaged bit is noticed.
    #[test]
    fn headers_round_trip_and_notice_damage() {
        let bytes = header().encode();
        assert_eq!(BlockHeader::decode(&bytes), Ok(header()));
        assert_eq!(BlockHeader::decode(&bytes[..127]), Err(HeaderError::Short(127)));
        for bit in 0..HEADER_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(BlockHeader::decode(&damaged).is_err(), "bit {bit}");
        }
    }
}
