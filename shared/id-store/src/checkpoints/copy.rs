//! What a checkpoint writes of a state, copied in passing.

use std::{collections::VecDeque, ops::Range};

use engine::{Capture, Charge, Piece, PieceKind, PieceName};

use super::{
    lent::Lent,
    manifest::{Part, PieceParts},
    packer::{Packer, WRITE_BYTES},
    plan::Step,
    store::CheckpointError,
};

/// Memory that copies keep from one to the next, while a checkpoint is written: a full segment of rows with some columns.
const KEPT_BYTES: usize = 8 * WRITE_BYTES;

/// A piece and what becomes of its items.
pub(super) struct PlannedPiece {
    pub(super) kind: PieceKind,
    pub(super) name: Option<PieceName>,
    pub(super) steps: Vec<Step>,
}

impl PlannedPiece {
    pub(super) fn of(piece: &Piece<'_>, steps: Vec<Step>) -> Self {
        Self { kind: piece.kind(), name: piece.name(), steps }
    }
}

/// A part that is to be written: which one of which piece.
struct Place {
    piece: usize,
    step: usize,
    items: Range<u64>,
}

/// Writes what is planned of a state; the parts of each piece. The memory of the copies counts while there are some.
///
/// # Errors
/// Those of [`Packer::write`]; [`CheckpointError::Stopped`] where the state was let go of.
pub(super) fn write_planned(
    planned: &[PlannedPiece],
    state: &Lent,
    packer: &mut Packer<'_, '_>,
) -> Result<Vec<PieceParts>, CheckpointError> {
    let kept = |step: &Step| if let Step::Keep(part) = step { Some(*part) } else { None };
    let mut parts: Vec<Vec<Option<Part>>> =
        planned.iter().map(|piece| piece.steps.iter().map(kept).collect()).collect();
    let mut charge = Charge::new(state.budget(), 0);
    let mut copies = Copies::default();
    // What lasts and what does not lie apart: so whole packs end with the generation, and others stay as they are.
    for lasts in [true, false] {
        let mut waiting = places(planned, lasts);
        while !waiting.is_empty() {
            state.look(|capture| copies.fill(capture, &mut waiting))?;
            charge.set(copies.bytes.capacity() as u64);
            let mut begin = 0;
            for (Place { piece, step, items }, end) in copies.parts.drain(..) {
                parts[piece][step] = Some(packer.write(&copies.bytes[begin..end], items.end)?);
                begin = end;
            }
        }
        packer.end_pack()?;
    }
    let all = |parts: Vec<Option<Part>>| parts.into_iter().map(|part| part.expect("kept, or written")).collect();
    Ok(planned.iter().zip(parts).map(|(piece, parts)| PieceParts { kind: piece.kind, parts: all(parts) }).collect())
}

/// What is to be written of the pieces that have names, or of the others, in order.
fn places(planned: &[PlannedPiece], lasts: bool) -> VecDeque<Place> {
    let chosen = planned.iter().enumerate().filter(|(_, piece)| piece.name.is_some() == lasts);
    let places = chosen.flat_map(|(piece, planned)| {
        planned.steps.iter().enumerate().filter_map(move |(step, what)| match what {
            Step::Keep(_) => None,
            Step::Write(items) => Some(Place { piece, step, items: items.clone() }),
        })
    });
    places.collect()
}

/// Parts that were copied, one after the other, each with where it ends.
#[derive(Default)]
struct Copies {
    bytes: Vec<u8>,
    parts: Vec<(Place, usize)>,
}

impl Copies {
    /// Copies the next parts: until there is enough to write, at least one.
    fn fill(&mut self, capture: &Capture, waiting: &mut VecDeque<Place>) {
        // Memory that is given back after each long part is zeroed by the system for the next one, which takes longer than
        // the copying. A part that is out of proportion, once, is no reason to keep so much.
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        let pieces = capture.pieces();
        while self.bytes.len() < WRITE_BYTES
            && let Some(place) = waiting.pop_front()
        {
            pieces[place.piece].encode(place.items.clone(), &mut self.bytes);
            self.parts.push((place, self.bytes.len()));
        }
    }
}
