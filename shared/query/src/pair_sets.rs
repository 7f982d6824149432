//! Which codes stand in each group: a matrix of bits where that is small enough, else a list of the pairs that occur.
//! Which of the two it is changes no set. Code 0 is "absent" and in no set.

use engine::Codes;
use kernels::{Groups, Rows};

use crate::{codes::by_width, pair_counts::pair};

/// Words of 64 bits in a matrix, at most: 16 MiB.
const WORDS_MAX: usize = 1 << 21;
/// Bits in a matrix per row of the task that fills it, at most, since they are cleared before and read after.
const BITS_PER_ROW: usize = 64;
/// Pairs that wait to be put in order, at least.
const PENDING_MIN: usize = 1 << 14;

/// Sets of codes by group.
#[derive(Debug, Clone)]
pub(crate) enum PairSets {
    /// `words` words of 64 codes per group.
    Matrix { words: usize, marks: Vec<u64> },
    /// Ascending up to `settled`, each once; the rest in any order.
    List { pairs: Vec<u64>, settled: usize },
}

impl Default for PairSets {
    fn default() -> Self {
        Self::List { pairs: Vec::new(), settled: 0 }
    }
}

impl PairSets {
    /// For the codes 0 to `codes - 1` of `groups` groups, where so many are known, in a task of `rows` rows.
    pub(crate) fn of_codes(groups: Option<usize>, codes: usize, rows: usize) -> Self {
        let words = codes.div_ceil(64);
        let most = (rows.saturating_mul(BITS_PER_ROW) / 64).clamp(1 << 10, WORDS_MAX);
        match groups.and_then(|groups| groups.checked_mul(words)) {
            Some(all) if all <= most => Self::Matrix { words, marks: vec![0; all] },
            _ => Self::default(),
        }
    }

    /// Takes the codes of rows.
    pub(crate) fn add_codes(
        &mut self,
        of: Groups<'_>,
        rows: Rows<'_>,
        codes: Codes<'_>,
        range: std::ops::Range<usize>,
    ) {
        match self {
            Self::Matrix { words, marks } => {
                by_width!(codes, range, |codes| kernels::mark_pairs(of, rows, codes, *words, marks));
            }
            Self::List { pairs, settled } => {
                by_width!(codes, range, |codes| kernels::list_pairs(of, rows, codes, pairs));
                settle_when_long(pairs, settled);
            }
        }
    }

    /// Adds the set of each group `g` of `other` to group `map[g]` here; a group that maps to `u32::MAX` is empty.
    pub(crate) fn absorb(&mut self, other: &Self, map: &[u32]) {
        let groups = map.iter().filter(|&&at| at != u32::MAX).max().map_or(0, |&at| at as usize + 1);
        match other {
            Self::Matrix { words, marks: from } => {
                if let Self::List { pairs, .. } = self
                    && pairs.is_empty()
                {
                    *self = Self::Matrix { words: *words, marks: Vec::new() };
                }
                if let Self::Matrix { words: width, marks } = self {
                    let lines = groups.max(marks.len() / *width);
                    if lines.checked_mul(*words.max(width)).is_some_and(|all| all <= WORDS_MAX) {
                        lay_out(width, marks, *words, lines);
                        return unite(marks, *width, from, *words, map);
                    }
                }
                let (pairs, settled) = self.make_list();
                each(from, *words, |group, code| push(pairs, map, group, code));
                settle_when_long(pairs, settled);
            }
            Self::List { pairs: from, .. } => {
                let (pairs, settled) = self.make_list();
                from.iter().for_each(|&key| push(pairs, map, (key >> 32) as u32, key as u32));
                settle_when_long(pairs, settled);
            }
        }
    }

    /// The sets of each group `g` as those of group `map[g]`; a group that maps to `u32::MAX` is empty.
    pub(crate) fn moved(mut self, map: &[u32]) -> Self {
        // Groups that were empty are left out, and the others stay in order: then lines only move up.
        let kept = map.iter().filter(|&&at| at != u32::MAX);
        if let Self::Matrix { words, marks } = &mut self
            && kept.clone().copied().eq(0..kept.count() as u32)
        {
            let (words, mut end) = (*words, 0);
            for (group, _) in map.iter().enumerate().filter(|(_, at)| **at != u32::MAX) {
                marks.copy_within(group * words..(group + 1) * words, end);
                end += words;
            }
            marks.truncate(end);
            return self;
        }
        let mut into = Self::default();
        into.absorb(&self, map);
        into
    }

    /// Calls `take` for each group whose set is not empty, ascending.
    pub(crate) fn by_group(&mut self, mut take: impl FnMut(u32, CodeSet<'_>)) {
        match self {
            Self::Matrix { words, marks } => {
                for (group, line) in marks.chunks_exact_mut(*words).enumerate() {
                    // Code 0 is "absent".
                    line[0] &= !1;
                    let set = CodeSet::Marks(line);
                    if set.len() > 0 {
                        take(group as u32, set);
                    }
                }
            }
            Self::List { pairs, settled } => {
                settle(pairs, settled);
                for run in pairs.chunk_by(|a, b| a >> 32 == b >> 32) {
                    take((run[0] >> 32) as u32, CodeSet::Pairs(run));
                }
            }
        }
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        let (Self::Matrix { marks: words, .. } | Self::List { pairs: words, .. }) = self;
        size_of_val(&**words)
    }

    fn make_list(&mut self) -> (&mut Vec<u64>, &mut usize) {
        if let Self::Matrix { words, marks } = self {
            let mut pairs = Vec::new();
            each(marks, *words, |group, code| pairs.push(pair(group, code)));
            *self = Self::List { settled: pairs.len(), pairs };
        }
        let Self::List { pairs, settled } = self else { unreachable!("it was made a list") };
        (pairs, settled)
    }
}

/// The codes of a group, ascending, without "absent".
#[derive(Debug, Clone, Copy)]
pub(crate) enum CodeSet<'a> {
    Marks(&'a [u64]),
    Pairs(&'a [u64]),
}

impl CodeSet<'_> {
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Marks(words) => words.iter().map(|word| word.count_ones() as usize).sum(),
            Self::Pairs(pairs) => pairs.len(),
        }
    }

    pub(crate) fn for_each(self, mut take: impl FnMut(u32)) {
        match self {
            Self::Marks(words) => each(words, words.len(), |_, code| take(code)),
            Self::Pairs(pairs) => pairs.iter().for_each(|&pair| take(pair as u32)),
        }
    }
}

/// Calls `take` with each group and code of a matrix, ascending.
fn each(marks: &[u64], words: usize, mut take: impl FnMut(u32, u32)) {
    for (group, line) in marks.chunks_exact(words).enumerate() {
        for (at, &word) in line.iter().enumerate() {
            // Code 0 is "absent".
            let mut rest = if at == 0 { word & !1 } else { word };
            while rest != 0 {
                take(group as u32, at as u32 * 64 + rest.trailing_zeros());
                rest &= rest - 1;
            }
        }
    }
}

/// Makes a matrix at least as wide, and as long as `lines`.
fn lay_out(width: &mut usize, marks: &mut Vec<u64>, words: usize, lines: usize) {
    if words > *width {
        let mut wider = vec![0; lines * words];
        for (into, from) in wider.chunks_exact_mut(words).zip(marks.chunks_exact(*width)) {
            into[..from.len()].copy_from_slice(from);
        }
        (*width, *marks) = (words, wider);
    } else {
        marks.resize(lines * *width, 0);
    }
}

fn unite(marks: &mut [u64], width: usize, from: &[u64], words: usize, map: &[u32]) {
    for (line, &at) in from.chunks_exact(words).zip(map) {
        if at != u32::MAX {
            let into = &mut marks[at as usize * width..][..words];
            into.iter_mut().zip(line).for_each(|(into, from)| *into |= from);
        }
    }
}

fn push(pairs: &mut Vec<u64>, map: &[u32], group: u32, code: u32) {
    match map.get(group as usize) {
        None | Some(&u32::MAX) => {}
        Some(&at) => pairs.push(pair(at, code)),
    }
}

fn settle_when_long(pairs: &mut Vec<u64>, settled: &mut usize) {
    if pairs.len() - *settled >= PENDING_MIN.max(*settled) {
        settle(pairs, settled);
    }
}

fn settle(pairs: &mut Vec<u64>, settled: &mut usize) {
    if *settled < pairs.len() {
        // A stable sort takes what is in order already as it is; the pairs that came since are put in order before.
        pairs[*settled..].sort_unstable();
        pairs.sort();
        pairs.dedup();
        *settled = pairs.len();
    }
}
