//! A gRPC codec that sends bytes which are a message already, and reads replies as usual.

use bytes::{Buf, BufMut, Bytes};
use prost::Message as _;
use proto::v1::IngestReply;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// The codec.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = IngestReply;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = IngestReply;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<IngestReply>, Status> {
        if !from.has_remaining() {
            return Ok(Some(IngestReply::default()));
        }
        IngestReply::decode(from).map(Some).map_err(|error| Status::internal(format!("not an IngestReply: {error}")))
    }
}
