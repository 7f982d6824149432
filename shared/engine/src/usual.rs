//! Which columns new segments have room for.
//!
//! A segment has the columns of the block that it was opened for. A later block with another column closes it, so segments
//! are opened with the columns that blocks usually have. Where segments end decides the bytes of float sums; so what is usual
//! follows from the rows that were accepted and nothing else, neither from segments nor from what has left memory.

use crate::{
    block::Source,
    checkpoint::{Put, RestoreError, Take},
};

/// The columns that blocks brought lately, as one table of a partition knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Usual {
    /// By column.
    columns: Vec<Seen>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Seen {
    /// In this period of rows.
    now: bool,
    /// In the one before.
    before: bool,
}

impl Usual {
    /// A block is to be applied that has these columns.
    pub(crate) fn note(&mut self, sources: &[Source]) {
        self.columns.resize(sources.len().max(self.columns.len()), Seen::default());
        sources.iter().zip(&mut self.columns).for_each(|(source, seen)| seen.now |= *source != Source::Absent);
    }

    /// A period of rows is over: what it had no use for is usual for one more.
    pub(crate) fn end_period(&mut self) {
        self.columns.iter_mut().for_each(|seen| *seen = Seen { now: false, before: seen.now });
    }

    /// Whether new segments have a column.
    pub(crate) fn has(&self, column: usize) -> bool {
        self.columns.get(column).is_some_and(|seen| seen.now || seen.before)
    }

    /// How many columns it knows.
    pub(crate) fn len(&self) -> usize {
        self.columns.len()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.list(self.columns.iter(), |out, seen| out.u8(u8::from(seen.now) | u8::from(seen.before) << 1));
    }

    pub(crate) fn decode(take: &mut Take<'_>) -> Result<Self, RestoreError> {
        let columns = take.list(|take| match take.u8()? {
            bits @ 0..=3 => Ok(Seen { now: bits & 1 != 0, before: bits & 2 != 0 }),
            _ => Err(RestoreError::Malformed("a column is usual in no known way")),
        })?;
        Ok(Self { columns })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Goal: a column is usual from the block that has it to the end of the period after the last that did, and comes back so
    /// from a checkpoint; what a checkpoint of before says is usual for the period that runs.
    #[test]
    fn columns_are_usual_for_a_period_more() {
        let mut usual = Usual::default();
        usual.note(&[Source::Absent, Source::Values(0)]);
        let has = |usual: &Usual| [0, 1, 2].map(|column| usual.has(column));
        assert_eq!(has(&usual), [false, true, false]);
        usual.end_period();
        usual.note(&[Source::Values(0)]);
        assert_eq!(has(&usual), [true, true, false]);
        let mut bytes = Vec::new();
        usual.encode(&mut bytes);
        assert_eq!(Usual::decode(&mut Take::new(&bytes)).unwrap(), usual);
        usual.end_period();
        assert_eq!(has(&usual), [true, false, false]);
        usual.end_period();
        assert_eq!(has(&usual), [false; 3]);
        bytes.clear();
        bytes.list([true, false].iter(), |out, usual| out.bool(*usual));
        let mut usual = Usual::decode(&mut Take::new(&bytes)).unwrap();
        assert_eq!(has(&usual), [true, false, false]);
        usual.end_period();
        assert_eq!(has(&usual), [true, false, false]);
    }
}
