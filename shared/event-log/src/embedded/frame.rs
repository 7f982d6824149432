//! A record as it lies in a file: a head of 176 bytes, then the body, then zeros up to a multiple of 8.
//!
//! | at | bytes | field (little-endian) |
//! |---|---|---|
//! | 0 | 4 | magic `TNFR` |
//! | 4 | 4 | partition |
//! | 8 | 8 | offset |
//! | 16 | 8 | append time, µs |
//! | 24 | 8 | number of the file; a frame left over from another life of the file is none |
//! | 32 | 8 | position up to which the file was known to be durable when this frame was written |
//! | 40 | 128 | the block's header, with the body's length and checksum |
//! | 168 | 8 | xxh3-64 of bytes 0..168, seeded with the log's key |
//!
//! The key is random and leaves the log's directory never: a recovery looks for heads wherever a crash left none, also within
//! bodies, which clients write, and a client that does not know the key cannot write a head.
//!
//! The head's checksum covers the header and so the body's checksum: a body is hashed once, where it was made, and
//! again only when it is read from disk.

use codec::{BlockHeader, HEADER_BYTES};
use types::{Offset, PartitionId, Timestamp};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Bytes before a record's body.
pub(crate) const HEAD_BYTES: usize = 176;
/// Records begin at multiples of this.
pub(crate) const ALIGN: u64 = 8;
/// The first bytes of every frame.
pub(crate) const MAGIC: [u8; 4] = *b"TNFR";

const HEADER_AT: usize = 40;
const CHECKSUM_AT: usize = HEADER_AT + HEADER_BYTES;
const _: () = assert!(CHECKSUM_AT + 8 == HEAD_BYTES && (HEAD_BYTES as u64).is_multiple_of(ALIGN));

/// What the checksums of a log's heads are seeded with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameKey(pub(crate) u64);

impl std::fmt::Debug for FrameKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FrameKey(..)")
    }
}

/// The head of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) partition: PartitionId,
    pub(crate) offset: Offset,
    pub(crate) append_time: Timestamp,
    pub(crate) file: u64,
    pub(crate) durable_to: u64,
    pub(crate) header: BlockHeader,
}

impl Frame {
    /// Appends the head's bytes.
    pub(crate) fn encode_into(&self, key: FrameKey, out: &mut Vec<u8>) {
        let mut head = [0; HEAD_BYTES];
        head[0..4].copy_from_slice(&MAGIC);
        head[4..8].copy_from_slice(&self.partition.0.to_le_bytes());
        head[8..16].copy_from_slice(&self.offset.0.to_le_bytes());
        head[16..24].copy_from_slice(&self.append_time.0.to_le_bytes());
        head[24..32].copy_from_slice(&self.file.to_le_bytes());
        head[32..40].copy_from_slice(&self.durable_to.to_le_bytes());
        head[HEADER_AT..CHECKSUM_AT].copy_from_slice(&self.header.encode());
        let checksum = xxh3_64_with_seed(&head[..CHECKSUM_AT], key.0);
        head[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(&head);
    }

    /// Reads a head; `None` unless it is intact, of this log, and of file `file`.
    pub(crate) fn decode(bytes: &[u8], key: FrameKey, file: u64) -> Option<Self> {
        let head = bytes.first_chunk::<HEAD_BYTES>()?;
        let is_of_file = head[0..4] == MAGIC && u64_at(head, 24) == file;
        if !is_of_file || u64_at(head, CHECKSUM_AT) != xxh3_64_with_seed(&head[..CHECKSUM_AT], key.0) {
            return None;
        }
        Some(Self {
            partition: PartitionId(u32_at(head, 4)),
            offset: Offset(u64_at(head, 8)),
            append_time: Timestamp(u64_at(head, 16).cast_signed()),
            file,
            durable_to: u64_at(head, 32),
            header: BlockHeader::decode(&head[HEADER_AT..CHECKSUM_AT]).ok()?,
        })
    }

    /// Bytes that the record takes in the file.
    pub(crate) fn stored_bytes(&self) -> u64 {
        stored_bytes(self.header.body_len)
    }

    /// Whether `body` is the one that the head speaks of.
    pub(crate) fn is_body(&self, body: &[u8]) -> bool {
        body.len() as u64 == u64::from(self.header.body_len) && xxh3_64(body) == self.header.body_checksum
    }
}

/// The block's header in a damaged head, where it is intact by its own checksum: whose record it was, and how long.
pub(crate) fn header_in_damage(head: &[u8]) -> Option<BlockHeader> {
    BlockHeader::decode(head.get(HEADER_AT..CHECKSUM_AT)?).ok()
}

/// Whether the fields of a head, damaged or not, name this place.
pub(crate) fn is_placed(head: &[u8], file: u64, partition: PartitionId, offset: Offset) -> bool {
    let Some(head) = head.first_chunk::<HEAD_BYTES>() else { return false };
    (u64_at(head, 24), u32_at(head, 4), u64_at(head, 8)) == (file, partition.0, offset.0)
}

/// Bytes that a record with such a body takes in a file.
pub(crate) const fn stored_bytes(body_len: u32) -> u64 {
    (HEAD_BYTES as u64 + body_len as u64).next_multiple_of(ALIGN)
}

fn u64_at(bytes: &[u8; HEAD_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn u32_at(bytes: &[u8; HEAD_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}
