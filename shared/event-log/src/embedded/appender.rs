//! The appender: the one that writes, at any time one thread of those of the log ([`super::pipeline`]).
//!
//! 1. A group is written to one file with one sync, then shown to readers, then acked. So what a caller or a reader
//!    knows of is durable. The group after it may be written before that sync returns; it is synced after it.
//! 2. A file in which a write or a sync failed gets no further record: what the system says of it later is worth
//!    nothing. The next file's header says where its truth ends.
//!    Nor does one after which a file could not be made: what is left of that file says where this one ends.
//! 3. A failed group changes nothing: the next one gets its offsets and its row counts. One that was written meanwhile
//!    stands behind it in the file and so fails with it.
//! 4. Every group tries anew. A disk that has room again, or works again, needs nobody's help.

use std::{
    io,
    sync::{Arc, Mutex},
};

use types::AppenderId;

use super::{
    config::EmbeddedConfig,
    group::{Group, RowCounts, Start},
    index::FileIndex,
    pipeline::{Durable, lock},
    queue::Request,
    segment::{SegmentHeader, Stand, index_name, log_name, records_at, spare_name, totals_name},
    store::{ActiveFile, OpenFile, SealedFile, Store},
    totals::TotalsAt,
};
use crate::{
    clock::Clock,
    files::{LogFile, OpenMode, write_all_at},
};

/// Released files that are kept for their next life: overwriting makes a sync about a third cheaper than writing
/// where nothing was.
pub(crate) const SPARES_MAX: usize = 2;

/// The one that writes.
pub(crate) struct Appender {
    pub(crate) store: Arc<Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: EmbeddedConfig,
    pub(crate) id: AppenderId,
    /// Where the partitions stand after all that was written.
    pub(crate) stands: Vec<Stand>,
    /// The row counts after all that was written.
    pub(crate) rows: RowCounts,
    /// Up to where the active file was durable when that was last asked.
    pub(crate) durable_to: u64,
    pub(crate) active: Option<Active>,
    /// Number and end of the newest file that gets no more records; (0, 0) where there is none.
    pub(crate) newest_sealed: (u64, u64),
    /// Numbers of released files that wait for their next life.
    pub(crate) spares: Vec<u64>,
}

/// The file that is written, as the appender sees it.
pub(crate) struct Active {
    number: u64,
    file: Arc<dyn LogFile>,
    /// Where what was written ends.
    end: u64,
}

impl Appender {
    /// Writes a group behind all that was written, to be synced.
    ///
    /// # Errors
    /// As the system has it; [`Self::start_over`] is to follow.
    pub(crate) fn write(&mut self, requests: &[Request], durable: &Mutex<Durable>) -> io::Result<Group> {
        // Where a sync is in progress, the one before it has said what was durable then.
        if let Ok(mut durable) = durable.try_lock() {
            self.catch_up(&mut durable);
        }
        self.make_room(requests.iter().map(Request::stored_bytes).sum(), durable)?;
        let active = self.active.as_mut().expect("room was made in it");
        let group = Group::place(
            requests,
            Start {
                file: active.number,
                position: active.end,
                durable_to: self.durable_to,
                frame_key: self.store.frame_key,
                appender: self.id,
                now: self.clock.now(),
                stands: &self.stands,
                rows: &self.rows,
            },
        );
        write_all_at(&*active.file, &mut group.parts(), active.end)?;
        active.end += group.bytes;
        self.stands.clone_from(&group.stands);
        self.rows.extend(&group.rows);
        Ok(group)
    }

    /// The file that the last group was written to.
    ///
    /// # Panics
    /// None was written, or it failed.
    pub(crate) fn active_file(&self) -> Arc<dyn LogFile> {
        self.active.as_ref().expect("a group was written").file.clone()
    }

    /// Learns what became of the groups that were synced.
    fn catch_up(&mut self, durable: &mut Durable) {
        if durable.failed {
            self.start_over(durable);
        }
        self.durable_to = durable.end;
    }

    /// Goes back to what is durable, after a failure to write or to sync.
    pub(crate) fn start_over(&mut self, durable: &mut Durable) {
        durable.failed = false;
        self.stands.clone_from(&self.store.lock().ends);
        self.rows.clone_from(&durable.rows);
        let Some(active) = &mut self.active else { return };
        active.end = durable.end;
        // Of use if it works, of no harm if it does not: the next file's header says the same.
        let _ = active.file.truncate(active.end).and_then(|()| active.file.sync_data());
        self.seal_active();
    }

    /// Ends the active file, once what was written to it is durable or failed.
    pub(crate) fn finish(&mut self, durable: &mut Durable) {
        self.catch_up(durable);
        self.seal_active();
    }

    /// Sees to it that there is an active file with room for a group, if need be a new one.
    fn make_room(&mut self, bytes: u64, durable: &Mutex<Durable>) -> io::Result<()> {
        let start = records_at(self.stands.len());
        if let Some(active) = &self.active
            && (active.end == start || active.end + bytes <= self.config.segment_bytes)
        {
            return Ok(());
        }
        // Where the next file begins is known once all of this one is durable.
        let mut durable = lock(durable);
        self.catch_up(&mut durable);
        let previous = self.active.as_ref().map_or(self.newest_sealed, |active| (active.number, active.end));
        let number = previous.0 + 1;
        let header =
            SegmentHeader { number, previous: previous.0, previous_end: previous.1, base: self.stands.clone() };
        let file = self.create(&header, self.config.segment_bytes.max(start + bytes)).inspect_err(|_| {
            // Whatever is there of it never held a record. But its name may come back after a crash, with a header that says
            // where the file before it ends: so that one gets no further record.
            let _ = self.store.files.remove(&self.store.dir.join(log_name(number)));
            self.seal_active();
        })?;
        let index = FileIndex::new(self.stands.clone());
        let next = ActiveFile { number, file: file.clone(), index };
        self.replace_active(Some(next));
        self.active = Some(Active { number, file, end: start });
        durable.end = start;
        self.durable_to = start;
        Ok(())
    }

    /// A new file, durable with its header and name.
    fn create(&mut self, header: &SegmentHeader, len: u64) -> io::Result<Arc<dyn LogFile>> {
        if header.previous > 0 {
            let totals = TotalsAt { number: header.number, previous_end: header.previous_end };
            write_totals(&self.store, totals)?.sync_data()?;
        }
        let Store { files, dir, .. } = &*self.store;
        let path = dir.join(log_name(header.number));
        let mode = match self.spares.pop() {
            Some(spare) if files.rename(&dir.join(spare_name(spare)), &path).is_ok() => OpenMode::ReadWrite,
            _ => OpenMode::Create,
        };
        let file = files.open(&path, mode)?;
        file.allocate(len)?;
        write_all_at(&*file, &mut [io::IoSlice::new(&header.encode())], 0)?;
        file.sync_data()?;
        files.sync_dir(dir)?;
        Ok(file)
    }

    /// Ends the active file where its durable records end. One without records goes.
    fn seal_active(&mut self) {
        let Some(active) = self.active.take() else { return };
        if active.end == records_at(self.stands.len()) {
            let Store { files, dir, .. } = &*self.store;
            // If the name comes back after a crash, it is that of a file without acked records, and the last one.
            if files.remove(&dir.join(log_name(active.number))).is_ok() {
                self.store.lock().active = None;
                return;
            }
        }
        let _ = active.file.truncate(active.end);
        self.active = Some(active);
        self.replace_active(None);
        self.active = None;
    }

    /// Moves the active file to the sealed ones and puts `next` in its place.
    fn replace_active(&mut self, next: Option<ActiveFile>) {
        let mut state = self.store.lock();
        let is_last = next.is_none();
        let sealed = std::mem::replace(&mut state.active, next);
        let (Some(sealed), Some(active)) = (sealed, &self.active) else { return };
        let base = (0..self.stands.len()).map(|partition| sealed.index.base(partition)).collect();
        let ends = sealed.index.ends();
        let entry = SealedFile { number: sealed.number, end: active.end, base, ends };
        state.files.push_back(Arc::new(entry));
        drop(state);
        self.newest_sealed = (active.number, active.end);
        store_index(&self.store, sealed.number, active.end, &sealed.index);
        if is_last {
            store_totals(&self.store, TotalsAt { number: active.number + 1, previous_end: active.end });
        }
        self.store.keep_open(OpenFile { number: sealed.number, file: sealed.file, index: Arc::new(sealed.index) });
        self.drop_released();
    }

    /// Removes files all of whose records were released, oldest first.
    pub(crate) fn drop_released(&mut self) {
        loop {
            let taken = self.store.lock().take_released(self.config.retention_bytes_min);
            let Some(file) = taken else { return };
            if let Err(error) = self.remove(file.number) {
                // It is still there, so it is shown: the files of a log have no gap in their numbers.
                tracing::warn!(%error, file = file.number, "event log: a released file could not be removed");
                self.store.lock().files.push_front(file);
                return;
            }
        }
    }

    fn remove(&mut self, number: u64) -> io::Result<()> {
        let Store { files, dir, .. } = &*self.store;
        // Names go one by one, the one before for good, so that a crash leaves no gap in the numbers.
        files.sync_dir(dir)?;
        let path = dir.join(log_name(number));
        let whole = files.open(&path, OpenMode::Read)?.len()? == self.config.segment_bytes;
        if whole && self.spares.len() < SPARES_MAX {
            files.rename(&path, &dir.join(spare_name(number)))?;
            // One whose old name might come back is left alone until the next start.
            if files.sync_dir(dir).is_ok() {
                self.spares.push(number);
            }
        } else {
            files.remove(&path)?;
        }
        // Without their file they would be swept away at the next start.
        let _ = files.remove(&dir.join(index_name(number)));
        let _ = files.remove(&dir.join(totals_name(number)));
        Ok(())
    }
}

/// Stores the index of a file that gets no more records. A log does without where that fails.
pub(crate) fn store_index(store: &Store, number: u64, end: u64, index: &FileIndex) {
    let write = || {
        let file = store.files.open(&store.dir.join(index_name(number)), OpenMode::Create)?;
        write_all_at(&*file, &mut [io::IoSlice::new(&index.encode(number, end))], 0)
    };
    if let Err(error) = write() {
        tracing::debug!(%error, number, "event log: an index was not stored and will be made again");
    }
}

/// Stores the row counts as of the end of the last file, which spares the next start a look at that file. A log does
/// without where that fails.
pub(crate) fn store_totals(store: &Store, at: TotalsAt) {
    if let Err(error) = write_totals(store, at) {
        tracing::debug!(%error, number = at.number, "event log: row counts were not stored and will be made again");
    }
}

fn write_totals(store: &Store, at: TotalsAt) -> io::Result<Arc<dyn LogFile>> {
    let bytes = store.lock().totals.encode(at);
    let file = store.files.open(&store.dir.join(totals_name(at.number)), OpenMode::Create)?;
    write_all_at(&*file, &mut [io::IoSlice::new(&bytes)], 0)?;
    Ok(file)
}
