//! What partitions cost their nodes, as one number that can be evened out.

/// All of one kind of work of a cluster, in the units of a weight.
const WHOLE: u128 = 1_000_000;

/// What one replica of a partition makes its node do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PartitionWork {
    /// Accounted bytes.
    pub bytes: u64,
    /// Events applied per second.
    pub events_per_second: u64,
    /// Time that scan threads spent on it, microseconds per second.
    pub query_us_per_second: u64,
}

/// The weight of each replica: the sum of its shares of all bytes, of all events and of all time of queries, each of which counts
/// as much as the others; what nobody has counts nothing. A replica that holds anything weighs something.
#[must_use]
pub fn weigh(replicas: &[PartitionWork]) -> Vec<u64> {
    let sum = |of: fn(&PartitionWork) -> u64| replicas.iter().map(|work| u128::from(of(work))).sum::<u128>();
    let kinds: [fn(&PartitionWork) -> u64; 3] =
        [|work| work.bytes, |work| work.events_per_second, |work| work.query_us_per_second];
    let sums = kinds.map(sum);
    let weight = |work: &PartitionWork| {
        let shares = kinds.iter().zip(sums).filter(|(_, sum)| *sum > 0);
        let weight: u128 = shares.map(|(of, sum)| (u128::from(of(work)) * WHOLE).div_ceil(sum)).sum();
        u64::try_from(weight).expect("three shares of a million")
    };
    replicas.iter().map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each kind of work counts as much as the others, whatever its unit; one that there is none of does not count.
    #[test]
    fn kinds_of_work_count_alike() {
        let work = |bytes, events_per_second, query_us_per_second| PartitionWork {
            bytes,
            events_per_second,
            query_us_per_second,
        };
        assert_eq!(weigh(&[work(1 << 40, 0, 0), work(0, 7, 0), work(0, 0, 3)]), [1_000_000; 3]);
        assert_eq!(weigh(&[work(30, 1, 0), work(10, 3, 0)]), [1_000_000; 2]);
        assert_eq!(weigh(&[work(3, 0, 0), work(1, 0, 0), work(0, 0, 0)]), [750_000, 250_000, 0]);
        assert_eq!(weigh(&[work(u64::MAX, u64::MAX, u64::MAX), work(1, 0, 0)]), [3_000_000, 1]);
    }
}
