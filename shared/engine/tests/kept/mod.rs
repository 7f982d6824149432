//! Checkpoints in memory.
#![allow(dead_code, reason = "each test uses some of it")]

use std::{collections::HashMap, ops::Range};

use engine::{PieceKind, PieceName, Pieces, RestoreError, Writer};

/// Parts of a piece: the items that each has, and its bytes.
type Parts = Vec<(Range<u64>, Vec<u8>)>;

/// Pieces in memory, each with its parts.
#[derive(Clone, Default)]
pub(crate) struct Kept {
    kinds: Vec<PieceKind>,
    pub(crate) parts: Vec<Vec<Vec<u8>>>,
    /// What the parts of a piece of some name are good for.
    known: HashMap<PieceName, Parts>,
}

impl Kept {
    /// A checkpoint of `writer`. What an earlier one has is taken from it; the rest is cut into parts of `step` items.
    pub(crate) fn of(writer: &Writer, before: &Self, step: u64) -> Self {
        let capture = writer.capture();
        assert_eq!((capture.partition(), capture.next_offset()), (writer.partition(), writer.next_offset()));
        let mut kept = Self::default();
        for piece in capture.pieces() {
            let mut parts = piece.name().and_then(|name| before.known.get(&name).cloned()).unwrap_or_default();
            let mut from = parts.last().map_or(0, |(range, _)| range.end);
            while from < piece.items() {
                let range = from..(from + step).min(piece.items());
                let mut bytes = Vec::new();
                piece.encode(range.clone(), &mut bytes);
                from = range.end;
                parts.push((range, bytes));
            }
            kept.kinds.push(piece.kind());
            kept.parts.push(parts.iter().map(|(_, bytes)| bytes.clone()).collect());
            if let Some(name) = piece.name() {
                assert!(kept.known.insert(name, parts).is_none(), "a piece comes once");
            }
        }
        kept
    }

    /// What is known of the pieces stays known by their new names.
    pub(crate) fn rename(&mut self, names: &[(u32, PieceName)]) {
        self.known.clear();
        for (piece, name) in names {
            let mut from = 0;
            let parts = self.parts[*piece as usize].iter().map(|bytes| {
                let items = match self.kinds[*piece as usize] {
                    PieceKind::Segment => u32::from_le_bytes(*bytes[4..].first_chunk().unwrap()) - from as u32,
                    PieceKind::Rollup => 1,
                    _ => u32::from_le_bytes(*bytes[4..].first_chunk().unwrap()),
                };
                let range = from..from + u64::from(items);
                from = range.end;
                (range, bytes.clone())
            });
            self.known.insert(*name, parts.collect());
        }
    }
}

impl Pieces for Kept {
    fn kinds(&self) -> &[PieceKind] {
        &self.kinds
    }

    fn read(
        &mut self,
        piece: u32,
        take: &mut dyn FnMut(&[u8]) -> Result<(), RestoreError>,
    ) -> Result<(), RestoreError> {
        self.parts[piece as usize].iter().try_for_each(|part| take(part))
    }
}
