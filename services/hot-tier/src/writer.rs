//! A partition's writer as the stream ingester drives it: decodes what the log gives and applies it to the engine.

use std::sync::Arc;

use codec::{BlockError, BlockHeader, BlockKind, BodyView, ControlError, ControlRecord};
use engine::{ApplyError, RunFault, Writer, gap_of};
use proto::hot_tier::{NotApplied, PartitionWriter};
use tokio::sync::watch;
use types::{ApiError, GapReason, LogGap, Offset, PartitionId, Timestamp};

use crate::{checkpoint::seam::Seam, work::Work};

/// The engine's writer with what scans wait for.
pub struct NodeWriter {
    engine: Writer,
    recovered: watch::Sender<bool>,
    applied: watch::Sender<Offset>,
    /// Where captures go; `None`: no checkpoints.
    checkpoints: Option<Arc<Seam>>,
    work: Arc<Work>,
}

impl NodeWriter {
    /// Drives `engine`.
    #[must_use]
    pub fn new(engine: Writer) -> Self {
        let applied = watch::Sender::new(engine.next_offset());
        Self { engine, recovered: watch::Sender::new(false), applied, checkpoints: None, work: Arc::default() }
    }

    /// Gives captures for checkpoints when it is asked to.
    #[must_use]
    pub(crate) fn with_checkpoints(self, seam: Arc<Seam>) -> Self {
        Self { checkpoints: Some(seam), ..self }
    }

    /// Whether scans are answered.
    #[must_use]
    pub fn recovered(&self) -> watch::Receiver<bool> {
        self.recovered.subscribe()
    }

    /// The offset to apply next, which scans wait for.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<Offset> {
        self.applied.subscribe()
    }

    /// What it has applied, and what scans add.
    pub(crate) fn work(&self) -> Arc<Work> {
        Arc::clone(&self.work)
    }

    /// Applies a record; where it cannot be, it may not be consumed yet.
    fn apply_record(
        &mut self,
        offset: Offset,
        append_time: Timestamp,
        header: &BlockHeader,
        body: &[u8],
    ) -> Result<(), RecordError> {
        match header.kind {
            BlockKind::Events => {
                // The log verified the body's checksum, which the gateway made after a full check.
                let body = BodyView::parse_trusted(body)?;
                self.engine.apply(offset, append_time, header, &body)?;
                self.work.note_events(header.rows.into());
            }
            BlockKind::Control => match ControlRecord::decode(body)? {
                ControlRecord::TableConfigured(table) => self.engine.configure(offset, append_time, &table)?,
                ControlRecord::TableDropped(key) => self.engine.drop_table(offset, append_time, key)?,
                ControlRecord::Tick => self.engine.tick(offset, append_time)?,
            },
        }
        Ok(())
    }
}

fn stop(offset: Offset, error: &dyn std::fmt::Display) -> NotApplied {
    let message =
        format!("the change of a table at offset {offset} cannot be read, so nothing behind it is applied: {error}");
    NotApplied::Stop(ApiError::internal(message))
}

/// Why a record could not be applied.
#[derive(Debug, thiserror::Error)]
enum RecordError {
    #[error(transparent)]
    Body(#[from] BlockError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Engine(#[from] ApplyError),
}

impl PartitionWriter for NodeWriter {
    fn partition(&self) -> PartitionId {
        self.engine.partition()
    }

    fn next_offset(&self) -> Offset {
        self.engine.next_offset()
    }

    fn apply(
        &mut self,
        offset: Offset,
        append_time: Timestamp,
        header: &BlockHeader,
        body: &[u8],
    ) -> Result<(), NotApplied> {
        let applied = self.apply_record(offset, append_time, header, body);
        match &applied {
            Err(error @ RecordError::Engine(ApplyError::Ids(RunFault::Io(_)))) => {
                return Err(NotApplied::TryAgain(ApiError::unavailable(error.to_string())));
            }
            // No try finds other bytes; a restart reads the ids again, or goes back to where they are good.
            Err(error @ RecordError::Engine(ApplyError::Ids(_))) => {
                let message =
                    format!("offset {offset} cannot be judged, so nothing from it on is applied; restart: {error}");
                return Err(NotApplied::Stop(ApiError::internal(message)));
            }
            Err(RecordError::Control(error)) => return Err(stop(offset, error)),
            // The engine has passed over what it refused; what did not come so far is left to do.
            Err(_) if self.engine.next_offset() == offset => {
                let gap = gap_of(offset, header, GapReason::Inapplicable);
                self.engine.pass_over(gap, append_time).expect("it is the next offset");
            }
            _ => {}
        }
        self.applied.send_replace(self.engine.next_offset());
        if let Some(seam) = &self.checkpoints {
            seam.note_applied(body.len());
        }
        applied.map_err(|error| NotApplied::PassedOver(ApiError::internal(error.to_string())))
    }

    fn pass_over(&mut self, end: Offset, reason: GapReason, header: Option<&BlockHeader>) -> Result<(), NotApplied> {
        let first = self.engine.next_offset();
        let gap = match header {
            Some(header) if ControlRecord::changes_table(header) => {
                return Err(stop(first, &format!("its record is {}", reason.name())));
            }
            Some(header) => gap_of(first, header, reason),
            None => LogGap { first, end, table: None, times: None, reason },
        };
        // Of what was never read no time is known; the state's own stays.
        self.engine.pass_over(gap, Timestamp::MIN).expect("it is the next offset");
        self.applied.send_replace(self.engine.next_offset());
        Ok(())
    }

    fn housekeep(&mut self) {
        self.engine.housekeep();
        if let Some(seam) = &self.checkpoints {
            seam.offer(&self.engine);
        }
    }

    fn due_at(&self) -> Option<Timestamp> {
        self.engine.due_at()
    }

    fn needed_from(&self) -> Offset {
        // Without checkpoints a rebuild needs the whole log: also what left memory left its mark.
        self.checkpoints.as_ref().map_or(Offset::ZERO, |seam| seam.needed_from())
    }

    fn recovered(&mut self) {
        self.recovered.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use codec::{BodyBuilder, EventRef};
    use engine::{
        FrozenIds, HeapRuns, IdRuns, Limits, MemoryBudget, PinnedRun, RunFault, RunId, RunSet, SetUsage,
        partition_with_runs,
    };
    use types::{
        Generation, Interval, Rollup, Schema, SchemaVersion, Table, TableId, TableKey, TableName, TableSettings,
        TenantId,
    };

    use super::*;

    /// Runs that cannot be read for a while.
    struct Away(HeapRuns, Arc<Mutex<Option<RunFault>>>);

    impl IdRuns for Away {
        fn new_set(&mut self) -> RunSet {
            self.0.new_set()
        }

        fn add(&mut self, set: RunSet, ids: Arc<FrozenIds>) {
            self.0.add(set, ids);
        }

        fn seal(&mut self, set: RunSet) {
            self.0.seal(set);
        }

        fn confirm(&mut self, set: RunSet, suspects: &[u128], found: &mut [Option<u32>]) -> Result<(), RunFault> {
            let fault = *self.1.lock().unwrap();
            fault.map_or_else(|| self.0.confirm(set, suspects, found), Err)
        }

        fn drop_set(&mut self, set: RunSet) {
            self.0.drop_set(set);
        }

        fn usage(&mut self, set: RunSet) -> SetUsage {
            self.0.usage(set)
        }

        fn pin(&self, set: RunSet) -> Vec<PinnedRun> {
            self.0.pin(set)
        }

        fn restore_set(&mut self, runs: &[RunId]) -> Result<(RunSet, usize), RunFault> {
            self.0.restore_set(runs)
        }

        fn scan(&mut self, set: RunSet, each: &mut dyn FnMut(&[u128])) -> Result<(), RunFault> {
            self.0.scan(set, each)
        }
    }

    fn block(id: u8) -> (BlockHeader, Vec<u8>) {
        block_at(id, 1)
    }

    fn block_at(id: u8, time: i64) -> (BlockHeader, Vec<u8>) {
        let (namespace, table) = ("n", "t");
        let event =
            EventRef { namespace, table, event_time: Some(time), event_id: Some(&[id]), dimensions: &[], metrics: &[] };
        let mut builder = BodyBuilder::default();
        builder.push(&event, Timestamp(0), 0).unwrap();
        let body = builder.finish(false).unwrap();
        let key = TableKey { tenant: TenantId(1), table: TableId(1), generation: Generation(1) };
        (body.header(key, SchemaVersion(1), PartitionId(0), None), body.bytes.to_vec())
    }

    /// Goal: a record that cannot be judged is not consumed, and is judged right once its ids can be read again; where they
    /// are damaged, no more tries are made.
    #[test]
    fn records_wait_for_their_ids() {
        let away = Arc::new(Mutex::new(None));
        let runs = Box::new(Away(HeapRuns::default(), Arc::clone(&away)));
        let limits = Limits { recent_ids_max: 1, ..Limits::default() };
        let budget = Arc::new(MemoryBudget::new(u64::MAX));
        let (engine, reader) = partition_with_runs(PartitionId(0), Offset::ZERO, limits, budget, runs);
        let mut writer = NodeWriter::new(engine);
        let mut apply = |offset: u64, id: u8| {
            let (header, body) = block(id);
            let applied = writer.apply(Offset(offset), Timestamp(0), &header, &body);
            assert_eq!(*writer.applied().borrow(), writer.next_offset());
            (applied, writer.next_offset())
        };
        for (offset, id) in [(0, 1), (1, 2), (2, 3)] {
            assert_eq!(apply(offset, id), (Ok(()), Offset(offset + 1)));
        }
        *away.lock().unwrap() = Some(RunFault::Damaged(RunId(0)));
        let (stops, next) = apply(3, 1);
        assert!(matches!(stops, Err(NotApplied::Stop(_))), "{stops:?}");
        assert_eq!(next, Offset(3));
        *away.lock().unwrap() = Some(RunFault::Io(std::io::ErrorKind::Other));
        let (waits, next) = apply(3, 1);
        assert!(matches!(waits, Err(NotApplied::TryAgain(_))), "{waits:?}");
        assert_eq!(next, Offset(3));
        *away.lock().unwrap() = None;
        assert_eq!(apply(3, 1), (Ok(()), Offset(4)));
        let status = reader.table_status(block(1).0.key).unwrap();
        assert_eq!((status.live, status.duplicate), (3, 1));
        assert_eq!(reader.status().passed_over, 0);
    }

    fn writer() -> (NodeWriter, engine::Reader) {
        let budget = Arc::new(MemoryBudget::new(u64::MAX));
        let (engine, reader) = engine::partition(PartitionId(0), Offset::ZERO, Limits::default(), budget);
        (NodeWriter::new(engine), reader)
    }

    /// Goal: a block that cannot be decoded becomes a gap of its table, and damage that nobody knows the table of one of all
    /// tables; what waits for offsets goes on.
    #[test]
    fn what_cannot_be_applied_becomes_a_gap() {
        let (mut writer, reader) = writer();
        let (header, body) = block(1);
        let cut_off = writer.apply(Offset(0), Timestamp(5), &header, &body[..body.len() - 1]);
        assert!(matches!(cut_off, Err(NotApplied::PassedOver(_))), "{cut_off:?}");
        assert_eq!(writer.pass_over(Offset(4), GapReason::Gone, None), Ok(()));
        assert_eq!(writer.pass_over(Offset(5), GapReason::Damaged, Some(&header)), Ok(()));
        assert_eq!((writer.next_offset(), *writer.applied().borrow()), (Offset(5), Offset(5)));
        assert_eq!(writer.apply(Offset(5), Timestamp(6), &header, &body), Ok(()));
        let lost = LogGap { first: Offset(1), end: Offset(4), table: None, times: None, reason: GapReason::Gone };
        let of_block = |offset, reason| gap_of(Offset(offset), &header, reason);
        let expected = [of_block(0, GapReason::Inapplicable), lost, of_block(4, GapReason::Damaged)];
        assert_eq!(reader.gaps().as_slice(), expected);
    }

    /// Goal: rollups that are declared later are a record of the log like any other: replicas that evicted at different times
    /// have the same rollups from the same record on, and say the same of what both cover.
    #[test]
    fn rollups_are_declared_by_the_log() {
        let (header, body) = block(1);
        let declared = |rollups: Vec<Rollup>| {
            let table = Table {
                key: header.key,
                name: TableName::new("n", "t"),
                partitions: vec![PartitionId(0)],
                partition_by: None,
                partition_seed: 0,
                identity_seed: 0,
                schema: Schema::default(),
                settings: TableSettings { rollups, hot_window_us: Some(1), ..TableSettings::default() },
            };
            let record = ControlRecord::TableConfigured(Arc::new(table));
            let (header, body) = record.block(SchemaVersion(1), PartitionId(0));
            (header, body.to_vec())
        };
        let rollup = Rollup {
            interval: Interval::from_micros(10).unwrap(),
            group_by: Vec::new(),
            distinct: Vec::new(),
            percentiles: Vec::new(),
            top: Vec::new(),
            keep_us: Some(86_400_000_000),
        };
        let minutes = 180_000_000;
        let records = [(header, body), declared(Vec::new()), declared(vec![rollup.clone()]), block_at(2, minutes)];
        let of = |evicts: bool| {
            let (mut writer, reader) = writer();
            for (offset, (header, body)) in (0..).zip(&records) {
                writer.apply(Offset(offset), Timestamp(minutes), header, body).unwrap();
            }
            if evicts {
                writer.housekeep();
            }
            reader.snapshot(header.key).unwrap()
        };
        assert_eq!([false, true].map(|evicts| of(evicts).rows()), [2, 1]);
        for snapshot in [false, true].map(of) {
            let [known] = snapshot.rollups() else { panic!("one rollup was declared") };
            assert_eq!((known.rollup(), known.covered_from()), (&rollup, Some(Timestamp::MIN)));
            let everything = Timestamp::MIN..Timestamp::MAX;
            let kept = known.history(i64::MIN..i64::MAX).flat_map(|part| part.rows()).sum::<u64>();
            let beside = snapshot.segments().iter().map(|segment| {
                let (parts, rows) = known.of_segment(segment);
                let rest = known.of_rows(&snapshot, segment, rows..segment.rows(), &everything);
                parts.iter().map(|part| part.rows()[0]).sum::<u64>() + rest.map_or(0, |part| part.rows()[0])
            });
            assert_eq!(kept + beside.sum::<u64>(), 2, "both events");
        }
    }

    /// Goal: a change of a table that cannot be read, as its record is damaged or says what nobody knows, is not consumed.
    #[test]
    fn changes_of_tables_are_not_passed_over() {
        let (mut writer, reader) = writer();
        let control = BlockHeader { kind: BlockKind::Control, rows: 0, ..block(1).0 };
        let unknown = writer.apply(Offset(0), Timestamp(5), &control, b"{\"table_renamed\":{}}");
        assert!(matches!(unknown, Err(NotApplied::Stop(_))), "{unknown:?}");
        let damaged = writer.pass_over(Offset(1), GapReason::Damaged, Some(&control));
        assert!(matches!(damaged, Err(NotApplied::Stop(_))), "{damaged:?}");
        assert_eq!((writer.next_offset(), reader.gaps().len()), (Offset::ZERO, 0));
    }
}
