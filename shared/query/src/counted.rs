//! The counts of one group, of which the greatest are looked for. A line of a million counts is looked through block by block,
//! by their maxima, and never listed as a whole.

use std::cmp::Reverse;

use kernels::BLOCK_COUNTS;

/// How often each number stands in a group.
#[derive(Debug)]
pub(crate) enum Counted<'a> {
    Line(Line<'a>),
    /// Numbers and counts.
    List(&'a [(u32, u64)]),
}

/// Counts of consecutive numbers, of which those that are 0 are none.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    first: u32,
    counts: &'a [u32],
    maxima: Vec<u32>,
}

impl<'a> Counted<'a> {
    /// The counts of the numbers from `first` on.
    pub(crate) fn of_line(first: u32, counts: &'a [u32]) -> Self {
        let mut maxima = vec![0; counts.len().div_ceil(BLOCK_COUNTS)];
        kernels::block_maxima(counts, &mut maxima);
        Self::Line(Line { first, counts, maxima })
    }

    /// How many numbers were counted.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Line(line) => kernels::count_nonzero(line.counts),
            Self::List(list) => list.len(),
        }
    }

    /// Whether none was.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Line(line) => line.maxima.iter().all(|&most| most == 0),
            Self::List(list) => list.is_empty(),
        }
    }

    /// The count of that rank, from 1 on, among all in descending order; 0 where there are fewer.
    pub(crate) fn of_rank(&self, rank: usize) -> u64 {
        let mut counts = Vec::new();
        self.leaders(rank, |_, count| counts.push(count));
        match counts.len() {
            few if few < rank => 0,
            _ => *counts.select_nth_unstable_by_key(rank - 1, |&count| Reverse(count)).1,
        }
    }

    /// How many numbers count more than that.
    pub(crate) fn above(&self, count: u64) -> usize {
        let mut above = 0;
        match u32::try_from(count.saturating_add(1)) {
            Ok(least) => self.from(least, |_, _| above += 1),
            Err(_) => self.from(u32::MAX, |_, more| above += usize::from(more > count)),
        }
        above
    }

    /// Calls `take` for the first `ranks` numbers in descending order of their counts, and for some of the others, in any
    /// order; each with its count.
    pub(crate) fn leaders(&self, ranks: usize, take: impl FnMut(u32, u64)) {
        let least = match self {
            // As many blocks have a number that counts as much.
            Self::Line(line) if line.maxima.len() > ranks => {
                let mut maxima = line.maxima.clone();
                *maxima.select_nth_unstable_by_key(ranks.max(1) - 1, |&count| Reverse(count)).1
            }
            _ => 1,
        };
        self.from(least.max(1), take);
    }

    /// Calls `take` for the numbers that count so much at least, which is more than 0.
    fn from(&self, least: u32, mut take: impl FnMut(u32, u64)) {
        match self {
            Self::Line(Line { first, counts, maxima }) => {
                for (at, block) in counts.chunks(BLOCK_COUNTS).enumerate().filter(|(at, _)| maxima[*at] >= least) {
                    let first = first + (at * BLOCK_COUNTS) as u32;
                    let found = (first..).zip(block).filter(|(_, count)| **count >= least);
                    found.for_each(|(number, &count)| take(number, count.into()));
                }
            }
            Self::List(list) => {
                let found = list.iter().filter(|(_, count)| *count >= least.into());
                found.for_each(|&(number, count)| take(number, count));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Goal: a line and the list of its counts say the same: how many there are, which count has a rank, how many are above a
        /// count; and the leaders of either hold the first so many.
        #[test]
        fn lines_say_what_lists_say(
            counts in prop::collection::vec(prop_oneof![3 => Just(0_u32), 3 => 1..5_u32, 1 => any::<u32>()], 1..1_000),
            rank in 1..40_usize,
            above in prop_oneof![0..6_u64, any::<u32>().prop_map(u64::from), Just(u64::from(u32::MAX)), Just(u64::MAX)],
        ) {
            let list: Vec<(u32, u64)> =
                (7..).zip(&counts).filter(|(_, count)| **count > 0).map(|(n, &count)| (n, count.into())).collect();
            let mut ranked = list.clone();
            ranked.sort_by_key(|&(number, count)| (Reverse(count), number));
            for counted in [Counted::of_line(7, &counts), Counted::List(&list)] {
                prop_assert_eq!(counted.len(), list.len());
                prop_assert_eq!(counted.of_rank(rank), ranked.get(rank - 1).map_or(0, |&(_, count)| count));
                prop_assert_eq!(counted.above(above), list.iter().filter(|(_, count)| *count > above).count());
                let mut leaders = Vec::new();
                counted.leaders(rank, |number, count| leaders.push((number, count)));
                leaders.sort_by_key(|&(number, count)| (Reverse(count), number));
                let least = ranked.get(rank - 1).map_or(0, |&(_, count)| count);
                let first: Vec<_> = ranked.iter().take_while(|(_, count)| *count >= least).collect();
                prop_assert!(leaders.iter().zip(&first).all(|(a, b)| a == *b) && leaders.len() >= first.len());
            }
        }
    }
}
