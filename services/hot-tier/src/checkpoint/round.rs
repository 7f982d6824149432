//! One checkpoint of a partition: from the capture to what the log may let go of. Who decides when, and on which thread,
//! is another's.

use std::sync::Arc;

use crossbeam_channel::Receiver;
use engine::RunFault;
use id_store::{CheckpointError, CheckpointStore, Generation, Paused, RunKeeper, Written};
use types::Offset;

use super::seam::{Captured, Seam};

/// Why a state was not written.
#[derive(Debug, thiserror::Error)]
pub enum NotWritten {
    /// Runs of ids that it refers to could not be made durable.
    #[error(transparent)]
    Ids(#[from] RunFault),
    /// See [`CheckpointError`].
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// A partition's checkpoints, for whoever writes them.
pub struct Rounds {
    seam: Arc<Seam>,
    captures: Receiver<Captured>,
    store: CheckpointStore,
    keeper: RunKeeper,
}

impl Rounds {
    pub(crate) fn new(
        (seam, captures): (Arc<Seam>, Receiver<Captured>),
        store: CheckpointStore,
        keeper: RunKeeper,
    ) -> Self {
        Self { seam, captures, store, keeper }
    }

    /// Asks the writer for a capture, which it gives when it does its housekeeping next.
    pub fn ask(&self) {
        self.drop_late();
        self.seam.want(true);
    }

    #[cfg(test)]
    pub(crate) fn seam(&self) -> Arc<Seam> {
        Arc::clone(&self.seam)
    }

    /// Lets go of a capture that came when it was not waited for any more: it keeps memory, and is of another time.
    pub(crate) fn drop_late(&self) {
        while self.captures.try_recv().is_ok() {}
    }

    /// The capture that was asked for, if it is there; else none is wanted any more.
    #[must_use]
    pub fn take(&self) -> Option<Captured> {
        let captured = self.captures.try_recv().ok();
        self.want_none();
        captured
    }

    /// Where the capture comes out that was asked for.
    pub(crate) fn captures(&self) -> &Receiver<Captured> {
        &self.captures
    }

    /// No capture is wanted any more.
    pub(crate) fn want_none(&self) {
        self.seam.want(false);
    }

    /// Makes a capture the newest checkpoint, durable, and lets the log go of what none needs.
    ///
    /// # Errors
    /// The checkpoints that are there stay as they were, and so does the log.
    pub fn write(&mut self, captured: &Captured, pause: &mut Paused<'_>) -> Result<Written, NotWritten> {
        let generation = self.store.next_generation();
        let runs = captured.state.runs().to_vec();
        // Before the capture ends, which has kept them so far.
        self.keeper.retain(generation, runs.clone())?;
        let written = match self.keeper.sync(&runs) {
            Ok(()) => self.store.write(&captured.state, pause).map_err(NotWritten::from),
            Err(fault) => Err(fault.into()),
        };
        let over = match &written {
            Ok(written) => written.dropped,
            Err(_) => Some(generation),
        };
        if let Some(over) = over {
            self.keeper.release(over);
        }
        if written.is_ok() {
            self.seam.set_needed_from(self.store.needed_from());
        }
        written
    }

    /// The checkpoints that are there, oldest first; at most two.
    #[must_use]
    pub fn generations(&self) -> Vec<Generation> {
        self.store.generations()
    }

    /// The least offset that the log is still needed from.
    pub(crate) fn needed_from(&self) -> Offset {
        self.store.needed_from()
    }

    /// Bytes of records since the last capture.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.seam.log_bytes()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{io, thread};

    use codec::{BodyBuilder, BodyView, EventRef};
    use crossbeam_channel::{Sender, unbounded};
    use engine::{Limits, MemoryBudget, Writer, partition_with_runs};
    use id_store::{CheckpointFiles, DiskFiles, IdStore, Kept, NewRunFile, RunFile, RunFiles};
    use types::{
        Generation as TableGeneration, LogIdentity, PartitionId, SchemaVersion, TableId, TableKey, TenantId, Timestamp,
    };

    use super::*;

    pub(crate) const KEY: TableKey =
        TableKey { tenant: TenantId(1), table: TableId(1), generation: TableGeneration(1) };
    const LIMIT: u64 = 16 << 20;
    /// Of a record.
    pub(crate) const ROWS: i64 = 1_000;
    /// Of a sealed row: two of its time, eight of its value.
    const ROW_BYTES: u64 = 10;

    /// A disk whose syncs say that they began, and end when they are told to.
    #[derive(Clone)]
    struct Hung {
        begins: Sender<()>,
        ends: Receiver<()>,
    }

    struct HungFiles(DiskFiles, Hung);
    struct HungNewFile(Box<dyn NewRunFile>, Hung);
    struct HungFile(Arc<dyn RunFile>, Hung);

    impl RunFiles for HungFiles {
        fn list(&self) -> io::Result<Vec<String>> {
            self.0.list()
        }

        fn create(&self, name: &str) -> io::Result<Box<dyn NewRunFile>> {
            Ok(Box::new(HungNewFile(self.0.create(name)?, self.1.clone())))
        }

        fn open(&self, name: &str) -> io::Result<Arc<dyn RunFile>> {
            self.0.open(name)
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            self.0.remove(name)
        }

        fn sync_names(&self) -> io::Result<()> {
            self.0.sync_names()
        }
    }

    impl CheckpointFiles for HungFiles {
        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.0.rename(from, to)
        }

        fn room(&self) -> io::Result<u64> {
            self.0.room()
        }
    }

    impl NewRunFile for HungNewFile {
        fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.0.append(bytes)
        }

        fn finish(self: Box<Self>) -> io::Result<Arc<dyn RunFile>> {
            Ok(Arc::new(HungFile(self.0.finish()?, self.1)))
        }
    }

    impl RunFile for HungFile {
        fn size(&self) -> io::Result<u64> {
            self.0.size()
        }

        fn read_exact_at(&self, into: &mut [u8], position: u64) -> io::Result<()> {
            self.0.read_exact_at(into, position)
        }

        fn sync(&self) -> io::Result<()> {
            let _ = self.1.begins.send(());
            // Ends also when nobody is left to say so.
            let _ = self.1.ends.recv();
            self.0.sync()
        }
    }

    /// Applies the next record, of rows that are newer than all before, and does the housekeeping.
    pub(crate) fn apply(writer: &mut Writer, seam: &Seam) {
        let offset = writer.next_offset();
        let mut builder = BodyBuilder::default();
        for n in 0..ROWS {
            let (namespace, table) = ("n", "t");
            let event_time = Some(offset.0 as i64 * ROWS + n);
            // A value that no smaller form holds.
            let metrics = &[("m", (n as f64 + 0.5).sqrt())];
            let event = EventRef { namespace, table, event_time, event_id: None, dimensions: &[], metrics };
            builder.push(&event, Timestamp(0), 0).unwrap();
        }
        let body = builder.finish(false).unwrap();
        let header = body.header(KEY, SchemaVersion(1), writer.partition(), None);
        writer.apply(offset, Timestamp(0), &header, &BodyView::parse(&body.bytes).unwrap()).unwrap();
        writer.housekeep();
        seam.offer(writer);
    }

    /// Goal: where the disk never comes back from the sync of a checkpoint, rows go on leaving memory: its writer takes the
    /// state back before events would be refused, and the checkpoint that hung counts as given up; the next one is good.
    #[test]
    fn a_disk_that_hangs_keeps_no_rows() {
        let dir = tempfile::tempdir().unwrap();
        let (begins, began) = unbounded();
        let (end, ends) = unbounded::<()>();
        let files = HungFiles(DiskFiles::open(&dir.path().join("checkpoints")).unwrap(), Hung { begins, ends });
        let store = CheckpointStore::open(Arc::new(files), PartitionId(0), LogIdentity(1)).unwrap();
        let ids = IdStore::open_on_disk(&dir.path().join("ids"), Kept::Named(&[])).unwrap();
        let (keeper, budget) = (ids.keeper(), Arc::new(MemoryBudget::new(LIMIT)));
        let limits =
            Limits { segment_rows_first: 1_024, segment_rows_max: 1_024, open_slots_max: 1, ..Limits::default() };
        let (mut writer, _reader) =
            partition_with_runs(PartitionId(0), Offset::ZERO, limits, Arc::clone(&budget), Box::new(ids));
        let (seam, captures) = Seam::new(Offset::ZERO);
        let seam = Arc::new(seam);
        let mut rounds = Rounds::new((Arc::clone(&seam), captures), store, keeper);
        let records_of_memory = LIMIT / (ROWS as u64 * ROW_BYTES);
        (0..records_of_memory).for_each(|_| apply(&mut writer, &seam));

        rounds.ask();
        seam.offer(&writer);
        let captured = rounds.take().expect("it was asked for");
        let state = Arc::clone(&captured.state);
        let writing = thread::spawn(move || {
            let written = rounds.write(&captured, &mut |_| true);
            (rounds, written)
        });
        began.recv().unwrap();
        for _ in 0..2 * records_of_memory {
            apply(&mut writer, &seam);
            assert!(!budget.is_exhausted(), "{} of {LIMIT} used, {} retired", budget.used(), budget.retired());
        }
        assert!(state.is_gone(), "{} retired", budget.retired());
        assert!(budget.retired() < LIMIT / 16, "{} retired", budget.retired());

        drop(end);
        let (mut rounds, written) = writing.join().unwrap();
        assert!(matches!(written, Err(NotWritten::Checkpoint(CheckpointError::Stopped))), "{written:?}");
        rounds.ask();
        seam.offer(&writer);
        let captured = rounds.take().expect("it was asked for");
        rounds.write(&captured, &mut |_| true).expect("the disk is back");
        assert_eq!(rounds.generations().len(), 1);
    }
}
