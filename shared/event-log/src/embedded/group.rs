//! A group of calls on its way to disk: places, times, heads, and what goes to the file in which order. Pure.
//!
//! Large bodies are written from where they lie; small ones are copied together with the heads, so that a group of many
//! tiny blocks is one write of one buffer, and the tail keeps no more memory alive than it counts.

use std::{collections::HashMap, io::IoSlice, ops::Range};

use bytes::Bytes;
use types::{AppenderId, Offset, PartitionId, TableKey, Timestamp};

use super::{
    frame::{ALIGN, Frame, FrameKey, HEAD_BYTES, stored_bytes},
    index::Entry,
    queue::Request,
    segment::Stand,
};
use crate::api::{Appended, Record};

/// Bodies up to this are copied; larger ones are written in place.
const COPIED_BODY_BYTES_MAX: usize = 8 << 10;
const PADDING: [u8; ALIGN as usize] = [0; ALIGN as usize];

/// Rows that an appender appended, per table and partition.
pub(crate) type RowCounts = HashMap<(TableKey, PartitionId), u64>;

/// Where a group goes and what it follows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start<'a> {
    /// The file's number.
    pub(crate) file: u64,
    /// The position in it.
    pub(crate) position: u64,
    /// The position up to which it is known to be durable.
    pub(crate) durable_to: u64,
    /// The log's key.
    pub(crate) frame_key: FrameKey,
    /// The appender's id.
    pub(crate) appender: AppenderId,
    /// The time now.
    pub(crate) now: Timestamp,
    /// Where the partitions stand.
    pub(crate) stands: &'a [Stand],
    /// Rows appended before.
    pub(crate) rows: &'a RowCounts,
}

/// A group ready to be written.
#[derive(Debug)]
pub(crate) struct Group {
    /// Where the partitions stand once it is durable.
    pub(crate) stands: Vec<Stand>,
    /// The row counts that it changes.
    pub(crate) rows: RowCounts,
    /// Bytes that it takes in the file.
    pub(crate) bytes: u64,
    blocks: Vec<Placed>,
    staged: Bytes,
}

#[derive(Debug)]
struct Placed {
    frame: Frame,
    position: u64,
    /// What of `staged` goes to the file, up to and with this block's head and, if copied, its body.
    staged: Range<usize>,
    /// Where its body lies in `staged`, if it was copied.
    copied: Option<Range<usize>>,
    body: Bytes,
}

impl Group {
    /// Gives every block its place.
    pub(crate) fn place(requests: &[Request], start: Start<'_>) -> Self {
        let mut stands = start.stands.to_vec();
        let mut rows = RowCounts::new();
        let mut position = start.position;
        let mut blocks = Vec::with_capacity(requests.iter().map(|request| request.blocks.len()).sum());
        let mut staged = Vec::with_capacity(staged_bytes(requests));
        for block in requests.iter().flat_map(|request| &request.blocks) {
            let mut header = block.header;
            let stand = &mut stands[header.partition.0 as usize];
            let key = (header.key, header.partition);
            let count = rows.entry(key).or_insert_with(|| start.rows.get(&key).copied().unwrap_or(0));
            *count += u64::from(header.rows);
            header.appender = start.appender;
            header.appender_rows = *count;
            let frame = Frame {
                partition: header.partition,
                offset: stand.next,
                append_time: start.now.max(stand.last_time),
                file: start.file,
                durable_to: start.durable_to,
                header,
            };
            *stand = Stand { next: frame.offset.next(), last_time: frame.append_time };
            let from = staged.len();
            frame.encode_into(start.frame_key, &mut staged);
            let copied = (block.body.len() <= COPIED_BODY_BYTES_MAX).then(|| {
                let from = staged.len();
                staged.extend_from_slice(&block.body);
                from..staged.len()
            });
            if copied.is_some() {
                staged.extend_from_slice(padding(&block.body));
            }
            blocks.push(Placed { frame, position, staged: from..staged.len(), copied, body: block.body.clone() });
            position += frame.stored_bytes();
        }
        Self { stands, rows, bytes: position - start.position, blocks, staged: staged.into() }
    }

    /// What to write, in order.
    pub(crate) fn parts(&self) -> Vec<IoSlice<'_>> {
        let mut parts = Vec::new();
        let mut run = 0..0;
        for block in &self.blocks {
            run.end = block.staged.end;
            if block.copied.is_none() {
                parts.push(IoSlice::new(&self.staged[run.clone()]));
                parts.push(IoSlice::new(&block.body));
                parts.push(IoSlice::new(padding(&block.body)));
                run.start = run.end;
            }
        }
        parts.push(IoSlice::new(&self.staged[run]));
        parts.retain(|part| !part.is_empty());
        parts
    }

    /// Where the blocks went, in the order of the calls.
    pub(crate) fn appended(&self) -> impl Iterator<Item = Appended> + '_ {
        self.blocks.iter().map(|Placed { frame, .. }| Appended {
            partition: frame.partition,
            offset: frame.offset,
            append_time: frame.append_time,
        })
    }

    /// The records, for readers.
    pub(crate) fn into_records(self) -> Vec<(PartitionId, Entry, Record)> {
        let Self { blocks, staged, .. } = self;
        let record = |Placed { frame, position, copied, body, .. }: Placed| {
            let entry = Entry::at(position, frame.header.body_len, frame.append_time);
            let body = copied.map_or(body, |range| staged.slice(range));
            let (offset, append_time): (Offset, Timestamp) = (frame.offset, frame.append_time);
            (frame.partition, entry, Record { offset, append_time, header: frame.header, body })
        };
        blocks.into_iter().map(record).collect()
    }
}

fn staged_bytes(requests: &[Request]) -> usize {
    let blocks = requests.iter().flat_map(|request| &request.blocks);
    let bytes = blocks.map(|block| match block.body.len() {
        0..=COPIED_BODY_BYTES_MAX => HEAD_BYTES + block.body.len() + padding(&block.body).len(),
        _ => HEAD_BYTES,
    });
    bytes.sum()
}

/// The zeros that follow a body.
fn padding(body: &Bytes) -> &'static [u8] {
    let len = u32::try_from(body.len()).expect("the log takes no body longer than its header can say");
    let padding = stored_bytes(len) - HEAD_BYTES as u64 - u64::from(len);
    &PADDING[..padding as usize]
}
