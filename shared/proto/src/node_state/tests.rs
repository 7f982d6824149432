use proptest::prelude::*;
use prost::Message as _;

use super::*;

const REFUSED_AFTER: Duration = Duration::from_secs(30);

fn lag(bytes: u64, millis: u64) -> Lag {
    Lag { bytes, age: Duration::from_millis(millis) }
}

fn report(memory: MemoryState, lags: &[(u32, Lag)]) -> Report {
    Report { memory, lags: lags.iter().map(|&(partition, lag)| (PartitionId(partition), lag)).collect() }
}

/// Two partitions on two of three nodes each.
fn map() -> PlacementMap {
    let replicas = [(0, [1, 2]), (1, [2, 3])];
    let replicas = replicas.map(|(partition, nodes)| (PartitionId(partition), nodes.map(NodeId).to_vec()));
    PlacementMap { version: 1, replicas: replicas.into(), ..PlacementMap::default() }
}

/// Goal: a partition is as far behind as its best replica, and partitions add up.
#[test]
fn the_best_replica_counts() {
    let start = Instant::now();
    let mut heard = Heard::new(start);
    heard.take(NodeId(1), report(MemoryState::Room, &[(0, lag(10, 1))]), start);
    heard.take(NodeId(2), report(MemoryState::Room, &[(0, lag(900, 90)), (1, lag(5, 7))]), start);
    heard.take(NodeId(3), report(MemoryState::Room, &[(1, lag(800, 80))]), start);
    assert_eq!(heard.lag(&map(), start), lag(15, 7));
}

/// Goal: a replica that says nothing any more is passed over while another is known; where none is, the lag grows from what was
/// said last, up to where events are refused, and falls as soon as one speaks.
#[test]
fn silence_ages() {
    let start = Instant::now();
    let mut heard = Heard::new(start);
    heard.take(NodeId(1), report(MemoryState::Room, &[(0, lag(1, 0))]), start);
    heard.take(NodeId(2), report(MemoryState::Room, &[(0, lag(2, 5)), (1, lag(4, 5))]), start);
    let later = start + REFUSED_AFTER;
    heard.take(NodeId(3), report(MemoryState::Room, &[(1, lag(3, 6))]), later);
    let now = heard.lag(&map(), later);
    assert_eq!((now.bytes, now.age), (4, REFUSED_AFTER), "partition 0 stands still, partition 1 is known by node 3");
    heard.take(NodeId(2), report(MemoryState::Room, &[(0, lag(2, 5)), (1, lag(4, 5))]), later);
    assert_eq!(heard.lag(&map(), later), lag(6, 5));
    let nearly = later + STALE_AFTER - Duration::from_millis(1);
    assert_eq!(heard.lag(&map(), nearly), lag(6, 5), "what was said counts for a while");
}

/// Goal: a partition that nobody ever spoke of stands still since the start, also where a node speaks of others.
#[test]
fn what_was_never_heard_of_ages_from_the_start() {
    let start = Instant::now();
    let mut heard = Heard::new(start);
    assert_eq!(heard.lag(&PlacementMap::default(), start + REFUSED_AFTER), Lag::default(), "no partition, no lag");
    heard.take(NodeId(2), report(MemoryState::Room, &[(1, lag(0, 0))]), start + REFUSED_AFTER);
    assert_eq!(heard.lag(&map(), start + REFUSED_AFTER), Lag { bytes: 0, age: REFUSED_AFTER });
}

/// Goal: a partition whose nodes are all new to it stands still since the nodes before them spoke of it, not since the start.
#[test]
fn a_partition_that_moves_ages_from_its_last_word() {
    let (start, us) = (Instant::now(), Duration::from_micros(1));
    let mut heard = Heard::new(start);
    heard.take(NodeId(3), report(MemoryState::Room, &[(0, lag(7, 1))]), start + REFUSED_AFTER);
    heard.take(NodeId(3), report(MemoryState::Room, &[(1, lag(0, 0))]), start + REFUSED_AFTER + us);
    heard.take(NodeId(1), report(MemoryState::Room, &[]), start + REFUSED_AFTER + us);
    assert_eq!(heard.lag(&map(), start + REFUSED_AFTER + us), Lag { bytes: 0, age: us });
}

/// Goal: the shortest memory of the nodes that hold something counts, until that node is silent.
#[test]
fn the_shortest_memory_counts() {
    let start = Instant::now();
    let mut heard = Heard::new(start);
    assert_eq!(heard.memory(&map(), start), MemoryState::Room);
    heard.take(NodeId(4), report(MemoryState::Full, &[]), start);
    assert_eq!(heard.memory(&map(), start), MemoryState::Room, "it holds no partition");
    heard.take(NodeId(1), report(MemoryState::Full, &[]), start);
    assert_eq!(heard.memory(&map(), start), MemoryState::Full);
    heard.take(NodeId(3), report(MemoryState::IdsFull, &[]), start);
    assert_eq!(heard.memory(&map(), start), MemoryState::IdsFull);
    assert_eq!(heard.memory(&map(), start + STALE_AFTER), MemoryState::Room);
}

proptest! {
    /// Goal: a report arrives as it was, to the microsecond.
    #[test]
    fn reports_travel_whole(
        memory in prop::sample::select(&[MemoryState::Room, MemoryState::IdsFull, MemoryState::Full][..]),
        lags in prop::collection::btree_map(any::<u32>(), any::<(u64, u64)>(), 0..6),
    ) {
        let lags = lags.into_iter().map(|(partition, (bytes, micros))| {
            let lag = Lag { bytes, age: Duration::from_micros(micros) };
            PartitionLag { partition: PartitionId(partition), lag }
        });
        let lags = Arc::new(lags.collect::<Vec<_>>());
        let sent = internal::NodeReport::from((memory, &lags)).encode_to_vec();
        let arrived = Report::from(internal::NodeReport::decode(sent.as_slice()).unwrap());
        prop_assert_eq!(arrived.memory, memory);
        let arrived: Vec<_> = arrived.lags.into_iter().map(|(partition, lag)| PartitionLag { partition, lag }).collect();
        prop_assert_eq!(&arrived, lags.as_ref());
    }
}
