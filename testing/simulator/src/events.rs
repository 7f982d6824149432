//! Events as clients mean them, and the gateway's part: to which partition each goes, and what block it becomes.

use std::collections::BTreeMap;

use codec::{BatchIdentity, BlockHeader, BodyBuilder, ControlRecord, EventRef, PartitionKey, partition_of};
use event_log::Append;
use types::{PartitionId, SchemaVersion, Table, TableKey, Timestamp};

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// Names what happened: no two events of a run that mean different things share it.
    pub(crate) n: u64,
    /// Its `event_id`.
    pub(crate) id: Option<u64>,
    /// The value of the dimension `key`, by which one of the tables is partitioned.
    pub(crate) key: Option<u8>,
    /// Its time; `None`: the gateway gives it one.
    pub(crate) time: Option<i64>,
}

impl Event {
    /// Its `event_id` as bytes.
    fn id_bytes(&self, wide: bool) -> Option<Vec<u8>> {
        self.id.map(|id| if wide { u128::from(id).to_be_bytes().to_vec() } else { format!("id {id}").into_bytes() })
    }

    /// The value of `key`.
    pub(crate) fn key_value(&self) -> Option<String> {
        self.key.map(|key| format!("key {key}"))
    }
}

/// Events that a client sends together.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    /// Which of the tables, and which life of it.
    pub(crate) key: TableKey,
    /// Producer and sequence, where the batch has an identity.
    pub(crate) identity: Option<BatchIdentity>,
    /// The events, in the order in which they are sent.
    pub(crate) events: Vec<Event>,
}

/// Names the content of a record: the same block sent twice has the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BlockName {
    pub(crate) key: TableKey,
    pub(crate) partition: PartitionId,
    checksum: u64,
    batch: Option<(u128, u64)>,
}

impl BlockName {
    /// The name of the block with this header.
    pub(crate) fn of(header: &BlockHeader) -> Self {
        let batch = header.batch.map(|batch| (batch.producer, batch.sequence));
        Self { key: header.key, partition: header.partition, checksum: header.body_checksum, batch }
    }
}

/// A row of a block as the gateway made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) event: Event,
    /// Its index in the batch.
    pub(crate) index: u32,
    /// The event's time, or the one that it was given.
    pub(crate) time: i64,
}

/// What a block holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// Events.
    Rows { rows: Vec<Row>, batch: Option<(u128, u64)>, times_given: bool },
    /// A change of a table.
    Configured(Box<Table>),
    /// The end of a life of a table.
    Dropped(TableKey),
    /// The time alone.
    Tick,
}

/// A block to append, and what it holds.
pub(crate) struct Block {
    pub(crate) append: Append,
    pub(crate) content: Content,
}

/// The blocks of a batch, by partition. `number` is the gateway's own, for events that may go anywhere.
pub(crate) fn blocks_of(table: &Table, batch: &Batch, now: Timestamp, number: u64, wide_ids: bool) -> Vec<Block> {
    let mut parts = BTreeMap::<PartitionId, (BodyBuilder, Vec<Row>)>::new();
    for (event, index) in batch.events.iter().zip(0..) {
        let (id, key) = (event.id_bytes(wide_ids), event.key_value());
        let dimensions: Vec<_> = key.iter().map(|key| ("key", key.as_str())).collect();
        let pushed = EventRef {
            namespace: "n",
            table: "t",
            event_time: event.time,
            event_id: id.as_deref(),
            dimensions: &dimensions,
            metrics: &[("n", event.n as f64)],
        };
        let partition = partition_of(table, PartitionKey::of(table, &pushed, batch.identity.as_ref(), number));
        let (builder, rows) = parts.entry(partition).or_default();
        builder.push(&pushed, now, index).expect("batches are small");
        rows.push(Row { event: event.clone(), index, time: event.time.unwrap_or(now.0) });
    }
    let block = |(partition, (mut builder, rows)): (PartitionId, (BodyBuilder, Vec<Row>))| {
        let body = builder.finish(batch.identity.is_some()).expect("a part has events");
        let header = body.header(table.key, table.schema.version(), partition, batch.identity);
        let batch = header.batch.map(|batch| (batch.producer, batch.sequence));
        let content = Content::Rows { rows, batch, times_given: header.times_given };
        Block { append: Append { header, body: body.bytes }, content }
    };
    parts.into_iter().map(block).collect()
}

/// The block that moves the time of a partition, as the ingester appends it.
pub(crate) fn tick(partition: PartitionId) -> Block {
    let (header, body) = ControlRecord::Tick.block(SchemaVersion(0), partition);
    Block { append: Append { header, body }, content: Content::Tick }
}

/// The blocks that tell a table's partitions of a change of it.
pub(crate) fn announcement(table: &Table, record: &ControlRecord) -> Vec<Block> {
    let block = |&partition: &PartitionId| {
        let (header, body) = record.block(table.schema.version(), partition);
        let content = match record {
            ControlRecord::TableConfigured(table) => Content::Configured(Box::new(table.as_ref().clone())),
            ControlRecord::TableDropped(key) => Content::Dropped(*key),
            ControlRecord::Tick => Content::Tick,
        };
        Block { append: Append { header, body }, content }
    };
    table.partitions.iter().map(block).collect()
}
