//! Which of the log's partitions a table uses.

use types::{PartitionId, TableId};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The partitions of a table that uses `count` of the log's `log_partitions`: those with the highest score of (table, partition),
/// ascending. Tables with few partitions are thereby spread over all of them. A count beyond the log's means all.
#[must_use]
pub fn partitions_of_table(table: TableId, count: u32, log_partitions: u32) -> Vec<PartitionId> {
    let mut scored: Vec<(u64, u32)> = (0..log_partitions)
        .map(|partition| (xxh3_64_with_seed(&partition.to_le_bytes(), table.0), partition))
        .collect();
    scored.sort_unstable_by(|a, b| b.cmp(a));
    scored.truncate(count as usize);
    let mut chosen: Vec<PartitionId> = scored.into_iter().map(|(_, partition)| PartitionId(partition)).collect();
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a table gets as many distinct partitions as it asked for, in order, and never one that the log lacks.
    #[test]
    fn a_table_gets_what_it_asked_for() {
        for count in 0..20 {
            let chosen = partitions_of_table(TableId(7), count, 12);
            assert_eq!(chosen.len(), count.min(12) as usize);
            assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]));
            assert!(chosen.iter().all(|partition| partition.0 < 12));
        }
    }

    /// Goal: one more partition adds one and moves none, so that the choice is a ranking.
    #[test]
    fn the_choice_is_a_ranking() {
        for table in 0..50 {
            for count in 1..16 {
                let fewer = partitions_of_table(TableId(table), count, 16);
                let more = partitions_of_table(TableId(table), count + 1, 16);
                assert!(fewer.iter().all(|partition| more.contains(partition)));
            }
        }
    }

    /// Goal: many tables of one partition spread evenly over the log's.
    #[test]
    fn small_tables_spread() {
        let mut used = [0_u32; 16];
        for table in 1..=1_600 {
            used[partitions_of_table(TableId(table), 1, 16)[0].0 as usize] += 1;
        }
        assert!(used.iter().all(|&tables| (60..=140).contains(&tables)), "{used:?}");
    }
}
