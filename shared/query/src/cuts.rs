//! Where tasks end: at places that the segments themselves decide.
//!
//! Counted from the first segment of a range, all ends would move when the range's start moves on to another segment, and no
//! result of a task would be met again ([`crate::TaskKey`]). So each segment draws, by its first row's place in the log,
//! whether a task that is long enough ends behind it: the same on every replica and for every range, so that two ranges
//! soon have the same tasks. (Content-defined chunking: Muthitacharoen, Chen, Mazières, "A Low-bandwidth Network File
//! System", SOSP 2001.)

use types::Offset;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bits of codes up to which the states by them are small.
const SMALL_STATE_BITS: u32 = 16;

/// About the rows of a task, where a state has so many numbers.
pub(crate) fn mean_rows(state: u64) -> usize {
    2 * Length::of(u64::BITS - state.saturating_sub(1).leading_zeros()).least()
}

/// How long tasks are, rows: some 0.2 to 2 ms of work, and few enough results to merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// 2^18 to 2^20; on average 1.5 to 2 times the least.
    Plain,
    /// 2^20 to 2^22 likewise, where a state by code is large: it is cleared, read and merged for each task.
    Long,
}

impl Length {
    /// Of tasks whose codes have so many bits.
    pub(crate) fn of(bits: u32) -> Self {
        if bits > SMALL_STATE_BITS { Self::Long } else { Self::Plain }
    }

    /// Rows with which a task may end; among as many rows of segments one end is drawn.
    const fn least(self) -> usize {
        match self {
            Self::Plain => 1 << 18,
            Self::Long => 1 << 20,
        }
    }

    /// Rows with which a task ends whatever its segments say.
    const fn most(self) -> usize {
        4 * self.least()
    }

    /// Whether a task ends behind its last segment. `rows`: all that it has then. `segment_rows`: those of the segment, whose
    /// first row has the place `origin` in the log.
    pub(crate) fn ends_behind(self, rows: usize, segment_rows: usize, origin: (Offset, u32)) -> bool {
        let (offset, row) = origin;
        let drawn = || xxh3_64_with_seed(&offset.0.to_le_bytes(), row.into()) % self.least() as u64;
        rows >= self.most() || rows >= self.least() && drawn() < segment_rows as u64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The segments behind which tasks end that begin with the segment `first`.
    fn ends(length: Length, segments: &[usize], first: usize) -> BTreeSet<usize> {
        let mut rows = 0;
        let ends = (first..segments.len()).filter(|&at| {
            rows += segments[at];
            let ends = length.ends_behind(rows, segments[at], (Offset(at as u64 * 7), 3));
            if ends {
                rows = 0;
            }
            ends
        });
        ends.collect()
    }

    /// Goal: whatever the sizes of segments, tasks are neither short nor long, and those of two ranges that begin with
    /// different segments are soon the same.
    #[test]
    fn ends_stay_where_they_are() {
        for (length, sizes) in [
            (Length::Plain, &[1 << 17][..]),
            (Length::Plain, &[1 << 14]),
            (Length::Plain, &[300, 1 << 17, 9_000, 70_000]),
            (Length::Long, &[1 << 17]),
        ] {
            let segments: Vec<usize> = sizes.iter().copied().cycle().take((1 << 10) * sizes.len()).collect();
            let rows: usize = segments.iter().sum();
            let all = ends(length, &segments, 0);
            let mean = rows / all.len();
            assert!((length.least() * 4 / 3..length.least() * 5 / 2).contains(&mean), "{mean} of {sizes:?}");
            let mut from = 0;
            for &end in &all {
                let rows: usize = segments[from..=end].iter().sum();
                assert!((length.least()..length.most() + (1 << 17)).contains(&rows), "{rows} of {sizes:?}");
                from = end + 1;
            }
            for first in 1..40 {
                // From their first common end on, two ranges have the same tasks.
                let other = ends(length, &segments, first);
                let common = all.range(first..).position(|end| other.contains(end));
                assert!(common.is_some_and(|at| at <= 8), "{sizes:?} from {first}: {common:?}");
            }
        }
    }
}
