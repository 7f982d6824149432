//! A block as a record of Kafka, and back.
//!
//! The value is the block's body, to the byte. The block's header, 128 bytes, is the record header `block`; beside it stands
//! what any tool can read: the key `tenant/table/generation`, and the headers `format` and `rows`, all as decimal text. Only
//! `block` is ever read back.

use bytes::Bytes;
use codec::{BlockHeader, FORMAT_VERSION};
use rdkafka::{
    Timestamp as KafkaTime,
    message::{Header, Headers, Message, OwnedHeaders},
};
use types::{PartitionId, Timestamp};
use xxhash_rust::xxh3::xxh3_64;

/// Name of the record header with the block's header.
const BLOCK: &str = "block";

/// A record's key.
pub(crate) fn key(header: &BlockHeader) -> String {
    let of = header.key;
    format!("{}/{}/{}", of.tenant.0, of.table.0, of.generation.0)
}

/// A record's headers.
pub(crate) fn headers(header: &BlockHeader) -> OwnedHeaders {
    OwnedHeaders::new_with_capacity(3)
        .insert(Header { key: BLOCK, value: Some(&header.encode()) })
        .insert(Header { key: "format", value: Some(&FORMAT_VERSION.to_string()) })
        .insert(Header { key: "rows", value: Some(&header.rows.to_string()) })
}

/// The bytes that a block counts for in queues: its body, its header, and what surrounds them.
pub(crate) fn queued_bytes(body_len: usize) -> u64 {
    body_len as u64 + 256
}

/// A block as it was read; `Err` holds its header where that is intact and the body is not.
pub(crate) type Read = Result<(BlockHeader, Bytes), Option<Box<BlockHeader>>>;

/// The block of a record of a partition, checked.
pub(crate) fn block_of(message: &impl Message, partition: PartitionId) -> Read {
    let header = message.headers().and_then(|headers| headers.iter().find(|header| header.key == BLOCK));
    let header = header.and_then(|header| BlockHeader::decode(header.value?).ok());
    let header = header.filter(|header| header.partition == partition).ok_or(None)?;
    let body = message.payload().unwrap_or_default();
    if body.len() != header.body_len as usize || xxh3_64(body) != header.body_checksum {
        return Err(Some(Box::new(header)));
    }
    Ok((header, Bytes::copy_from_slice(body)))
}

/// The log's time of a record: Kafka counts in milliseconds. A topic that is not this log's may hold records without one.
pub(crate) fn time_of(message: &impl Message) -> Timestamp {
    match message.timestamp() {
        KafkaTime::LogAppendTime(millis) | KafkaTime::CreateTime(millis) => Timestamp(millis.saturating_mul(1_000)),
        KafkaTime::NotAvailable => Timestamp::MIN,
    }
}

/// What tells a record from any other: its header says who appended it as the how manieth row, with what body.
pub(crate) fn fingerprint(header: &BlockHeader) -> u64 {
    xxh3_64(&header.encode())
}
