//! One run of several: which runs of a set to merge, and the merge, step by step.

use std::{io, ops::Range, sync::Arc};

use engine::{RunFault, RunId};

use crate::{
    files::RunFiles,
    run::Run,
    run_file::{RunOnDisk, RunReader, RunWriter},
};

/// A set to which runs are still added has some more than this at most.
const RUNS_MAX: usize = 8;
/// Ids that are merged before other work is looked at.
const STEP_IDS: usize = 16_384;

/// Which runs of a set to merge, by their sizes, oldest first. `sealed`: no more come, so one is to be left.
///
/// Else the newest ones, from the first that is not larger than all newer ones together: by that a run at least doubles
/// whenever its ids are written again, so that each is written a logarithmic number of times.
pub(crate) fn plan(sizes: &[usize], sealed: bool) -> Option<Range<usize>> {
    let count = sizes.len();
    if sealed {
        return (count > 1).then_some(0..count);
    }
    if count < RUNS_MAX {
        return None;
    }
    let newer = |at: usize| sizes[at + 1..].iter().sum::<usize>();
    (0..count - 1).find(|at| sizes[*at] <= newer(*at)).map(|at| at..count)
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
        /// Goal: however runs come, a set stays at few of them, each id is written few times, and one run is left at last.
        #[test]
        fn sets_stay_small(sizes in prop::collection::vec(1_usize..10_000, 1..400)) {
            let (mut set, mut written, mut total) = (Vec::<usize>::new(), 0, 0_usize);
            for size in sizes {
                set.push(size);
                total += size;
                if let Some(range) = plan(&set, false) {
                    let merged: usize = set[range.clone()].iter().sum();
                    written += merged;
                    set.splice(range, [merged]);
                }
                let halvings = total.ilog2() as usize;
                prop_assert!(set.len() < RUNS_MAX + halvings, "{set:?}");
                prop_assert!(written <= total * (halvings + 1), "each id is written once per doubling");
            }
            if let Some(range) = plan(&set, true) {
                prop_assert_eq!(range, 0..set.len());
            } else {
                prop_assert_eq!(set.len(), 1);
            }
        }
    }

    /// Goal: runs of one size, as a steady stream makes them, are merged eight at a time.
    #[test]
    fn equal_runs_are_merged_together() {
        assert_eq!(plan(&[5; 7], false), None);
        assert_eq!(plan(&[5; 8], false), Some(0..8));
        assert_eq!(plan(&[40, 5, 5, 5, 5, 5, 5, 5], false), Some(1..8));
        assert_eq!(plan(&[40], true), None);
    }
}
