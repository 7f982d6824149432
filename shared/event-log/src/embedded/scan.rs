//! Finds the records of a file whose index is not at hand.
//!
//! 1. Every frame says up to where the file was durable when it was written. What is damaged below the greatest such
//!    position was synced and is damage; it is kept as such. The first damage behind it is where a crash cut the file
//!    off: that and all behind it goes, for none of it was acked.
//! 2. Offsets that have no frame between two that have are damage too, never renumbered.

use std::io;

use codec::BlockKind;

use super::{
    frame::{self, ALIGN, Frame, FrameKey, HEAD_BYTES, MAGIC},
    index::{Entry, FileIndex},
    segment::{Stand, records_at},
    store::SealedFile,
    totals::FileRows,
};
use crate::files::{LogFile, read_full_at};

const WINDOW_BYTES: usize = 4 << 20;

/// Which part of which file to look at.
#[derive(Debug, Clone)]
pub(crate) struct ScanOf {
    /// The file's number.
    pub(crate) number: u64,
    /// The log's key.
    pub(crate) frame_key: FrameKey,
    /// Where its records begin.
    pub(crate) start: u64,
    /// Where they end at the latest: its length, or what the next file says.
    pub(crate) limit: u64,
    /// Whether all up to the limit was synced.
    pub(crate) sealed: bool,
    /// Where the partitions stand before it.
    pub(crate) base: Vec<Stand>,
}

impl ScanOf {
    /// All of a file that gets no more records and is `len` bytes long.
    pub(crate) fn sealed(file: &SealedFile, frame_key: FrameKey, len: u64) -> Self {
        Self {
            number: file.number,
            frame_key,
            start: records_at(file.base.len()),
            limit: file.end.min(len),
            sealed: true,
            base: file.base.clone(),
        }
    }
}

/// What a file holds.
#[derive(Debug)]
pub(crate) struct Scan {
    /// Its records.
    pub(crate) index: FileIndex,
    /// Their rows, of damaged ones as far as others tell.
    pub(crate) rows: FileRows,
    /// Where its good part ends.
    pub(crate) end: u64,
    /// Up to where it was durable for sure, by its own frames.
    pub(crate) durable_to: u64,
    /// Bytes behind `end` that are not zero.
    pub(crate) cut_bytes: u64,
    /// Records that are damaged or gone.
    pub(crate) damaged: u64,
    /// Whether damage hides records of which it is not known whose they were.
    pub(crate) unattributed: bool,
}

/// Looks for records.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn scan(file: &dyn LogFile, of: ScanOf) -> io::Result<Scan> {
    let mut window = Window { file, limit: of.limit, start: 0, bytes: Vec::new() };
    let mut found = Vec::new();
    let (mut position, mut durable_to) = (of.start, if of.sealed { of.limit } else { of.start });
    while position + HEAD_BYTES as u64 <= of.limit {
        let Some(next) = Frame::decode(window.get(position, HEAD_BYTES)?, of.frame_key, of.number) else {
            let end = next_frame(&mut window, position + ALIGN, of.frame_key, of.number)?;
            found.push(Found::Damage { position, end });
            position = end;
            continue;
        };
        durable_to = durable_to.max(next.durable_to);
        let stored = next.stored_bytes();
        let body = window.get(position + HEAD_BYTES as u64, next.header.body_len as usize)?;
        let whole = next.is_body(body);
        found.push(Found::Frame { position, frame: next, whole });
        position = (position + stored).min(of.limit);
    }
    let cut = found.iter().find(|found| found.is_bad() && found.position() >= durable_to).map(Found::position);
    let end = cut.unwrap_or(if of.sealed { of.limit } else { position });
    let mut scan = Build::new(of.base).build(&mut window, found.iter().take_while(|found| found.position() < end))?;
    scan.end = end;
    scan.durable_to = durable_to.min(end);
    scan.cut_bytes = last_byte(&mut window, end)? - end;
    Ok(scan)
}

/// Whether any record of file `number` lies in the file from `start` on.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn holds_frame(file: &dyn LogFile, frame_key: FrameKey, number: u64, start: u64) -> io::Result<bool> {
    let limit = file.len()?;
    let mut window = Window { file, limit, start: 0, bytes: Vec::new() };
    Ok(next_frame(&mut window, start, frame_key, number)? < limit)
}

/// What a pass over the file comes across.
#[derive(Debug)]
enum Found {
    /// An intact head, with or without an intact body behind it.
    Frame { position: u64, frame: Frame, whole: bool },
    /// No intact head up to `end`.
    Damage { position: u64, end: u64 },
}

impl Found {
    fn position(&self) -> u64 {
        match self {
            Self::Frame { position, .. } | Self::Damage { position, .. } => *position,
        }
    }

    fn is_bad(&self) -> bool {
        !matches!(self, Self::Frame { whole: true, .. })
    }
}

/// Makes an index of what was found.
struct Build {
    index: FileIndex,
    rows: FileRows,
    damaged: u64,
    /// Partitions of which a record may be hidden in damage passed so far.
    suspects: Vec<bool>,
}

impl Build {
    fn new(base: Vec<Stand>) -> Self {
        let suspects = vec![false; base.len()];
        Self { index: FileIndex::new(base), rows: FileRows::default(), damaged: 0, suspects }
    }

    fn build<'a>(mut self, window: &mut Window<'_>, found: impl Iterator<Item = &'a Found>) -> io::Result<Scan> {
        for found in found {
            match *found {
                Found::Frame { position, frame, whole } => {
                    let body = if whole { control_body(window, position, &frame)? } else { &[] };
                    self.frame(position, &frame, whole, body);
                }
                Found::Damage { position, end } => self.damage(window.get(position, HEAD_BYTES)?, end - position),
            }
        }
        let unattributed = self.suspects.contains(&true);
        let Self { index, rows, damaged, .. } = self;
        Ok(Scan { index, rows, end: 0, durable_to: 0, cut_bytes: 0, damaged, unattributed })
    }

    fn frame(&mut self, position: u64, frame: &Frame, whole: bool, control_body: &[u8]) {
        let partition = frame.partition.0 as usize;
        if partition >= self.suspects.len() || frame.offset < self.index.end(partition).next {
            self.damaged += 1;
            return;
        }
        self.damaged += self.index.push_holes(partition, frame.offset) + u64::from(!whole);
        self.index.push(partition, Entry::at(position, frame.header.body_len, frame.append_time));
        self.rows.add(&frame.header, control_body);
        self.suspects[partition] = false;
    }

    fn damage(&mut self, head: &[u8], bytes: u64) {
        if let Some(header) = frame::header_in_damage(head)
            && let partition = header.partition.0 as usize
            && partition < self.suspects.len()
            && frame::stored_bytes(header.body_len) == bytes
        {
            let next = self.index.end(partition).next.next();
            self.damaged += self.index.push_holes(partition, next);
            self.rows.add(&header, &[]);
        } else {
            self.suspects.fill(true);
        }
    }
}

/// The body of a control record; nothing of other records.
fn control_body<'a>(window: &'a mut Window<'_>, position: u64, frame: &Frame) -> io::Result<&'a [u8]> {
    match frame.header.kind {
        BlockKind::Control => window.get(position + HEAD_BYTES as u64, frame.header.body_len as usize),
        BlockKind::Events => Ok(&[]),
    }
}

/// The position of the next intact head from `position` on; the limit where there is none.
fn next_frame(window: &mut Window<'_>, mut position: u64, frame_key: FrameKey, number: u64) -> io::Result<u64> {
    while position + HEAD_BYTES as u64 <= window.limit {
        let bytes = window.get(position, WINDOW_BYTES)?;
        let heads = bytes.len().saturating_sub(HEAD_BYTES - 1);
        let at = (0..heads)
            .step_by(ALIGN as usize)
            .find(|at| bytes[*at..*at + 4] == MAGIC && Frame::decode(&bytes[*at..], frame_key, number).is_some());
        if let Some(at) = at {
            return Ok(position + at as u64);
        }
        position += (heads as u64).next_multiple_of(ALIGN).max(ALIGN);
    }
    Ok(window.limit)
}

/// The position after the last byte that is not zero; `from` where all are.
fn last_byte(window: &mut Window<'_>, from: u64) -> io::Result<u64> {
    let (mut position, mut last) = (from, from);
    while position < window.limit {
        let bytes = window.get(position, WINDOW_BYTES)?;
        if bytes.is_empty() {
            break;
        }
        if let Some(at) = bytes.iter().rposition(|byte| *byte != 0) {
            last = position + at as u64 + 1;
        }
        position += bytes.len() as u64;
    }
    Ok(last)
}

/// The part of the file that is in memory.
struct Window<'a> {
    file: &'a dyn LogFile,
    limit: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// `len` bytes from `position`, or as many as there are before the limit.
    fn get(&mut self, position: u64, len: usize) -> io::Result<&[u8]> {
        let len = len.min(usize::try_from(self.limit.saturating_sub(position)).unwrap_or(usize::MAX));
        let loaded = self.start..self.start + self.bytes.len() as u64;
        if position < loaded.start || position + len as u64 > loaded.end {
            self.bytes.resize(len.max(WINDOW_BYTES), 0);
            let filled = read_full_at(self.file, &mut self.bytes, position)?;
            self.bytes.truncate(filled);
            self.start = position;
        }
        let skip = usize::try_from(position - self.start).unwrap_or(usize::MAX).min(self.bytes.len());
        let end = (skip + len).min(self.bytes.len());
        Ok(&self.bytes[skip..end])
    }
}
