//! t-digests of a metric by group.
//!
//! What a digest answers depends on the order in which it took values and other digests, so there is one: a task's values of
//! a group in the order of rows, then tasks, tables and partitions in canonical order. Small groups keep their values until
//! there are [`VALUES_MAX`] of them: most groups of a query with many have few.

use std::collections::BTreeMap;

use kernels::{Groups, Rows};
use sketch::TDigest;

use crate::wire::{Reader, WireError, Writer, read_listed, read_sketches, write_listed, write_sketches};

/// Values of a group that are kept as they are, at most.
const VALUES_MAX: usize = 256;

/// Digests and values by group.
#[derive(Debug, Clone, Default)]
pub(crate) struct Digests {
    /// Group and value, for each group in canonical order.
    values: Vec<(u32, f64)>,
    digests: BTreeMap<u32, TDigest>,
}

impl Digests {
    /// Takes the present values of rows of a chunk.
    pub(crate) fn add(&mut self, of: Groups<'_>, rows: Rows<'_>, values: &[f64]) {
        kernels::list_values(of, rows, values, &mut self.values);
    }

    /// Adds what each group `g` of `other` has to group `map[g]` here; a group that maps to `u32::MAX` has nothing.
    pub(crate) fn absorb(&mut self, other: &Self, map: &[u32]) {
        for (&group, digest) in &other.digests {
            self.digests.entry(map[group as usize]).or_default().merge(digest);
        }
        let moved = other.values.iter().map(|&(group, value)| (map[group as usize], value));
        self.values.extend(moved.filter(|&(group, _)| group != u32::MAX));
        self.settle();
    }

    /// About the value of rank `q` in each of `groups` groups; NaN where there is none.
    pub(crate) fn quantiles(&mut self, groups: usize, q: f64) -> Vec<f64> {
        self.values.sort_by_key(|&(group, _)| group);
        for run in self.values.chunk_by(|a, b| a.0 == b.0) {
            let digest = self.digests.entry(run[0].0).or_default();
            run.iter().for_each(|&(_, value)| digest.add(value));
        }
        self.values.clear();
        let mut answers = vec![f64::NAN; groups];
        for (&group, digest) in &mut self.digests {
            answers[group as usize] = digest.quantile(q).unwrap_or(f64::NAN);
        }
        answers
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.values) + self.digests.values().map(TDigest::bytes).sum::<usize>()
    }

    /// Writes all that it has.
    pub(crate) fn write(&self, out: &mut Writer) {
        let Self { values, digests } = self;
        write_listed(out, values);
        write_sketches(out, digests.iter().map(|(&group, digest)| (group, digest.to_bytes())));
    }

    /// What [`Digests::write`] wrote of so many groups.
    pub(crate) fn read(from: &mut Reader<'_>, groups: usize) -> Result<Self, WireError> {
        let values = read_listed(from, groups)?;
        let digests: BTreeMap<u32, TDigest> = read_sketches(from, groups, TDigest::from_bytes)?.collect();
        if digests.values().any(|digest| digest.count() == 0) {
            return Err(WireError::Invalid("a digest is of no value"));
        }
        Ok(Self { values, digests })
    }

    /// Makes digests of groups with many values.
    fn settle(&mut self) {
        // Stable: the order of a group's values stays.
        self.values.sort_by_key(|&(group, _)| group);
        let mut kept = Vec::new();
        for run in self.values.chunk_by(|a, b| a.0 == b.0) {
            if run.len() <= VALUES_MAX {
                kept.extend_from_slice(run);
                continue;
            }
            let digest = self.digests.entry(run[0].0).or_default();
            run.iter().for_each(|&(_, value)| digest.add(value));
            digest.shrink();
        }
        self.values = kept;
    }
}
