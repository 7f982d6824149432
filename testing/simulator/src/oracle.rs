//! What must be, in plain maps: what was sent, what the log holds, and what a partition must have made of it.
//!
//! 1. The log's records, once seen, never change and never go, and are blocks that somebody sent, none more often than that.
//! 2. What was acked is at its place.
//! 3. Which rows of a record are counted follows from the records before it: an identity is counted once, and known for the
//!    table's window of append time at least (to the end of the fourth slice of a third of it, in the terms of the design).

use std::collections::BTreeMap;

use event_log::{EventLog, Record};
use types::{Generation, Offset, PartitionId, Table, TableId, TableKey, TenantId};

use crate::{
    events::{Block, BlockName, Content, Event, Row},
    failure::{Wrong, ensure},
};

/// Who an event is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Identity {
    Event { key: Option<u8>, id: u64 },
    Batch { producer: u128, sequence: u64, index: u32 },
}

/// What tells an event from another one under the same identity; the time only where the client gave it.
type Fingerprint = (u64, Option<u8>, Option<i64>);

/// Whoever was counted under an identity.
struct Known {
    forget_at: i64,
    content: Fingerprint,
}

/// One life of one table in one partition.
#[derive(Default)]
struct TableFold {
    window_us: i64,
    lateness_us: i64,
    max_future_us: i64,
    partition_by_key: bool,
    known: BTreeMap<Identity, Known>,
    newest: Option<i64>,
    last_events_at: Option<i64>,
}

/// What became of a record.
pub(crate) struct Judged {
    pub(crate) name: BlockName,
    append_time: i64,
    /// Rows in its header.
    pub(crate) rows: u64,
    /// Rows that are counted, by their number in the block.
    pub(crate) counted: Vec<(u32, Row)>,
    duplicate: u64,
    conflict: u64,
    late: u64,
    /// As of this record.
    newest: Option<i64>,
    last_events_at: Option<i64>,
    /// The life of a table that it ended.
    ended: Option<TableKey>,
    /// It was of a life that had ended.
    passed_over: bool,
    /// It said the time and nothing else.
    pub(crate) tick: bool,
}

/// What a table must be at an offset.
#[derive(Debug, Default)]
pub(crate) struct Expected<'a> {
    /// Rows that count, by record and number in the block.
    pub(crate) rows: BTreeMap<(Offset, u32), &'a Row>,
    pub(crate) duplicate: u64,
    pub(crate) conflict: u64,
    pub(crate) late: u64,
    pub(crate) newest: Option<i64>,
    pub(crate) last_events_at: Option<i64>,
}

/// One partition's records and what they come to.
#[derive(Default)]
pub(crate) struct PartitionFold {
    pub(crate) records: Vec<Judged>,
    tables: BTreeMap<TableKey, TableFold>,
    ended: BTreeMap<(TenantId, TableId), Generation>,
}

/// A block that was sent.
struct Sent {
    content: Content,
    /// Appends of it that may be in the log.
    tried: u64,
    /// Records of it.
    found: u64,
}

/// All of it.
pub(crate) struct Oracle {
    sent: BTreeMap<BlockName, Sent>,
    pub(crate) partitions: Vec<PartitionFold>,
    acked: BTreeMap<(PartitionId, Offset), BlockName>,
}

impl Oracle {
    pub(crate) fn new(partitions: u32) -> Self {
        let partitions = (0..partitions).map(|_| PartitionFold::default()).collect();
        Self { sent: BTreeMap::new(), partitions, acked: BTreeMap::new() }
    }

    /// A block is about to be appended.
    pub(crate) fn sends(&mut self, block: &Block) {
        let sent = Sent { content: block.content.clone(), tried: 0, found: 0 };
        self.sent.entry(BlockName::of(&block.append.header)).or_insert(sent).tried += 1;
    }

    /// The log said that nothing of it was appended.
    pub(crate) fn refused(&mut self, name: BlockName) {
        self.sent.get_mut(&name).expect("it was sent").tried -= 1;
    }

    /// The log said that it is durable, and where.
    pub(crate) fn acked(&mut self, partition: PartitionId, offset: Offset, name: BlockName) -> Result<(), Wrong> {
        let before = self.acked.insert((partition, offset), name);
        ensure!(before.is_none(), "offset {offset} of partition {partition} was given twice");
        Ok(())
    }

    /// Looks at what is new in the log.
    pub(crate) fn read_new(&mut self, log: &dyn EventLog) -> Result<(), Wrong> {
        for partition in (0..self.partitions.len() as u32).map(PartitionId) {
            let known = self.partitions[partition.0 as usize].records.len() as u64;
            if log.bounds(partition).end.0 != known {
                for record in read(log, partition, Offset(known))? {
                    self.take(partition, &record)?;
                }
            }
        }
        Ok(())
    }

    /// Looks at everything that is in the log again, after a start: rules 1 and 2.
    pub(crate) fn read_again(&mut self, log: &dyn EventLog) -> Result<(), Wrong> {
        for at in 0..self.partitions.len() {
            let partition = PartitionId(at as u32);
            let bounds = log.bounds(partition);
            let known = self.partitions[at].records.len() as u64;
            ensure!(bounds.end.0 >= known, "partition {partition} ends at {}, {known} records were there", bounds.end);
            for record in read(log, partition, bounds.start)? {
                match self.partitions[at].records.get(record.offset.0 as usize) {
                    None => self.take(partition, &record)?,
                    Some(seen) => {
                        let now = (BlockName::of(&record.header), record.append_time.0);
                        ensure!(
                            now == (seen.name, seen.append_time),
                            "record {} of {partition} changed",
                            record.offset
                        );
                    }
                }
            }
        }
        for ((partition, offset), name) in &self.acked {
            let record = self.partitions[partition.0 as usize].records.get(offset.0 as usize);
            let found = record.is_some_and(|record| record.name == *name);
            ensure!(found, "what was acked at offset {offset} of partition {partition} is not there");
        }
        Ok(())
    }

    fn take(&mut self, partition: PartitionId, record: &Record) -> Result<(), Wrong> {
        let name = BlockName::of(&record.header);
        let offset = record.offset;
        let fold = &mut self.partitions[partition.0 as usize];
        ensure!(offset.0 == fold.records.len() as u64, "offset {offset} of {partition} is not the next");
        ensure!(name.partition == partition, "record {offset} of {partition} is for another partition");
        let sent = self.sent.get_mut(&name);
        ensure!(sent.is_some(), "record {offset} of {partition} was never sent");
        let sent = sent.expect("just looked at");
        sent.found += 1;
        ensure!(
            sent.found <= sent.tried,
            "record {offset} of {partition} is there {} times, sent {}",
            sent.found,
            sent.tried
        );
        let last = fold.records.last().map_or(i64::MIN, |record| record.append_time);
        ensure!(last <= record.append_time.0, "append times of partition {partition} fall");
        fold.judge(name, record.append_time.0, &sent.content)
    }
}

/// All durable records of a partition from an offset on.
fn read(log: &dyn EventLog, partition: PartitionId, from: Offset) -> Result<Vec<Record>, Wrong> {
    let mut records = Vec::new();
    let end = log.bounds(partition).end;
    let mut reader = log.reader(partition, from).map_err(|error| Wrong(format!("open a reader: {error}")))?;
    while reader.position() < end {
        let polled = reader.poll(1 << 20, std::time::Duration::ZERO, &mut records);
        let polled = polled.map_err(|error| Wrong(format!("read partition {partition}: {error}")))?;
        ensure!(polled > 0, "partition {partition} gives no record before its end");
    }
    Ok(records)
}

impl PartitionFold {
    fn judge(&mut self, name: BlockName, append_time: i64, content: &Content) -> Result<(), Wrong> {
        let mut judged = Judged {
            name,
            append_time,
            rows: 0,
            counted: Vec::new(),
            duplicate: 0,
            conflict: 0,
            late: 0,
            newest: None,
            last_events_at: None,
            ended: None,
            passed_over: false,
            tick: matches!(content, Content::Tick),
        };
        match content {
            Content::Dropped(key) => {
                let until = self.ended.entry((key.tenant, key.table)).or_insert(key.generation);
                *until = (*until).max(key.generation);
                judged.ended = Some(*key);
                let ended = &self.ended;
                self.tables.retain(|key, _| !has_ended(ended, *key));
            }
            _ if has_ended(&self.ended, name.key) => {
                judged.passed_over = true;
                if let Content::Rows { rows, .. } = content {
                    judged.rows = rows.len() as u64;
                }
            }
            Content::Tick => {}
            Content::Configured(table) => self.tables.entry(name.key).or_default().configure(table),
            Content::Rows { rows, batch, times_given } => {
                let table = self.tables.get_mut(&name.key);
                ensure!(table.is_some(), "events came before their table");
                table.expect("just looked at").count(rows, *batch, *times_given, &mut judged);
            }
        }
        self.records.push(judged);
        Ok(())
    }

    /// Tables that exist once the records before `end` are applied, with what each must be.
    pub(crate) fn tables_at(&self, end: Offset) -> BTreeMap<TableKey, Expected<'_>> {
        let mut tables = BTreeMap::<TableKey, Expected<'_>>::new();
        for (judged, offset) in self.records.iter().zip(0..end.0) {
            if let Some(ended) = judged.ended {
                tables.retain(|key, _| {
                    (key.tenant, key.table) != (ended.tenant, ended.table) || key.generation > ended.generation
                });
                continue;
            }
            if judged.passed_over || judged.tick {
                continue;
            }
            let table = tables.entry(judged.name.key).or_default();
            table.rows.extend(judged.counted.iter().map(|(row, event)| ((Offset(offset), *row), event)));
            table.duplicate += judged.duplicate;
            table.conflict += judged.conflict;
            table.late += judged.late;
            if judged.rows > 0 {
                (table.newest, table.last_events_at) = (judged.newest, judged.last_events_at);
            }
        }
        tables
    }

    /// Records before `end` that are of lives of tables that had ended.
    pub(crate) fn passed_over_at(&self, end: Offset) -> u64 {
        self.records.iter().zip(0..end.0).filter(|(judged, _)| judged.passed_over).count() as u64
    }

    /// Rows of a table in the headers of the records from `from` on.
    pub(crate) fn rows_from(&self, key: TableKey, from: Offset) -> u64 {
        let records = self.records.iter().skip(from.0 as usize);
        records.filter(|record| record.name.key == key).map(|record| record.rows).sum()
    }

    /// Whether a life of a table has ended, as far as the log goes.
    pub(crate) fn has_ended(&self, key: TableKey) -> bool {
        has_ended(&self.ended, key)
    }
}

fn has_ended(ended: &BTreeMap<(TenantId, TableId), Generation>, key: TableKey) -> bool {
    ended.get(&(key.tenant, key.table)).is_some_and(|until| key.generation <= *until)
}

impl TableFold {
    fn configure(&mut self, table: &Table) {
        self.window_us = table.settings.dedup_window_us;
        self.lateness_us = table.settings.lateness_us;
        self.max_future_us = table.settings.max_future_us;
        self.partition_by_key = table.partition_by.is_some();
    }

    fn count(&mut self, rows: &[Row], batch: Option<(u128, u64)>, times_given: bool, judged: &mut Judged) {
        let now = judged.append_time;
        let slice_us = (self.window_us + 2) / 3;
        let forget_at = (now.div_euclid(slice_us) + 4) * slice_us;
        judged.rows = rows.len() as u64;
        for (row, number) in rows.iter().zip(0..) {
            let Event { n, key, time, .. } = row.event;
            let content = (n, key, time.filter(|_| !times_given));
            let identity = self.identity(batch, row);
            let first = identity.as_ref().and_then(|identity| self.known.get(identity));
            match first.filter(|known| now < known.forget_at) {
                Some(known) => {
                    judged.duplicate += 1;
                    let comparable = known.content.2.is_some() == content.2.is_some();
                    judged.conflict += u64::from(comparable && known.content != content);
                }
                None => {
                    judged.counted.push((number, row.clone()));
                    self.known.extend(identity.map(|identity| (identity, Known { forget_at, content })));
                }
            }
        }
        self.note_times(judged);
    }

    fn identity(&self, batch: Option<(u128, u64)>, row: &Row) -> Option<Identity> {
        match (row.event.id, batch) {
            (Some(id), _) => Some(Identity::Event { key: row.event.key.filter(|_| self.partition_by_key), id }),
            (None, Some((producer, sequence))) => Some(Identity::Batch { producer, sequence, index: row.index }),
            (None, None) => None,
        }
    }

    fn note_times(&mut self, judged: &mut Judged) {
        let times = || judged.counted.iter().map(|(_, row)| row.time);
        if let (Some(newest), Some(last)) = (self.newest, self.last_events_at) {
            let due = newest.min(last) - self.lateness_us;
            judged.late = times().filter(|time| *time < due).count() as u64;
        }
        if !judged.counted.is_empty() {
            let end = judged.append_time + self.max_future_us;
            self.newest = self.newest.max(times().filter(|time| *time <= end).max());
            self.last_events_at = Some(judged.append_time);
        }
        (judged.newest, judged.last_events_at) = (self.newest, self.last_events_at);
    }
}
