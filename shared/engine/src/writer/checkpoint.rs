//! A writer's state for a checkpoint, and a writer of such a state.

use super::Writer;
use crate::{
    IdRuns, Reader,
    budget::Charge,
    checkpoint::{Capture, Restored},
    sync::{Arc, Ordering},
    table::Means,
    view::PartitionShared,
};

impl Writer {
    /// The state after the record that was applied last. It shares rows and strings with the writer, which goes on.
    #[must_use]
    pub fn capture(&self) -> Capture {
        let mut dropped: Vec<_> = self.dropped.iter().map(|(table, until)| (*table, *until)).collect();
        dropped.sort_unstable();
        let mut tables: Vec<_> =
            self.tables.iter().map(|(key, table)| table.capture(*key, self.means.runs.as_ref())).collect();
        tables.sort_by_key(|table| table.key);
        Capture {
            partition: self.shared.partition,
            next_offset: self.next,
            append_time: self.append_time,
            passed_over: self.shared.passed_over.load(Ordering::Relaxed),
            gaps: self.gaps.as_slice().to_vec(),
            dropped,
            tables,
            budget: Arc::clone(&self.means.budget),
            alone: Charge::new(&self.means.budget, 0),
        }
    }

    pub(crate) fn restored(restored: Restored, runs: Box<dyn IdRuns>) -> (Self, Reader) {
        let Restored { partition, limits, budget, pool, tables, .. } = restored;
        let shared = Arc::new(PartitionShared::new(partition.partition));
        shared.passed_over.store(partition.passed_over, Ordering::Relaxed);
        let writer = Self {
            shared: Arc::clone(&shared),
            next: partition.next_offset,
            append_time: partition.append_time,
            tables: tables.into_iter().collect(),
            dropped: partition.dropped.into_iter().collect(),
            gaps: partition.gaps,
            folded_last: None,
            means: Means::new(limits, budget, pool, runs),
        };
        writer.publish_tables();
        writer.publish_gaps();
        shared.publish_applied(writer.next, writer.append_time);
        (writer, Reader::new(shared))
    }
}
