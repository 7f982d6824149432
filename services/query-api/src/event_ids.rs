//! The ids of raw events. The hot tier keeps none: each event's place names its record and row, and the log has the ids.
//!
//! 1. A record is read once for a page, and what it has for the page is taken at once: nothing of it is kept.
//! 2. Reading is bounded in bytes and time. Where the bound is met the page ends early, after at least one event.
//! 3. What the log has no more leaves events without an id, and the receipt says so; it fails no page.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use codec::{BlockKind, BodyView, Ids};
use event_log::{EventLog, ReadError, Record};
use query::{EventPlace, RawEvent};
use serde::Serialize;
use types::{Offset, PartitionId, TableKey};

/// Bytes of the log that are read for one page, about.
const READ_BYTES_MAX: usize = 64 << 20;
/// Bytes that are read at once: events of one time often lie in records side by side.
const READ_AHEAD_BYTES: usize = 64 << 10;
/// How long a page may wait for records that a node has applied: this process follows the log by itself, and may be a little behind.
const COMING_TIMEOUT: Duration = Duration::from_secs(1);

/// The ids of the first events of a page.
pub(crate) struct EventIds {
    /// As many as could be looked for in time; `None`: the event has none, or see `missing`.
    pub(crate) ids: Vec<Option<String>>,
    pub(crate) missing: Vec<MissingIds>,
}

/// Events that are shown without the id that they may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct MissingIds {
    partition: u32,
    /// `released`: the log has let the records go; `unreadable`: they are damaged, or the disk failed.
    why: &'static str,
    events: u64,
}

/// Reads the ids of events of one table, in order. Blocks.
pub(crate) fn read(log: &dyn EventLog, key: TableKey, events: &[RawEvent], deadline: Instant) -> EventIds {
    let mut search = Search::new(log, key, events);
    let coming_until = deadline.min(Instant::now() + COMING_TIMEOUT);
    for (at, event) in events.iter().enumerate() {
        if search.found[at] == Found::NotYet {
            let out_of_bounds = search.read_bytes >= READ_BYTES_MAX || Instant::now() >= deadline;
            if at > 0 && out_of_bounds {
                search.found.truncate(at);
                break;
            }
            search.read_at(&event.place, coming_until.saturating_duration_since(Instant::now()));
        }
    }
    search.finish(events)
}

/// What is known of an event's id.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    NotYet,
    Id(Option<String>),
    Missing(&'static str),
}

struct Search<'a> {
    log: &'a dyn EventLog,
    key: TableKey,
    /// The events of each record that has not been read: row in the block, and place in the page.
    wanted: BTreeMap<(PartitionId, Offset), Vec<(u32, usize)>>,
    found: Vec<Found>,
    read_bytes: usize,
}

impl<'a> Search<'a> {
    fn new(log: &'a dyn EventLog, key: TableKey, events: &[RawEvent]) -> Self {
        let mut wanted = BTreeMap::<_, Vec<_>>::new();
        for (at, event) in events.iter().enumerate() {
            wanted.entry((event.place.partition, event.place.offset)).or_default().push((event.place.row, at));
        }
        Self { log, key, wanted, found: vec![Found::NotYet; events.len()], read_bytes: 0 }
    }

    /// Reads the record of a place, for which it waits a while, and whatever the page needs of those behind it that come along.
    fn read_at(&mut self, place: &EventPlace, wait: Duration) {
        let (partition, mut records) = (place.partition, Vec::new());
        let reader = self.log.reader(partition, place.offset);
        let read = reader.and_then(|mut reader| reader.poll(READ_AHEAD_BYTES, wait, &mut records));
        let error = match read {
            Ok(count) if count > 0 => None,
            Err(ReadError::Gap { .. }) => Some("released"),
            Ok(_) | Err(_) => Some("unreadable"),
        };
        for record in &records {
            self.read_bytes += record.body.len();
            if let Some(rows) = self.wanted.remove(&(partition, record.offset)) {
                self.take(record, &rows);
            }
        }
        // What the reader gave instead of the record itself leaves its events without an id.
        for (_, at) in self.wanted.remove(&(partition, place.offset)).unwrap_or_default() {
            self.found[at] = Found::Missing(error.unwrap_or("unreadable"));
        }
    }

    fn take(&mut self, record: &Record, rows: &[(u32, usize)]) {
        let is_of_table = record.header.kind == BlockKind::Events && record.header.key == self.key;
        // The log verified the body's checksum, which the gateway made after a full check.
        let body = is_of_table.then(|| BodyView::parse_trusted(&record.body).ok()).flatten();
        for &(row, at) in rows {
            let body = body.as_ref().filter(|body| (row as usize) < body.rows());
            self.found[at] = match body {
                Some(body) => Found::Id(body.ids().and_then(|ids| id_of(&ids, row as usize))),
                None => Found::Missing("unreadable"),
            };
        }
    }

    fn finish(self, events: &[RawEvent]) -> EventIds {
        let mut missing = BTreeMap::<(u32, &str), u64>::new();
        let mut ids = Vec::with_capacity(self.found.len());
        for (found, event) in self.found.into_iter().zip(events) {
            if let Found::Missing(why) = &found {
                *missing.entry((event.place.partition.0, why)).or_default() += 1;
            }
            ids.push(match found {
                Found::Id(id) => id,
                Found::NotYet | Found::Missing(_) => None,
            });
        }
        let missing = missing.into_iter().map(|((partition, why), events)| MissingIds { partition, why, events });
        EventIds { ids, missing: missing.collect() }
    }
}

/// An id as text: as it is, or as `0x` and hexadecimal digits where it is none (columns may bring any bytes).
fn id_of(ids: &Ids<'_>, row: usize) -> Option<String> {
    let id = ids.get(row)?;
    let hexadecimal = || id.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"));
    Some(std::str::from_utf8(id).map_or_else(|_| hexadecimal(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use codec::{BodyBuilder, EventRef};
    use event_log::{Append, EmbeddedConfig, EmbeddedLog};
    use types::{Generation, SchemaVersion, TableId, TenantId, Timestamp};

    use super::*;

    const KEY: TableKey = TableKey { tenant: TenantId(1), table: TableId(1), generation: Generation(1) };

    fn log(dir: &tempfile::TempDir) -> EmbeddedLog {
        EmbeddedLog::open_on_disk(EmbeddedConfig::new(dir.path().to_owned(), 1)).unwrap()
    }

    fn event(offset: u64) -> RawEvent {
        let place = EventPlace { time: Timestamp(0), partition: PartitionId(0), offset: Offset(offset), row: 0 };
        RawEvent { place, dimensions: Vec::new(), metrics: Vec::new() }
    }

    fn block() -> Append {
        let mut builder = BodyBuilder::default();
        let event = EventRef {
            namespace: "n",
            table: "t",
            event_time: Some(0),
            event_id: Some(b"it"),
            dimensions: &[],
            metrics: &[],
        };
        builder.push(&event, Timestamp(0), 0).unwrap();
        let body = builder.finish(false).unwrap();
        Append { header: body.header(KEY, SchemaVersion(1), PartitionId(0), None), body: body.bytes }
    }

    /// Goal: the id of an event whose record this process has not come to yet is waited for, as one that follows the log by itself is
    /// behind the nodes for moments; one that does not come in the time that there is has none.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_record_that_is_coming_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(log(&dir));
        let page = |time| read(log.as_ref(), KEY, &[event(0)], Instant::now() + time);
        let none = page(Duration::from_millis(20));
        assert_eq!((none.ids, none.missing[0].why), (vec![None], "unreadable"));
        let appends = tokio::spawn({
            let log = Arc::clone(&log);
            async move {
                thread::sleep(Duration::from_millis(50));
                log.append(vec![block()]).await.unwrap();
            }
        });
        let found = page(Duration::from_secs(60));
        assert_eq!((found.ids, found.missing), (vec![Some("it".to_owned())], vec![]));
        appends.await.unwrap();
    }
}
