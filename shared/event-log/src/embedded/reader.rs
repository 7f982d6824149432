//! Reads a partition: from the tail in memory, else from the files.

use std::{
    io,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use codec::BlockHeader;
use types::{Offset, PartitionId};

use super::{
    frame::{Frame, FrameKey, HEAD_BYTES, header_in_damage, is_placed},
    index::{Entry, FileIndex},
    scan::{ScanOf, scan},
    segment::{index_name, log_name},
    store::{Located, OpenFile, Place, SealedFile, Store},
};
use crate::{
    api::{LogReader, ReadError, Record},
    files::{LogFile, OpenMode, read_full_at},
};

/// Bytes of other partitions that are read along rather than read around.
const SKIP_BYTES_MAX: u64 = 32 << 10;
/// Bytes that one read from disk is about at most.
const CHUNK_BYTES_MAX: u64 = 4 << 20;

/// A reader of one partition.
pub(crate) struct Reader {
    pub(crate) store: Arc<Store>,
    pub(crate) partition: PartitionId,
    pub(crate) next: Offset,
}

impl LogReader for Reader {
    fn position(&self) -> Offset {
        self.next
    }

    fn poll(&mut self, bytes_max: usize, wait: Duration, into: &mut Vec<Record>) -> Result<usize, ReadError> {
        let count = match self.find(bytes_max, wait, into)? {
            Found::Nothing => 0,
            Found::Copied(count) => count,
            Found::OnDisk(place) => self.read(place, bytes_max, into).or_else(|error| self.unless_gone(error))?,
        };
        self.next = Offset(self.next.0 + count as u64);
        Ok(count)
    }
}

/// What a look at the store gave.
enum Found {
    Nothing,
    Copied(usize),
    OnDisk(OnDisk),
}

enum OnDisk {
    Located(Located),
    In(OpenFile),
    Unopened(Arc<SealedFile>),
}

impl Reader {
    fn find(&self, bytes_max: usize, wait: Duration, into: &mut Vec<Record>) -> Result<Found, ReadError> {
        let (began, mut state) = (Instant::now(), self.store.lock());
        loop {
            let bounds = state.bounds(self.partition);
            if self.next < bounds.start {
                return Err(ReadError::Gap { partition: self.partition, wanted: self.next, start: bounds.start });
            }
            if self.next < bounds.end {
                break;
            }
            if state.closed {
                return Err(ReadError::Closed);
            }
            let Some(left) = wait.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) else {
                return Ok(Found::Nothing);
            };
            let grown = self.store.grown(self.partition);
            state = grown.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let copied = state.copy_tail(self.partition, self.next, bytes_max, into);
        if copied > 0 {
            return Ok(Found::Copied(copied));
        }
        Ok(Found::OnDisk(match state.place(self.partition, self.next) {
            Place::Open(open) => OnDisk::In(open),
            Place::Sealed(file) => OnDisk::Unopened(file),
            Place::Active => {
                let active = state.active.as_ref().expect("a record that is in no sealed file is in the active one");
                let entries = first_entries(self.entries(&active.index), bytes_max);
                OnDisk::Located(Located { number: active.number, file: active.file.clone(), entries })
            }
        }))
    }

    fn entries<'a>(&self, index: &'a FileIndex) -> &'a [Entry] {
        index.from(self.partition.0 as usize, self.next)
    }

    fn read(&self, place: OnDisk, bytes_max: usize, into: &mut Vec<Record>) -> Result<usize, ReadError> {
        let in_open_file = |open: OpenFile| Located {
            number: open.number,
            entries: first_entries(self.entries(&open.index), bytes_max),
            file: open.file,
        };
        let located = match place {
            OnDisk::Located(located) => located,
            OnDisk::In(open) => in_open_file(open),
            OnDisk::Unopened(file) => in_open_file(open(&self.store, &file)?),
        };
        let before = into.len();
        let mut rest = located.entries.as_slice();
        while !rest.is_empty() {
            let (run, after) = rest.split_at(run_len(rest));
            match self.read_run(&located, run, Offset(self.next.0 + (into.len() - before) as u64), into) {
                Ok(()) => rest = after,
                // What was read before the damage is handed out first; the next poll meets the damage.
                Err(_) if into.len() > before => break,
                Err(error) => return Err(error),
            }
        }
        Ok(into.len() - before)
    }

    /// Reads records that lie close to each other with one read.
    fn read_run(&self, at: &Located, run: &[Entry], first: Offset, into: &mut Vec<Record>) -> Result<(), ReadError> {
        let corrupt = |offset, header| ReadError::Corrupt { partition: self.partition, offset, header };
        let (Some(start), Some(end)) = (run[0].position(), run[run.len() - 1].end()) else {
            return Err(corrupt(first, None));
        };
        let mut bytes = vec![0; usize::try_from(end - start).map_err(|_| corrupt(first, None))?];
        let filled = read_full_at(&*at.file, &mut bytes, start)?;
        bytes.truncate(filled);
        let bytes = Bytes::from(bytes);
        for (entry, offset) in run.iter().zip(first.0..) {
            let offset = Offset(offset);
            let skip = entry.position().map_or(u64::MAX, |position| position - start);
            let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len());
            let bytes = bytes.slice(skip..);
            let record = record_of(&bytes, self.store.frame_key, at.number, self.partition, offset);
            let header = || header_of(&bytes, at.number, self.partition, offset);
            into.push(record.ok_or_else(|| corrupt(offset, header()))?);
        }
        Ok(())
    }

    /// A file that was released while it was read is a gap, not a damage.
    fn unless_gone(&self, error: ReadError) -> Result<usize, ReadError> {
        let start = self.store.lock().bounds(self.partition).start;
        if self.next < start {
            return Err(ReadError::Gap { partition: self.partition, wanted: self.next, start });
        }
        Err(error)
    }
}

/// A record from its bytes; `None` unless it is intact and the one expected.
fn record_of(bytes: &Bytes, key: FrameKey, file: u64, partition: PartitionId, offset: Offset) -> Option<Record> {
    let frame = Frame::decode(bytes, key, file)?;
    let body_end = HEAD_BYTES + frame.header.body_len as usize;
    let expected = frame.partition == partition && frame.offset == offset && body_end <= bytes.len();
    let body = expected.then(|| bytes.slice(HEAD_BYTES..body_end))?;
    let Frame { append_time, header, .. } = frame;
    frame.is_body(&body).then_some(Record { offset, append_time, header, body })
}

/// The block's header in a damaged record, where it is intact by its own checksum and what stands before it is that of
/// this record: of another one, written to the wrong place, it would tell of the wrong table.
fn header_of(bytes: &[u8], file: u64, partition: PartitionId, offset: Offset) -> Option<Box<BlockHeader>> {
    let header = header_in_damage(bytes).filter(|header| header.partition == partition)?;
    is_placed(bytes, file, partition, offset).then(|| Box::new(header))
}

/// The first entries with about `bytes_max` of bodies; at least one.
fn first_entries(entries: &[Entry], bytes_max: usize) -> Vec<Entry> {
    let bytes_max = (bytes_max as u64).min(CHUNK_BYTES_MAX);
    let mut bytes = 0;
    let fits = |entry: &&Entry| {
        let first = bytes == 0;
        bytes += u64::from(entry.body_len) + 1;
        first || bytes <= bytes_max
    };
    entries.iter().take_while(fits).copied().collect()
}

/// How many of the entries, at least one, to read together.
fn run_len(entries: &[Entry]) -> usize {
    let near = |pair: &[Entry]| match (pair[0].end(), pair[1].position()) {
        (Some(end), Some(next)) => (end..=end + SKIP_BYTES_MAX).contains(&next),
        _ => false,
    };
    1 + entries.windows(2).take_while(|pair| near(pair)).count()
}

/// Opens a sealed file, with its index from beside it, or made again.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn open(store: &Store, sealed: &SealedFile) -> io::Result<OpenFile> {
    let file = store.files.open(&store.dir.join(log_name(sealed.number)), OpenMode::Read)?;
    let index = match stored_index(store, sealed.number, sealed.base.clone()) {
        Some((index, end)) if end == sealed.end && index.ends() == sealed.ends => index,
        _ => scanned_index(store, &*file, sealed)?,
    };
    let open = OpenFile { number: sealed.number, file, index: Arc::new(index) };
    store.keep_open(open.clone());
    Ok(open)
}

/// The index beside a file, with the end of the file's records.
pub(crate) fn stored_index(store: &Store, number: u64, base: Vec<super::segment::Stand>) -> Option<(FileIndex, u64)> {
    let file = store.files.open(&store.dir.join(index_name(number)), OpenMode::Read).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().ok()?).ok()?];
    let filled = read_full_at(&*file, &mut bytes, 0).ok()?;
    FileIndex::decode(&bytes[..filled], number, base)
}

fn scanned_index(store: &Store, file: &dyn LogFile, sealed: &SealedFile) -> io::Result<FileIndex> {
    let mut index = scan(file, ScanOf::sealed(sealed, store.frame_key, file.len()?))?.index;
    for (partition, end) in sealed.ends.iter().enumerate() {
        index.push_holes(partition, end.next);
    }
    Ok(index)
}
