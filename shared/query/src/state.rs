//! The states of all groups, column by column: one array per cell, indexed by group.
//!
//! 1. Merging is in the order of the calls: float sums depend on it, so callers keep to the canonical order.
//! 2. A group without a value has count 0, sum 0, minimum +∞ and maximum -∞: values themselves are finite.

use engine::DictionaryView;

use crate::{
    cells::Cell,
    digests::Digests,
    distinct::Distinct,
    pair_counts::PairCounts,
    pair_sets::PairSets,
    quantiles::Quantiles,
    selection::Narrowed,
    top::{Cut, Top},
};

/// The states of one cell.
#[derive(Debug, Clone)]
pub(crate) enum State {
    Count(Vec<u64>),
    Sum {
        sums: Vec<f64>,
        counts: Vec<u64>,
    },
    Min(Vec<f64>),
    Max(Vec<f64>),
    Moments {
        counts: Vec<u64>,
        means: Vec<f64>,
        deviations: Vec<f64>,
    },
    /// Codes of distinct values, before they are strings.
    Sets(PairSets),
    /// Counts of codes, before they are strings.
    Counts(PairCounts),
    Distinct(Distinct),
    Top(Top),
    Quantiles(Quantiles),
    Digests(Digests),
    /// What a further round of a selection found.
    Narrowed(Narrowed),
}

/// What the numbers of dimensions in groups and states are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Codes of dictionaries that somebody else has.
    Codes,
    /// Places in lists of strings that go with them.
    Strings,
}

impl State {
    /// States of `groups` groups that have seen nothing.
    pub(crate) fn new(cell: &Cell, groups: usize, level: Level) -> Self {
        let mut state = match cell {
            Cell::PresentDimension(_) | Cell::PresentMetric(_) | Cell::Frequency { .. } => Self::Count(Vec::new()),
            Cell::Sum(_) => Self::Sum { sums: Vec::new(), counts: Vec::new() },
            Cell::Min(_) => Self::Min(Vec::new()),
            Cell::Max(_) => Self::Max(Vec::new()),
            Cell::Moments(_) => Self::Moments { counts: Vec::new(), means: Vec::new(), deviations: Vec::new() },
            Cell::Distinct(_) if level == Level::Codes => Self::Sets(PairSets::default()),
            Cell::Distinct(_) => Self::Distinct(Distinct::default()),
            Cell::Top { .. } if level == Level::Codes => Self::Counts(PairCounts::default()),
            Cell::Top { .. } => Self::Top(Top::default()),
            Cell::Quantiles { method, .. } => Self::Quantiles(Quantiles::new(*method)),
            Cell::Digest(_) => Self::Digests(Digests::default()),
        };
        state.grow(groups);
        state
    }

    /// Adds groups that have seen nothing, up to `groups` in all.
    pub(crate) fn grow(&mut self, groups: usize) {
        match self {
            Self::Count(counts) => counts.resize(groups, 0),
            Self::Sum { sums, counts } => {
                sums.resize(groups, 0.0);
                counts.resize(groups, 0);
            }
            Self::Min(values) => values.resize(groups, f64::INFINITY),
            Self::Max(values) => values.resize(groups, f64::NEG_INFINITY),
            Self::Moments { counts, means, deviations } => {
                counts.resize(groups, 0);
                means.resize(groups, 0.0);
                deviations.resize(groups, 0.0);
            }
            // A group that they do not name has seen nothing.
            Self::Sets(_)
            | Self::Counts(_)
            | Self::Distinct(_)
            | Self::Top(_)
            | Self::Quantiles(_)
            | Self::Digests(_)
            | Self::Narrowed(_) => {}
        }
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Count(counts) => size_of_val(&**counts),
            Self::Sum { sums, counts } => size_of_val(&**sums) + size_of_val(&**counts),
            Self::Min(values) | Self::Max(values) => size_of_val(&**values),
            Self::Moments { counts, .. } => counts.len() * size_of::<Moments>(),
            Self::Sets(sets) => sets.bytes(),
            Self::Counts(counts) => counts.bytes(),
            Self::Distinct(distinct) => distinct.bytes(),
            Self::Top(top) => top.bytes(),
            Self::Quantiles(quantiles) => quantiles.bytes(),
            Self::Digests(digests) => digests.bytes(),
            Self::Narrowed(narrowed) => narrowed.bytes(),
        }
    }

    /// The state with strings instead of codes, which are those of `dictionary`; `cut` as [`Top::of_codes`] has it.
    pub(crate) fn with_strings(self, dictionary: Option<DictionaryView<'_>>, cut: Option<Cut>) -> Self {
        match (self, dictionary) {
            (Self::Sets(sets), Some(dictionary)) => Self::Distinct(Distinct::of_codes(sets, dictionary)),
            (Self::Sets(_), None) => Self::Distinct(Distinct::default()),
            (Self::Counts(counts), Some(dictionary)) => Self::Top(Top::of_codes(counts, dictionary, cut)),
            (Self::Counts(_), None) => Self::Top(Top::default()),
            (other, _) => other,
        }
    }

    /// Merges the state of each group `at` of `other` into group `map[at]` of this.
    pub(crate) fn absorb(&mut self, other: &Self, map: &[u32]) {
        match (self, other) {
            (Self::Count(into), Self::Count(from)) => each(into, from, map, |into, from| *into += from),
            (Self::Sum { sums, counts }, Self::Sum { sums: more, counts: more_counts }) => {
                each(sums, more, map, |into, from| *into += from);
                each(counts, more_counts, map, |into, from| *into += from);
            }
            (Self::Min(into), Self::Min(from)) => each(into, from, map, |into, from| *into = lesser(*into, from)),
            (Self::Max(into), Self::Max(from)) => each(into, from, map, |into, from| *into = greater(*into, from)),
            (
                Self::Moments { counts, means, deviations },
                Self::Moments { counts: more, means: more_means, deviations: more_deviations },
            ) => {
                for (at, &group) in map.iter().enumerate() {
                    let group = group as usize;
                    let mut into = Moments { count: counts[group], mean: means[group], deviation: deviations[group] };
                    into.absorb(Moments { count: more[at], mean: more_means[at], deviation: more_deviations[at] });
                    (counts[group], means[group], deviations[group]) = (into.count, into.mean, into.deviation);
                }
            }
            (Self::Sets(into), Self::Sets(from)) => into.absorb(from, map),
            (Self::Counts(into), Self::Counts(from)) => into.absorb(from, map),
            (Self::Distinct(into), Self::Distinct(from)) => into.absorb(from, map),
            (Self::Top(into), Self::Top(from)) => into.absorb(from, map),
            (Self::Quantiles(into), Self::Quantiles(from)) => into.absorb(from, map),
            (Self::Digests(into), Self::Digests(from)) => into.absorb(from, map),
            (Self::Narrowed(into), Self::Narrowed(from)) => into.absorb(from),
            _ => unreachable!("states of one plan have the kinds of its cells"),
        }
    }

    /// Merges the state of each group of `other` into the same group of this. For states of a number or a few per group.
    pub(crate) fn absorb_alike(&mut self, other: &Self) {
        match (self, other) {
            (Self::Count(into), Self::Count(from)) => alike(into, from, |into, from| *into += from),
            (Self::Sum { sums, counts }, Self::Sum { sums: more, counts: more_counts }) => {
                alike(sums, more, |into, from| *into += from);
                alike(counts, more_counts, |into, from| *into += from);
            }
            (Self::Min(into), Self::Min(from)) => alike(into, from, |into, from| *into = lesser(*into, from)),
            (Self::Max(into), Self::Max(from)) => alike(into, from, |into, from| *into = greater(*into, from)),
            (into @ Self::Moments { .. }, from @ Self::Moments { counts, .. }) => {
                let same: Vec<u32> = (0..counts.len() as u32).collect();
                into.absorb(from, &same);
            }
            _ => unreachable!("only groups with plain states are laid out"),
        }
    }

    /// The states of these groups. For states of a number or a few per group.
    pub(crate) fn pick(&self, groups: &[u32]) -> Self {
        fn of<T: Copy>(values: &[T], groups: &[u32]) -> Vec<T> {
            groups.iter().map(|&group| values[group as usize]).collect()
        }
        match self {
            Self::Count(counts) => Self::Count(of(counts, groups)),
            Self::Sum { sums, counts } => Self::Sum { sums: of(sums, groups), counts: of(counts, groups) },
            Self::Min(values) => Self::Min(of(values, groups)),
            Self::Max(values) => Self::Max(of(values, groups)),
            Self::Moments { counts, means, deviations } => Self::Moments {
                counts: of(counts, groups),
                means: of(means, groups),
                deviations: of(deviations, groups),
            },
            _ => unreachable!("only groups with plain states are picked from"),
        }
    }
}

/// Count, mean and sum of squared deviations from the mean, of some values.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Moments {
    pub(crate) count: u64,
    pub(crate) mean: f64,
    pub(crate) deviation: f64,
}

impl Moments {
    /// The moments of both sets of values together (Chan, Golub and LeVeque 1979), without cancellation.
    pub(crate) fn absorb(&mut self, other: Self) {
        if self.count == 0 || other.count == 0 {
            if self.count == 0 {
                *self = other;
            }
            return;
        }
        let (a, b) = (self.count as f64, other.count as f64);
        let delta = other.mean - self.mean;
        let share = b / (a + b);
        self.mean += delta * share;
        self.deviation += other.deviation + delta * delta * (a * share);
        self.count += other.count;
    }
}

fn each<T: Copy>(into: &mut [T], from: &[T], map: &[u32], merge: impl Fn(&mut T, T)) {
    for (&value, &group) in from.iter().zip(map) {
        merge(&mut into[group as usize], value);
    }
}

fn alike<T: Copy>(into: &mut [T], from: &[T], merge: impl Fn(&mut T, T)) {
    into.iter_mut().zip(from).for_each(|(into, &from)| merge(into, from));
}

pub(crate) fn lesser(a: f64, b: f64) -> f64 {
    if b < a { b } else { a }
}

pub(crate) fn greater(a: f64, b: f64) -> f64 {
    if b > a { b } else { a }
}
