//! Rows that wait to be applied, from the headers of their records: the `in_flight` of the ledger.
//!
//! The records between two offsets never change, so they are looked at piece by piece: under the store's lock only so
//! many that nobody waits for it, and from disk only their heads, without it.

use std::sync::Arc;

use codec::BlockHeader;
use types::{Offset, PartitionId, TableKey};

use super::{
    frame::{Frame, HEAD_BYTES},
    index::{Entry, FileIndex},
    reader::open,
    store::{Located, OpenFile, Place, SealedFile, Store},
};
use crate::{api::ReadError, files::read_full_at};

/// Records that are looked at under the lock at one time, or whose heads are read from disk at one time.
const RECORDS_MAX: usize = 4_096;

/// Some records of a partition, by offset.
pub(crate) struct Waiting<'a> {
    pub(crate) store: &'a Store,
    pub(crate) partition: PartitionId,
    pub(crate) next: Offset,
    pub(crate) end: Offset,
}

/// What a look at the store gave.
enum Look {
    /// The next records, counted in memory.
    Counted {
        rows: u64,
        records: u64,
    },
    OnDisk(Located),
    Unopened(Arc<SealedFile>),
}

impl Waiting<'_> {
    /// Rows of a table in them.
    ///
    /// # Errors
    /// They are gone, damaged, or cannot be read.
    pub(crate) fn rows_of(mut self, key: TableKey) -> Result<u64, ReadError> {
        let mut rows = 0;
        while self.next < self.end {
            rows += self.some_rows_of(key)?;
        }
        Ok(rows)
    }

    fn some_rows_of(&mut self, key: TableKey) -> Result<u64, ReadError> {
        let located = match self.look(key)? {
            Look::Counted { rows, records } => {
                self.next = Offset(self.next.0 + records);
                return Ok(rows);
            }
            Look::OnDisk(located) => located,
            Look::Unopened(sealed) => {
                let file = open(self.store, &sealed).or_else(|error| self.unless_gone(error.into()))?;
                self.in_open(file)
            }
        };
        self.read_heads(&located, key).or_else(|error| self.unless_gone(error))
    }

    fn look(&self, key: TableKey) -> Result<Look, ReadError> {
        let state = self.store.lock();
        let start = state.bounds(self.partition).start;
        if self.next < start {
            return Err(ReadError::Gap { partition: self.partition, wanted: self.next, start });
        }
        if let Some(tail) = state.tail(self.partition, self.next) {
            let (mut rows, mut records) = (0, 0);
            for record in tail.take(self.piece()) {
                records += 1;
                rows += rows_of(&record.header, key);
            }
            return Ok(Look::Counted { rows, records });
        }
        Ok(match state.place(self.partition, self.next) {
            Place::Open(file) => Look::OnDisk(self.in_open(file)),
            Place::Sealed(sealed) => Look::Unopened(sealed),
            Place::Active => {
                let active = state.active.as_ref().expect("a record that is in no sealed file is in the active one");
                let entries = self.entries(&active.index);
                Look::OnDisk(Located { number: active.number, file: active.file.clone(), entries })
            }
        })
    }

    fn in_open(&self, file: OpenFile) -> Located {
        Located { number: file.number, entries: self.entries(&file.index), file: file.file }
    }

    fn entries(&self, index: &FileIndex) -> Vec<Entry> {
        index.from(self.partition.0 as usize, self.next).iter().take(self.piece()).copied().collect()
    }

    /// How many records to look at now.
    fn piece(&self) -> usize {
        usize::try_from(self.end.0 - self.next.0).unwrap_or(usize::MAX).min(RECORDS_MAX)
    }

    fn read_heads(&mut self, located: &Located, key: TableKey) -> Result<u64, ReadError> {
        let mut rows = 0;
        let mut head = [0; HEAD_BYTES];
        for entry in &located.entries {
            let corrupt = ReadError::Corrupt { partition: self.partition, offset: self.next, header: None };
            let Some(position) = entry.position() else { return Err(corrupt) };
            let filled = read_full_at(&*located.file, &mut head, position)?;
            let frame = Frame::decode(&head[..filled], self.store.frame_key, located.number)
                .filter(|frame| frame.partition == self.partition && frame.offset == self.next);
            let Some(Frame { header, .. }) = frame else { return Err(corrupt) };
            rows += rows_of(&header, key);
            self.next = self.next.next();
        }
        Ok(rows)
    }

    /// A file that was released while it was read is a gap, not a damage.
    fn unless_gone<T>(&self, error: ReadError) -> Result<T, ReadError> {
        let start = self.store.lock().bounds(self.partition).start;
        if self.next < start {
            return Err(ReadError::Gap { partition: self.partition, wanted: self.next, start });
        }
        Err(error)
    }
}

fn rows_of(header: &BlockHeader, key: TableKey) -> u64 {
    if header.key == key { u64::from(header.rows) } else { 0 }
}
