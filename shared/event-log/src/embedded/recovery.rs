//! A start: what is on disk becomes what readers see.
//!
//! 1. Of all files but the last only the header is read: the next file's header says where it ends and where the
//!    partitions stand after it.
//! 2. The last file is read whole, unless it was closed in order. What a crash left torn is cut off; what stays of the
//!    part that may not have been synced, the header of a file without records included, is written once more and
//!    synced, for a system that once failed to sync may show what its disk does not hold.
//! 3. Row counts are those stored for the newest file, and the rows of the records from there on.
//! 4. A start appends to no old file.
//! 5. What contradicts itself is an error: a start never guesses an offset.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    path::PathBuf,
    sync::Arc,
};

use super::{
    appender::{SPARES_MAX, store_index, store_totals},
    config::{OpenError, Recovery},
    reader::stored_index,
    scan::{Scan, ScanOf, holds_frame, scan},
    segment::{SegmentHeader, index_name, log_name, number_of, records_at, spare_name, totals_name},
    store::{SealedFile, Store},
    totals::{FileRows, RowTotals, TotalsAt},
};
use crate::files::{LogFile, OpenMode, read_full_at, write_all_at};

const REWRITE_BYTES: usize = 4 << 20;

/// What is in the directory, by the names of its files.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    /// Numbers of the files of records, ascending.
    pub(crate) logs: Vec<u64>,
    indexes: Vec<u64>,
    totals: Vec<u64>,
    /// Numbers of files that wait for their next life.
    pub(crate) spares: Vec<u64>,
}

impl Inventory {
    /// Sorts the names of a directory.
    pub(crate) fn of(names: &[String]) -> Self {
        let numbers = |ending| {
            let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name, ending)).collect();
            numbers.sort_unstable();
            numbers
        };
        Self { logs: numbers("log"), indexes: numbers("idx"), totals: numbers("rows"), spares: numbers("spare") }
    }

    /// Removes what belongs to nothing: indexes and row counts without a file, spares beyond their bound.
    pub(crate) fn sweep(&mut self, store: &Store) {
        for orphan in self.indexes.iter().filter(|number| !self.logs.contains(number)) {
            let _ = store.files.remove(&store.dir.join(index_name(*orphan)));
        }
        // Those of the file that comes next are of use to every start until it is there.
        let next = self.logs.last().map(|last| last + 1);
        for orphan in self.totals.iter().filter(|number| !self.logs.contains(number) && Some(**number) != next) {
            let _ = store.files.remove(&store.dir.join(totals_name(*orphan)));
        }
        for spare in self.spares.split_off(self.spares.len().min(SPARES_MAX)) {
            let _ = store.files.remove(&store.dir.join(spare_name(spare)));
        }
    }
}

/// Brings the store to what is on disk.
///
/// # Errors
/// The disk failed, or what it holds contradicts itself.
pub(crate) fn recover(store: &Store, logs: &[u64], partitions: usize) -> Result<Recovery, OpenError> {
    let mut headers = Vec::with_capacity(logs.len());
    for number in logs {
        match header_of(store, *number, partitions)? {
            Some(header) => headers.push(header),
            None if Some(number) == logs.last() => discard_unborn(store, *number, partitions)?,
            None => return Err(damaged(store, *number, "its header, in both copies")),
        }
    }
    let mut recovery = Recovery { files: headers.len() as u64, ..Recovery::default() };
    let mut sealed = VecDeque::with_capacity(headers.len());
    for pair in headers.windows(2) {
        let [file, next] = pair else { unreachable!("windows of two") };
        if next.previous != file.number {
            return Err(damaged(store, next.number, "it does not follow the file before it; a file is missing"));
        }
        let SegmentHeader { number, base, .. } = file.clone();
        sealed.push_back(Arc::new(SealedFile { number, end: next.previous_end, base, ends: next.base.clone() }));
    }
    let mut rows_of_last = None;
    if let Some(last) = headers.last() {
        let (file, rows) = recover_last(store, last, &mut recovery)?;
        sealed.push_back(Arc::new(file));
        rows_of_last = rows;
    }
    let (totals, next) = recover_totals(store, &headers, &sealed, rows_of_last)?;
    let mut state = store.lock();
    if let Some(last) = sealed.back() {
        state.ends.clone_from(&last.ends);
    }
    state.files = sealed;
    state.totals = totals;
    drop(state);
    if let Some(next) = next {
        store_totals(store, next);
    }
    Ok(recovery)
}

/// The row counts at the end of the last file; with the place that they should be stored for, unless they are.
fn recover_totals(
    store: &Store,
    headers: &[SegmentHeader],
    sealed: &VecDeque<Arc<SealedFile>>,
    mut rows_of_last: Option<FileRows>,
) -> Result<(RowTotals, Option<TotalsAt>), OpenError> {
    let Some(last) = sealed.back() else { return Ok((RowTotals::default(), None)) };
    let next = TotalsAt { number: last.number + 1, previous_end: last.end };
    if let Some(totals) = stored_totals(store, next)? {
        return Ok((totals, None));
    }
    // Back to the newest file whose counts are known, then on over its records and those of the files after it.
    let mut known = None;
    for (at, header) in headers.iter().enumerate().rev() {
        let first = header.previous == 0;
        let place = TotalsAt { number: header.number, previous_end: header.previous_end };
        let totals = if first { Some(RowTotals::default()) } else { stored_totals(store, place)? };
        known = totals.map(|totals| (at, totals));
        if known.is_some() {
            break;
        }
    }
    let (from, mut totals) = known.unwrap_or_else(|| {
        tracing::error!("event log: the row counts of released records are lost; ledgers will not balance");
        (0, RowTotals::default())
    });
    for file in sealed.iter().skip(from) {
        let rows = match rows_of_last.take_if(|_| file.number == last.number) {
            Some(rows) => rows,
            None => scanned_rows(store, file).map_err(OpenError::at(path_of(store, file.number)))?,
        };
        totals.add_file(&rows);
    }
    Ok((totals, Some(next)))
}

/// The row counts that are stored for a place; `None` where there are none, or damaged ones.
///
/// # Errors
/// The disk failed: what cannot be read now is not gone, and may be all that is known of records that are.
fn stored_totals(store: &Store, at: TotalsAt) -> Result<Option<RowTotals>, OpenError> {
    let path = store.dir.join(totals_name(at.number));
    let read = || {
        let file = store.files.open(&path, OpenMode::Read)?;
        let len = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut bytes = vec![0; len];
        let filled = read_full_at(&*file, &mut bytes, 0)?;
        bytes.truncate(filled);
        io::Result::Ok(bytes)
    };
    match read() {
        Ok(bytes) => Ok(RowTotals::decode(&bytes, at)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OpenError::at(path)(error)),
    }
}

fn scanned_rows(store: &Store, sealed: &SealedFile) -> io::Result<FileRows> {
    let file = store.files.open(&path_of(store, sealed.number), OpenMode::Read)?;
    Ok(scan(&*file, ScanOf::sealed(sealed, store.frame_key, file.len()?))?.rows)
}

fn header_of(store: &Store, number: u64, partitions: usize) -> Result<Option<SegmentHeader>, OpenError> {
    let path = path_of(store, number);
    let read = || {
        let file = store.files.open(&path, OpenMode::Read)?;
        let mut bytes = vec![0; usize::try_from(records_at(partitions)).expect("a header fits in memory")];
        let filled = read_full_at(&*file, &mut bytes, 0)?;
        bytes.truncate(filled);
        io::Result::Ok(bytes)
    };
    let bytes = read().map_err(OpenError::at(path.clone()))?;
    Ok(SegmentHeader::decode(&bytes, partitions).filter(|header| header.number == number))
}

/// Removes a file whose header was never made durable, so that it holds no record.
fn discard_unborn(store: &Store, number: u64, partitions: usize) -> Result<(), OpenError> {
    let path = path_of(store, number);
    let look = || {
        let file = store.files.open(&path, OpenMode::Read)?;
        holds_frame(&*file, store.frame_key, number, records_at(partitions))
    };
    if look().map_err(OpenError::at(path.clone()))? {
        return Err(damaged(store, number, "its header, in both copies, though it holds records"));
    }
    store.files.remove(&path).map_err(OpenError::at(path))
}

/// Reads, mends and seals the file that was written last; with the rows of its records, if it had to be read.
fn recover_last(
    store: &Store,
    header: &SegmentHeader,
    recovery: &mut Recovery,
) -> Result<(SealedFile, Option<FileRows>), OpenError> {
    let SegmentHeader { number, base, .. } = header.clone();
    let path = path_of(store, number);
    let open = || {
        let file = store.files.open(&path, OpenMode::ReadWrite)?;
        let len = file.len()?;
        io::Result::Ok((file, len))
    };
    let (file, len) = open().map_err(OpenError::at(path.clone()))?;
    if let Some((index, end)) = stored_index(store, number, base.clone()).filter(|(_, end)| *end <= len) {
        return Ok((SealedFile { number, end, base, ends: index.ends() }, None));
    }
    let (frame_key, start) = (store.frame_key, records_at(base.len()));
    let of = ScanOf { number, frame_key, start, limit: len, sealed: false, base: base.clone() };
    let found = scan(&*file, of).map_err(OpenError::at(path.clone()))?;
    if found.unattributed {
        return Err(damaged(store, number, "records that were synced, and it cannot be told of which partitions"));
    }
    mend(&*file, &found, records_at(base.len())).map_err(OpenError::at(path))?;
    recovery.cut_bytes = found.cut_bytes;
    recovery.damaged_records = found.damaged;
    store_index(store, number, found.end, &found.index);
    Ok((SealedFile { number, end: found.end, base, ends: found.index.ends() }, Some(found.rows)))
}

/// Cuts off what is torn and makes sure of what is not (rule 2). Records begin at `start`.
fn mend(file: &dyn LogFile, found: &Scan, start: u64) -> io::Result<()> {
    file.truncate(found.end)?;
    // That the header was synced is known by the first record alone.
    let mut position = if found.end == start { 0 } else { found.durable_to };
    let mut bytes = vec![0; REWRITE_BYTES];
    while position < found.end {
        let len = REWRITE_BYTES.min(usize::try_from(found.end - position).unwrap_or(REWRITE_BYTES));
        let filled = read_full_at(file, &mut bytes[..len], position)?;
        if filled == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        write_all_at(file, &mut [IoSlice::new(&bytes[..filled])], position)?;
        position += filled as u64;
    }
    file.sync_data()
}

fn path_of(store: &Store, number: u64) -> PathBuf {
    store.dir.join(log_name(number))
}

fn damaged(store: &Store, number: u64, what: &'static str) -> OpenError {
    OpenError::Damaged { path: path_of(store, number), what }
}
