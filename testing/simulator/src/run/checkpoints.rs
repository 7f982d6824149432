//! What a run does with checkpoints: takes them, damages the newest between two lives, and in the end all of them.

use std::path::PathBuf;

use types::{GapReason, Offset, PartitionId};

use super::World;
use crate::{
    check::check_rows_from,
    failure::{Wrong, ensure},
    life::{Checkpointed, NotStarted, checkpoints_dir, ids_dir},
};

/// One checkpoint in so many is told to stop, at each part that it writes.
const STOP_ONE_IN: u64 = 40;

/// A partition's newest checkpoint, as far as is known for certain.
#[derive(Debug, Clone, Default)]
pub(super) struct Newest {
    /// Its number.
    generation: Option<u64>,
    /// Where it goes on.
    next_offset: Offset,
    /// The files that it alone needs; none where the checkpoint before it may be no good.
    files: Vec<PathBuf>,
    /// One of them was damaged.
    damaged: bool,
}

impl World {
    /// A partition is asked for a capture, or the one that it gave becomes a checkpoint.
    pub(super) fn checkpoint(&mut self) {
        let at = self.random.index(self.profile.partitions as usize);
        let dir = checkpoints_dir(PartitionId(at as u32));
        let before = self.disk.names(&dir);
        let Self { life, random, .. } = self;
        let partition = &mut life.as_mut().expect("there is one").partitions[at];
        let tried = partition.checkpoint(STOP_ONE_IN, random);
        if let Checkpointed::Asked | Checkpointed::NotGiven = tried {
            return;
        }
        let generation = partition.generation();
        self.note(&format!("checkpoint of partition {at}: {tried:?}"));
        let Checkpointed::Written(next_offset) = tried else {
            self.report.failed_checkpoints += 1;
            return;
        };
        self.report.checkpoints += 1;
        let files = self.disk.names(&dir).into_iter().filter(|name| !before.contains(name));
        let files = files.map(|name| dir.join(name)).collect();
        self.newest[at] = Newest { generation, next_offset, files, damaged: false };
    }

    /// Between two lives the disk damages newest checkpoints.
    pub(super) fn damage_newest(&mut self) {
        for at in 0..self.newest.len() {
            if self.newest[at].files.is_empty() || !self.random.once_in(4) {
                continue;
            }
            let newest = &mut self.newest[at];
            let file = newest.files.swap_remove(self.random.index(newest.files.len()));
            newest.files.clear();
            newest.damaged = true;
            self.disk.damage(&file, &mut self.random);
            self.report.damaged += 1;
            self.note(&format!("{} is damaged", file.display()));
        }
    }

    /// Where partitions went on at the beginning of a life: where the newest checkpoint does, or on a bad disk and after
    /// damage the one before.
    pub(super) fn look_at_restored(&mut self, stormy: bool) -> Result<(), Wrong> {
        for at in 0..self.newest.len() {
            let partition = &self.life().partitions[at];
            let (began_at, generation) = (partition.began_at, partition.generation());
            let newest = &mut self.newest[at];
            let excused = stormy || newest.damaged;
            ensure!(
                excused || began_at >= newest.next_offset,
                "partition {at} begins at {began_at}, its newest checkpoint is at {}",
                newest.next_offset
            );
            self.report.restored += u64::from(began_at > Offset::ZERO);
            self.report.fell_back +=
                u64::from(newest.damaged && began_at > Offset::ZERO && began_at < newest.next_offset);
            // By its number: one of which the writing failed may be there after all, at the same offset, and share files.
            if generation != newest.generation {
                *newest = Newest { generation, next_offset: began_at, ..Newest::default() };
            }
        }
        Ok(())
    }

    /// The last life of all begins without any good checkpoint. Where the log has everything, it begins anew; where it does
    /// not, the start is refused and nothing removed, until somebody gives the checkpoints up: then what the log does not have
    /// any more is a gap that the partition tells of, and what it has is there.
    pub(super) fn lose_checkpoints(&mut self) -> Result<(), Wrong> {
        self.end_life("and the disk takes the checkpoints");
        for at in 0..self.newest.len() {
            let dir = checkpoints_dir(PartitionId(at as u32));
            for name in self.disk.names(&dir) {
                self.disk.damage(&dir.join(name), &mut self.random);
            }
            self.newest[at] = Newest::default();
        }
        self.disk.mend();
        let given_up = self.begin_without()?;
        self.note_life();
        self.read_log_again()?;
        self.apply_all()?;
        for (at, was_given_up) in given_up.into_iter().enumerate() {
            let Self { life, oracle, .. } = self;
            let life = life.as_ref().expect("there is one");
            let partition = &life.partitions[at];
            let start = life.log.bounds(partition.reader.partition()).start;
            ensure!(partition.began_at == Offset::ZERO, "partition {at} takes a damaged checkpoint");
            let is_gone = start > Offset::ZERO;
            ensure!(was_given_up == is_gone, "partition {at} begins over a log from {start}, or is refused over it");
            if !is_gone {
                self.check_one(at)?;
                continue;
            }
            let gaps = partition.reader.gaps();
            let told = gaps.first().is_some_and(|gap| {
                (gap.first, gap.end, gap.table, gap.reason) == (Offset::ZERO, start, None, GapReason::Gone)
            });
            ensure!(told, "partition {at} lacks what came before {start}, and tells of {gaps:?}");
            self.report.lost += 1;
            check_rows_from(&partition.reader, &oracle.partitions[at], start)?;
        }
        Ok(())
    }

    /// Begins a life on a good disk, giving up the checkpoints of each partition for which that is refused. Which they are.
    fn begin_without(&mut self) -> Result<Vec<bool>, Wrong> {
        let mut given_up = vec![false; self.newest.len()];
        loop {
            let before: Vec<_> = (0..given_up.len()).map(|at| self.contents(PartitionId(at as u32))).collect();
            match self.try_life() {
                Ok(life) => {
                    self.life = Some(life);
                    return Ok(given_up);
                }
                Err(NotStarted::NoGoodCheckpoint(partition, start)) => {
                    self.note(&format!("partition {partition} has no good checkpoint and a log from {start} on"));
                    let is_same = self.contents(partition) == before[partition.0 as usize];
                    ensure!(is_same, "a refused start changed what may be the only copy");
                    let is_first = !std::mem::replace(&mut given_up[partition.0 as usize], true);
                    ensure!(is_first, "partition {partition} is refused without any checkpoint");
                    self.report.failed_starts += 1;
                    self.end_life("before it began");
                    for dir in [checkpoints_dir(partition), ids_dir(partition)] {
                        self.disk.clear(&dir).map_err(|error| Wrong(format!("clear {}: {error}", dir.display())))?;
                    }
                }
                Err(NotStarted::Disk(error)) => return Err(Wrong(format!("no start on a good disk: {error}"))),
                Err(NotStarted::Wrong(wrong)) => return Err(wrong),
            }
        }
    }

    /// All files that a partition has beside the log.
    fn contents(&self, partition: PartitionId) -> Vec<(String, Option<Vec<u8>>)> {
        let dirs = [checkpoints_dir(partition), ids_dir(partition)];
        dirs.iter().flat_map(|dir| self.disk.contents(dir)).collect()
    }
}
