//! The bytes of an `IngestColumnsRequest`, read by hand: strict, and without a copy of its blocks; and those of a reply.
//!
//! Generated code would pass over unknown fields, and make millions of empty blocks before anybody could count them.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use proto::v1::{IngestReply, Reject as RejectMessage};
use types::{ApiError, ErrorCode, limits::PARTITIONS_MAX};

use crate::{ingest::Ack, one_message::PREFIX_BYTES};

/// Blocks in one request: one for each partition of the largest log.
pub(crate) const BLOCKS_MAX: usize = PARTITIONS_MAX as usize;

const VARINT_BYTES_MAX: usize = 10;
const WIRE_VARINT: u64 = 0;
const WIRE_BYTES: u64 = 2;

/// A request as it came; its parts are slices of one message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ColumnsRequest {
    /// The table's namespace.
    pub(crate) namespace: String,
    /// The table in it.
    pub(crate) table: String,
    /// Bodies of blocks.
    pub(crate) blocks: Vec<Bytes>,
    /// With `sequence` the identity of the batch; empty: none.
    pub(crate) producer_id: String,
    /// Rises with each batch of a producer.
    pub(crate) sequence: u64,
    /// Bytes of the whole message: what a slice of it keeps in memory.
    pub(crate) message_bytes: usize,
}

impl ColumnsRequest {
    /// Reads a message. The last of a field that comes twice wins, as protocol buffers have it.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` where the bytes are no such message, `RESOURCE_EXHAUSTED` for too many blocks.
    pub(crate) fn decode(message: &Bytes) -> Result<Self, ApiError> {
        let mut request = Self { message_bytes: message.len(), ..Self::default() };
        let mut reader = Reader { message, at: 0 };
        while reader.at < message.len() {
            let tag = reader.varint()?;
            match (tag >> 3, tag & 7) {
                (1, WIRE_BYTES) => request.namespace = reader.text("namespace")?,
                (2, WIRE_BYTES) => request.table = reader.text("table")?,
                (3, WIRE_BYTES) => {
                    if request.blocks.len() == BLOCKS_MAX {
                        let message = format!("a request has at most {BLOCKS_MAX} blocks");
                        return Err(ApiError::new(ErrorCode::TooLarge, message).with_field("blocks"));
                    }
                    request.blocks.push(reader.bytes()?);
                }
                (4, WIRE_BYTES) => request.producer_id = reader.text("producer_id")?,
                (5, WIRE_VARINT) => request.sequence = reader.varint()?,
                (field @ 1..=5, wire) => return Err(malformed(&format!("field {field} has wire type {wire}"))),
                (field, _) => return Err(malformed(&format!("field {field} is unknown"))),
            }
        }
        Ok(request)
    }
}

/// An ack as a message.
pub(crate) fn reply(ack: Ack) -> IngestReply {
    let reject = |reject: codec::Reject| RejectMessage {
        index: reject.index,
        code: reject.code.name().to_owned(),
        message: reject.message,
    };
    IngestReply {
        accepted: ack.accepted,
        rejected: ack.rejected.into_iter().map(reject).collect(),
        durability: ack.durability.name().to_owned(),
        token: ack.token.unwrap_or_default(),
        refused: None,
    }
}

/// A message as a body takes it, with its prefix, not compressed.
pub(crate) fn framed(reply: &IngestReply) -> Bytes {
    let length = reply.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).expect("a reply names at most the events of one request"));
    reply.encode(&mut bytes).expect("there is room for all of it");
    bytes.freeze()
}

struct Reader<'a> {
    message: &'a Bytes,
    at: usize,
}

impl Reader<'_> {
    fn varint(&mut self) -> Result<u64, ApiError> {
        let mut value = 0;
        for (n, &byte) in self.message[self.at..].iter().take(VARINT_BYTES_MAX).enumerate() {
            if n + 1 == VARINT_BYTES_MAX && byte > 1 {
                return Err(malformed("a number has more than 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << (7 * n);
            if byte < 0x80 {
                self.at += n + 1;
                return Ok(value);
            }
        }
        Err(malformed("the message is cut off within a number"))
    }

    fn bytes(&mut self) -> Result<Bytes, ApiError> {
        let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        let end = self.at.checked_add(length).filter(|&end| end <= self.message.len());
        let end = end.ok_or_else(|| malformed("a field is longer than the message"))?;
        let bytes = self.message.slice(self.at..end);
        self.at = end;
        Ok(bytes)
    }

    fn text(&mut self, field: &str) -> Result<String, ApiError> {
        let bytes = self.bytes()?;
        let text = std::str::from_utf8(&bytes);
        text.map(str::to_owned).map_err(|_| ApiError::invalid(field, format!("{field} is not UTF-8")))
    }
}

fn malformed(why: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidArgument, format!("not an IngestColumnsRequest: {why}"))
}

#[cfg(test)]
mod tests {
    use proto::v1::IngestColumnsRequest;

    use super::*;

    fn sample() -> IngestColumnsRequest {
        IngestColumnsRequest {
            namespace: "shop".into(),
            table: "größe".into(),
            blocks: vec![Bytes::from_static(b"one"), Bytes::new(), Bytes::from(vec![7; 300])],
            producer_id: "p".into(),
            sequence: u64::MAX,
        }
    }

    /// Goal: what the generated code writes is read as it was meant, the blocks without a copy.
    #[test]
    fn requests_are_read_without_a_copy() {
        let bytes = Bytes::from(sample().encode_to_vec());
        let request = ColumnsRequest::decode(&bytes).unwrap();
        assert_eq!((request.namespace.as_str(), request.table.as_str()), ("shop", "größe"));
        assert_eq!((request.producer_id.as_str(), request.sequence), ("p", u64::MAX));
        assert_eq!((request.blocks, request.message_bytes), (sample().blocks, bytes.len()));
        let request = ColumnsRequest::decode(&bytes).unwrap();
        assert!(bytes.as_ptr_range().contains(&request.blocks[2].as_ptr()));
    }

    /// Goal: whatever the bytes, there is an answer and no panic; what is cut off, unknown or too much is refused.
    #[test]
    fn bytes_are_distrusted() {
        let whole = sample().encode_to_vec();
        for end in 0..whole.len() {
            let _ = ColumnsRequest::decode(&Bytes::copy_from_slice(&whole[..end]));
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                let _ = ColumnsRequest::decode(&Bytes::from(damaged));
            }
        }
        let refused = |bytes: &[u8]| ColumnsRequest::decode(&Bytes::copy_from_slice(bytes)).unwrap_err();
        assert!(refused(&[0x32, 0]).message.ends_with("field 6 is unknown"));
        assert!(refused(&[0x18, 0]).message.ends_with("field 3 has wire type 0"));
        assert!(refused(&[0x1b]).message.ends_with("field 3 has wire type 3"));
        assert!(refused(&[0x1a, 0xff, 0xff, 0xff, 0xff, 0x0f]).message.ends_with("longer than the message"));
        assert!(
            refused(&[0x28, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]).message.ends_with("64 bits")
        );
        assert!(refused(&[0x28, 0xff]).message.ends_with("within a number"));
        assert_eq!(refused(&[0x1a, 0].repeat(BLOCKS_MAX + 1)).code, ErrorCode::TooLarge);
    }
}
