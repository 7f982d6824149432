//! Blocks that clients made: checked, and where they are right, on to the log as the same bytes.
//!
//! 1. A block is right when all of its rows belong to one partition, none of them is rejected, and its rows keep the index
//!    in the batch that identifies them. Then nothing is copied, unless the blocks that stay are less than half of their
//!    message: the log keeps what it is given, and with a slice all of the message.
//! 2. Every other block is taken apart and made anew, a block per partition, with the rows' indexes in the request.
//! 3. An index counts through all blocks of the request, whatever becomes of them, so that a request that is sent again
//!    gives each row the same identity.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use codec::{
    BatchIdentity, BodyBuilder, BodyView, EventRef, Reject, TimeLimits, is_absent, partitions_of_rows, sole_partition,
};
use event_schema::EventSchema;
use serde_json::value::RawValue;
use types::{
    ApiError, ColumnDef, ColumnKind, ErrorCode, PartitionId, Table, TableName, TenantId, Timestamp,
    limits::TABLE_COLUMNS_MAX,
};

use crate::{
    dead_letters::{Drawer, Letter},
    identity,
    judge::Judge,
    rows::Rejected,
    sort::{Block, SortedTable, kind_error},
    wire::ColumnsRequest,
};

/// A request of columns on its way to the log.
pub(crate) struct ColumnsJob {
    blocks: Vec<Bytes>,
    message_bytes: usize,
    drawer: Option<Drawer>,
    received: Timestamp,
    batch: Option<BatchIdentity>,
    any: u64,
    admitted: bool,
}

impl ColumnsJob {
    /// A request that was received at a time; `any` chooses the partition of rows that any may take.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: it names no table, has no block, or its producer is none.
    pub(crate) fn new(
        request: ColumnsRequest,
        tenant: TenantId,
        received: Timestamp,
        any: u64,
    ) -> Result<Self, ApiError> {
        for (field, part) in [("namespace", &request.namespace), ("table", &request.table)] {
            types::check_table_name(part).map_err(|error| ApiError::invalid(field, format!("{field} {error}")))?;
        }
        if request.blocks.is_empty() {
            return Err(ApiError::invalid("blocks", "the request has no blocks"));
        }
        let batch = identity::of_producer(request.producer_id.as_bytes(), request.sequence)?;
        let drawer = Drawer::new(tenant, TableName::new(request.namespace, request.table));
        let (blocks, message_bytes) = (request.blocks, request.message_bytes);
        Ok(Self { blocks, message_bytes, drawer, received, batch, any, admitted: false })
    }

    /// Checks the blocks and brings them to the partitions of `table`, which has this JSON Schema, held against rows by this
    /// judge. `admit` permits that many events, or refuses.
    ///
    /// # Errors
    /// A block is none, holds more than a request may, contradicts the table, is not admitted, or not judged in time; nothing
    /// counts.
    pub(crate) fn sort(
        &mut self,
        table: &Arc<Table>,
        (schema, judge): (Option<&EventSchema>, &Judge<'_>),
        events_max: usize,
        admit: &dyn Fn(u64) -> Result<(), ApiError>,
    ) -> Result<(SortedTable, Vec<Rejected>), ApiError> {
        let views = self.views(events_max)?;
        if !self.admitted {
            admit(views.iter().map(|view| view.rows() as u64).sum())?;
        }
        let new_columns = new_columns(table, &views)?;
        let mut sorted = SortedTable { table: Arc::clone(table), blocks: Vec::new(), new_columns, conflict: false };
        let mut rejected = Vec::new();
        let mut slices = Vec::new();
        let mut base = 0;
        for (view, bytes) in views.iter().zip(&self.blocks) {
            let rows = BlockRows { job: self, table, schema, judge, view, base };
            let refused = rows.rejects();
            judge.finish()?;
            match rows.sole_partition().filter(|_| refused.is_empty() && rows.index_stays()) {
                Some(partition) => {
                    slices.push(sorted.blocks.len());
                    sorted.blocks.push(rows.as_sent(bytes, partition));
                }
                None => sorted.blocks.extend(rows.made_anew(&refused)?),
            }
            rejected.extend(refused.into_iter().map(|(row, why)| rows.rejected(row, why)));
            base += view.rows() as u32;
        }
        drop(views);
        if !rejected.is_empty() {
            retain_columns_of_blocks(&mut sorted);
        }
        release_message(&mut sorted.blocks, &slices, self.message_bytes);
        self.admitted = true;
        Ok((sorted, rejected))
    }

    /// As [`ColumnsJob::sort`] for a table without a JSON Schema, where every block can go on as it is and brings no column; `None`:
    /// one cannot, and all of them are to be sorted.
    ///
    /// # Errors
    /// As [`ColumnsJob::sort`].
    pub(crate) fn as_sent(
        &mut self,
        table: &Arc<Table>,
        judge: &Judge<'_>,
        events_max: usize,
        admit: &dyn Fn(u64) -> Result<(), ApiError>,
    ) -> Result<Option<SortedTable>, ApiError> {
        let views = self.views(events_max)?;
        if !self.admitted {
            admit(views.iter().map(|view| view.rows() as u64).sum())?;
        }
        let new_columns = new_columns(table, &views)?;
        let (mut blocks, mut base) = (Vec::with_capacity(views.len()), 0);
        for (view, bytes) in views.iter().zip(&self.blocks) {
            let rows = BlockRows { job: self, table, schema: None, judge, view, base };
            let stays = rows.are_in_time() && rows.index_stays();
            let Some(partition) = rows.sole_partition().filter(|_| stays) else { break };
            blocks.push(rows.as_sent(bytes, partition));
            base += view.rows() as u32;
        }
        let all_stay = blocks.len() == views.len() && new_columns.is_empty();
        drop(views);
        self.admitted = true;
        if !all_stay {
            return Ok(None);
        }
        let slices: Vec<usize> = (0..blocks.len()).collect();
        release_message(&mut blocks, &slices, self.message_bytes);
        Ok(Some(SortedTable { table: Arc::clone(table), blocks, new_columns, conflict: false }))
    }

    fn views(&self, events_max: usize) -> Result<Vec<BodyView<'_>>, ApiError> {
        let mut views = Vec::with_capacity(self.blocks.len());
        let mut events = 0;
        for (n, bytes) in self.blocks.iter().enumerate() {
            let view = BodyView::parse(bytes)
                .map_err(|error| ApiError::invalid(format!("blocks[{n}]"), format!("blocks[{n}]: {error}")))?;
            events += view.rows();
            if events > events_max {
                let message = format!("more than {events_max} events in one request");
                return Err(ApiError::new(ErrorCode::TooLarge, message).with_field("blocks"));
            }
            views.push(view);
        }
        Ok(views)
    }
}

/// Copies the blocks at `slices` out of their message of `message_bytes` where they are less than half of it together.
fn release_message(blocks: &mut [Block], slices: &[usize], message_bytes: usize) {
    let kept: usize = slices.iter().map(|&at| blocks[at].body.len()).sum();
    if kept < message_bytes.div_ceil(2) {
        slices.iter().for_each(|&at| blocks[at].body = Bytes::copy_from_slice(&blocks[at].body));
    }
}

/// Drops new columns that only rejected rows have.
fn retain_columns_of_blocks(sorted: &mut SortedTable) {
    let mut kept = BTreeSet::new();
    for block in &sorted.blocks {
        let view = BodyView::parse(&block.body).expect("it was read before, or made here");
        kept.extend(view.dimensions().iter().map(|column| column.name().to_owned()));
        kept.extend(view.metrics().iter().map(|column| column.name().to_owned()));
    }
    sorted.new_columns.retain(|column| kept.contains(&column.name));
}

/// The columns that the table lacks.
fn new_columns(table: &Table, views: &[BodyView<'_>]) -> Result<Vec<ColumnDef>, ApiError> {
    let columns = table.schema.columns();
    let mut known: BTreeMap<&str, ColumnKind> = columns.iter().map(|column| (&*column.name, column.kind)).collect();
    let mut new = Vec::new();
    for view in views {
        let dimensions = view.dimensions().iter().map(|column| (column.name(), ColumnKind::Dimension));
        for (name, kind) in dimensions.chain(view.metrics().iter().map(|column| (column.name(), ColumnKind::Metric))) {
            match known.get(name) {
                Some(&is) if is != kind => return Err(kind_error(name, is)),
                Some(_) => {}
                None => {
                    known.insert(name, kind);
                    new.push(ColumnDef { name: name.to_owned(), kind });
                }
            }
        }
    }
    if known.len() > TABLE_COLUMNS_MAX {
        return Err(ApiError::invalid("blocks", format!("a table has at most {TABLE_COLUMNS_MAX} columns")));
    }
    Ok(new)
}

/// One block of a request.
struct BlockRows<'a> {
    job: &'a ColumnsJob,
    table: &'a Table,
    schema: Option<&'a EventSchema>,
    judge: &'a Judge<'a>,
    view: &'a BodyView<'a>,
    /// Rows of the blocks before it.
    base: u32,
}

impl BlockRows<'_> {
    /// Rows that the table does not take, ascending, each with the reason.
    fn rejects(&self) -> Vec<(usize, String)> {
        let late = self.late();
        let Some(schema) = self.schema else { return late };
        let mut late = late.into_iter().peekable();
        let check = |row| match late.next_if(|(late, _)| *late == row) {
            Some(late) => Some(late),
            None => {
                let fault = self.with_event(row, |event| self.judge.check(schema, event)).err()?;
                Some((row, fault))
            }
        };
        (0..self.view.rows()).filter_map(check).collect()
    }

    /// Rows whose time the table does not take, with the reason.
    fn late(&self) -> Vec<(usize, String)> {
        if self.are_in_time() {
            return Vec::new();
        }
        let limits = self.time_limits();
        let check = |(row, time)| limits.check(time).err().map(|why| (row, why));
        self.view.times().iter().enumerate().filter_map(check).collect()
    }

    fn are_in_time(&self) -> bool {
        let limits = self.time_limits();
        let (min, max) = self.view.times().min_max();
        limits.check(min).is_ok() && limits.check(max).is_ok()
    }

    fn time_limits(&self) -> TimeLimits {
        TimeLimits::of(&self.table.settings, self.job.received)
    }

    fn sole_partition(&self) -> Option<PartitionId> {
        sole_partition(self.table, self.view, self.job.batch.as_ref(), self.job.any)
    }

    /// Whether the rows keep their identity if the block stays as it is: by their ids, by indexes of its own, or because
    /// it is the first of its batch.
    fn index_stays(&self) -> bool {
        let rows = self.view.rows();
        let identified = || self.view.ids().is_some_and(|ids| (0..rows).all(|row| ids.get(row).is_some()));
        self.job.batch.is_none() || self.base == 0 || self.view.batch_indexes().is_some() || identified()
    }

    fn index_of(&self, row: usize) -> u32 {
        self.view.batch_indexes().map_or(self.base + row as u32, |indexes| indexes.get(row))
    }

    fn as_sent(&self, bytes: &Bytes, partition: PartitionId) -> Block {
        let (time_min, time_max) = self.view.times().min_max();
        let body = codec::Body {
            bytes: bytes.clone(),
            rows: self.view.rows() as u32,
            time_min: Timestamp(time_min),
            time_max: Timestamp(time_max),
            times_given: false,
        };
        self.block(body, partition)
    }

    fn block(&self, body: codec::Body, partition: PartitionId) -> Block {
        let header = body.header(self.table.key, self.table.schema.version(), partition, self.job.batch);
        Block { header, body: body.bytes }
    }

    /// A block per partition of the rows that are not rejected.
    fn made_anew(&self, rejects: &[(usize, String)]) -> Result<Vec<Block>, ApiError> {
        let mut partitions = Vec::new();
        partitions_of_rows(self.table, self.view, self.job.batch.as_ref(), self.job.any, &mut partitions);
        let mut builders = BTreeMap::<PartitionId, BodyBuilder>::new();
        let mut rejects = rejects.iter().peekable();
        for (row, partition) in partitions.into_iter().enumerate() {
            if rejects.next_if(|(rejected, _)| *rejected == row).is_some() {
                continue;
            }
            let builder = builders.entry(partition).or_default();
            let push = |event: &EventRef<'_>| builder.push(event, self.job.received, self.index_of(row));
            // A part of a block that is within its limits is within them too, but for absence that it did not have.
            self.with_event(row, push).map_err(|error| ApiError::new(ErrorCode::TooLarge, error.to_string()))?;
        }
        let finish = |(partition, mut builder): (_, BodyBuilder)| {
            let body = builder.finish(self.job.batch.is_some())?;
            Some(self.block(body, partition))
        };
        Ok(builders.into_iter().filter_map(finish).collect())
    }

    fn rejected(&self, row: usize, why: String) -> Rejected {
        let reject = Reject::invalid(self.base + row as u32, why);
        let json = self.with_event(row, |event| event.to_json());
        let event = RawValue::from_string(json).expect("to_json gives JSON");
        let letter = |drawer: &Drawer| {
            let Reject { code, message, .. } = &reject;
            (drawer.clone(), Letter { received: self.job.received, code: *code, message: message.clone(), event })
        };
        Rejected { letter: self.job.drawer.as_ref().map(letter), reject }
    }

    /// Shows a row as an event.
    fn with_event<T>(&self, row: usize, see: impl FnOnce(&EventRef<'_>) -> T) -> T {
        let dimensions = self.view.dimensions().iter();
        let dimensions: Vec<_> = dimensions.filter_map(|column| Some((column.name(), column.value(row)?))).collect();
        let metrics = self.view.metrics().iter().map(|column| (column.name(), column.values().get(row)));
        let metrics: Vec<_> = metrics.filter(|(_, value)| !is_absent(*value)).collect();
        see(&EventRef {
            namespace: &self.table.name.namespace,
            table: &self.table.name.table,
            event_time: Some(self.view.times().get(row)),
            event_id: self.view.ids().and_then(|ids| ids.get(row)),
            dimensions: &dimensions,
            metrics: &metrics,
        })
    }
}

#[cfg(test)]
mod tests {
    use types::{Generation, Schema, SchemaVersion, TableId, TableKey, TableSettings};

    use super::*;

    const NOW: Timestamp = Timestamp(1_754_772_362_000_000);

    fn table() -> Arc<Table> {
        Arc::new(Table {
            key: TableKey { tenant: TenantId::DEFAULT, table: TableId(1), generation: Generation(1) },
            name: TableName::new("shop", "events"),
            partitions: vec![PartitionId(0)],
            partition_by: None,
            partition_seed: 1,
            identity_seed: 0,
            schema: Schema::from_parts(SchemaVersion(1), Vec::new()),
            settings: TableSettings::default(),
        })
    }

    /// A block of one row with a value of `bytes` bytes; its time is refused if it is `late`.
    fn block(bytes: usize, late: bool) -> Bytes {
        let value = "x".repeat(bytes);
        let event = EventRef {
            namespace: "shop",
            table: "events",
            event_time: Some(if late { i64::MAX } else { NOW.0 }),
            event_id: None,
            dimensions: &[("a", &value)],
            metrics: &[],
        };
        let mut builder = BodyBuilder::default();
        builder.push(&event, NOW, 0).unwrap();
        builder.finish(false).unwrap().bytes
    }

    /// Goal: a block goes on as the same memory where the blocks that stay are most of the message, else as a copy of its
    /// own, so that a message that was mostly refused is not kept with it.
    #[test]
    fn few_blocks_do_not_keep_their_message() {
        for (refused_bytes, stays) in [(100, true), (5_000, false)] {
            let request = proto::v1::IngestColumnsRequest {
                namespace: "shop".into(),
                table: "events".into(),
                blocks: vec![block(500, false), block(refused_bytes, true), block(500, false)],
                ..Default::default()
            };
            let message = Bytes::from(prost::Message::encode_to_vec(&request));
            let decoded = ColumnsRequest::decode(&message).unwrap();
            let mut job = ColumnsJob::new(decoded, TenantId::DEFAULT, NOW, 0).unwrap();
            let (sorted, rejected) =
                job.sort(&table(), (None, &Judge::new(&crate::SystemClock::default())), 100, &|_| Ok(())).unwrap();
            assert_eq!((sorted.blocks.len(), rejected.len()), (2, 1));
            for kept in &sorted.blocks {
                assert_eq!(kept.body, request.blocks[0]);
                assert_eq!(message.as_ptr_range().contains(&kept.body.as_ptr()), stays);
            }
        }
    }
}
