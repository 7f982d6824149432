//! One run of several: which runs of a set to merge, and the merge, step by step.

use std::{io, ops::Range, sync::Arc};

use engine::{RunFault, RunId};

use crate::{
    files::RunFiles,
    run::Run,
    run_file::{RunOnDisk, RunReader, RunWriter},
};

/// A set to which runs are still added has some more than this at most, whether they are looked into or not.
const RUNS_MAX: usize = 32;
/// One to which none are added any more has as many.
const SEALED_RUNS_MAX: usize = 8;
/// A look into a run takes as long as merging so many ids, about.
const IDS_OF_A_LOOK: usize = 2;
/// Ids that are merged before other work is looked at.
const STEP_IDS: usize = 16_384;

/// Which runs of a set to merge, by their sizes, oldest first. `sealed`: no more come. `looks`: how often a suspect was sought in
/// a further run, since runs were last merged.
///
/// Runs that nobody looks into cost nothing by being many, and are left. Those that are looked into are merged once the
/// looks that fewer runs would have spared took as long as merging takes, as many of the newest as that pays for: whatever comes, that is at
/// most twice what the best choice would have cost (ski rental: Karlin et al., Competitive snoopy caching, 1988, section 2).
///
/// Beyond a number of runs they are merged anyway: of a sealed set all, else the newest ones, from the first that is not larger than all
/// newer ones together. By that a run at least doubles whenever its ids are written again, so that each is written a
/// logarithmic number of times.
pub(crate) fn plan(sizes: &[usize], sealed: bool, looks: usize) -> Option<Range<usize>> {
    let count = sizes.len();
    let newer = |at: usize| sizes[at + 1..].iter().sum::<usize>();
    let paid = looks.saturating_mul(IDS_OF_A_LOOK);
    let from = if sealed && count > SEALED_RUNS_MAX {
        Some(0)
    } else if count >= RUNS_MAX {
        (0..count - 1).find(|at| sizes[*at] <= newer(*at))
    } else {
        (0..count.saturating_sub(1)).find(|at| sizes[*at] + newer(*at) <= paid)
    };
    from.map(|from| from..count)
}

/// Why a merge ended.
pub(crate) enum MergeFault {
    /// What there is cannot be read.
    Read(RunFault),
    /// What is to be cannot be written.
    Write(io::Error),
}

impl From<RunFault> for MergeFault {
    fn from(fault: RunFault) -> Self {
        Self::Read(fault)
    }
}

impl From<io::Error> for MergeFault {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

/// A merge under way.
pub(crate) struct Merge {
    inputs: Vec<RunReader>,
    last: Option<u128>,
    run: RunId,
    writer: RunWriter,
}

impl Merge {
    pub(crate) fn begin(files: &dyn RunFiles, inputs: Vec<Arc<Run>>, output: &Run) -> Result<Self, MergeFault> {
        let writer = RunWriter::create(files, output.id, output.ids)?;
        let inputs = inputs.into_iter().map(RunReader::new).collect::<Result<_, _>>()?;
        Ok(Self { inputs, last: None, run: output.id, writer })
    }

    /// Merges some more; `false` at the end.
    pub(crate) fn step(&mut self) -> Result<bool, MergeFault> {
        for _ in 0..STEP_IDS {
            let heads =
                self.inputs.iter_mut().filter_map(|input| input.peek().map(|(id, content)| (id, content, input)));
            let Some((id, content, least)) = heads.min_by_key(|(id, ..)| *id) else { return Ok(false) };
            if self.last.is_some_and(|last| last >= id) {
                // The runs of a set have no id in common, and each ascends: one of them is not what it should be.
                return Err(MergeFault::Read(RunFault::Damaged(self.run)));
            }
            least.advance()?;
            self.last = Some(id);
            self.writer.push(id, content)?;
        }
        Ok(true)
    }

    pub(crate) fn finish(self) -> Result<RunOnDisk, MergeFault> {
        Ok(self.writer.finish()?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Goal: however runs come, a set that nobody looks into stays at some tens of them, each id is written few times,
        /// and few runs are left at last.
        #[test]
        fn sets_stay_small(sizes in prop::collection::vec(1_usize..10_000, 1..400)) {
            let (mut set, mut written, mut total) = (Vec::<usize>::new(), 0, 0_usize);
            for size in sizes {
                set.push(size);
                total += size;
                if let Some(range) = plan(&set, false, 0) {
                    let merged: usize = set[range.clone()].iter().sum();
                    written += merged;
                    set.splice(range, [merged]);
                }
                let halvings = total.ilog2() as usize;
                prop_assert!(set.len() < RUNS_MAX + halvings, "{set:?}");
                prop_assert!(written <= total * (halvings + 1), "each id is written once per doubling");
            }
            match plan(&set, true, 0) {
                Some(range) => prop_assert_eq!(range, 0..set.len()),
                None => prop_assert!(set.len() <= SEALED_RUNS_MAX, "{set:?}"),
            }
        }

        /// Goal: however often runs are looked into while they come, merging costs no more than the looks did, and where looks go
        /// on, one run is left.
        #[test]
        fn looks_pay_for_merges(steps in prop::collection::vec((1_usize..100, 0_usize..200), 1..60), sealed: bool) {
            let (mut set, mut written, mut looked, mut since) = (Vec::<usize>::new(), 0, 0, 0);
            for (size, looks) in steps {
                // Below the numbers from which runs are merged unasked.
                if set.len() < SEALED_RUNS_MAX {
                    set.push(size);
                }
                if set.len() > 1 {
                    (looked, since) = (looked + looks, since + looks);
                }
                if let Some(range) = plan(&set, sealed, since) {
                    let merged: usize = set[range.clone()].iter().sum();
                    (written, since) = (written + merged, 0);
                    set.splice(range, [merged]);
                }
                prop_assert!(written <= looked * IDS_OF_A_LOOK);
            }
            let all = set.iter().sum();
            prop_assert_eq!(plan(&set, sealed, all), (set.len() > 1).then_some(0..set.len()));
        }
    }

    /// Goal: runs that nobody looks into are merged where they are too many, by size, and those that looks have paid for before.
    #[test]
    fn runs_are_merged_where_they_are_many_or_looked_into() {
        assert_eq!(plan(&[5; 31], false, 0), None);
        assert_eq!(plan(&[5; 32], false, 0), Some(0..32));
        let after_a_merge: Vec<usize> = [400].into_iter().chain([5; 31]).collect();
        assert_eq!(plan(&after_a_merge, false, 0), Some(1..32));
        assert_eq!(plan(&[5; 8], true, 0), None);
        assert_eq!(plan(&[5; 9], true, 0), Some(0..9));
        assert_eq!(plan(&[40, 5, 5], false, 4), None);
        assert_eq!(plan(&[40, 5, 5], false, 5), Some(1..3));
        assert_eq!(plan(&[40, 5, 5], true, 25), Some(0..3));
        assert_eq!(plan(&[40], true, 1_000), None);
    }
}
