//! Records that this process cannot read, by librdkafka's mock of a broker, which forgets the oldest of a partition beyond 5 MiB.

use super::{away::World, *};
use crate::kafka::{fetch::offset_of, follower::Follower, notes::Notes, stand::Stand};

const PARTITION: PartitionId = PartitionId(0);
/// Of one table, a row in each.
const BLOCKS: u64 = 150;
const BLOCK_BYTES: usize = 50_000;

fn blocks() -> impl Iterator<Item = Append> {
    (0..BLOCKS).map(|seed| block(PARTITION.0, 1, 1, seed, BLOCK_BYTES))
}

/// What a process stores that has counted all.
fn whole() -> Stand {
    let mut stand = Stand::empty();
    for block in blocks() {
        stand.add(Timestamp(1), &block.header, &block.body);
    }
    stand
}

/// Reads a partition of a mock from `from` though the records from `next` on are to be read; `stored` is what processes have stored
/// of it. Gives the rows that are counted in the end, and how many the broker still has.
async fn count(next: Offset, from: u64, stored: Option<Stand>) -> (u64, u64) {
    let world = World::new();
    for block in blocks() {
        world.append(vec![block]).await.unwrap();
    }
    tokio::task::block_in_place(|| {
        let source = world.log().source.clone();
        let consumer = source.reader([(PARTITION, Offset(from))]).unwrap();
        let (start, end) = source.bounds(&consumer, PARTITION).unwrap();
        let mut stand = Stand::empty();
        stand.next = next;
        let partitions = vec![(stand, Offset::ZERO, end), (Stand::empty(), Offset::ZERO, Offset::ZERO)];
        let store = Arc::new(Store::new(partitions, 1 << 20));
        let stored: Vec<_> = stored.iter().map(|stand| (PARTITION.0.to_string(), stand.encode())).collect();
        let mut follower = Follower {
            store: store.clone(),
            source,
            consumer,
            next: vec![Some(next), Some(Offset::ZERO)],
            asked_again: vec![0; 2],
            notes: Box::new(move || Ok(Notes::of(stored.clone()).unwrap())),
            stop: Arc::default(),
        };
        follower.catch_up();
        let state = store.lock();
        let stand = &state.of(PARTITION).stand;
        assert_eq!(stand.next, end);
        (stand.rows(blocks().next().unwrap().header.key), end.0 - start.0)
    })
}

/// Goal: a batch that the client passed over is asked for again, so that one that was damaged on its way is counted like all others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_passed_over_is_asked_for_again() {
    let first_there = offset_of((BLOCKS - 40).cast_signed());
    let (rows, _) = count(first_there, first_there.0 + 5, None).await;
    assert_eq!(rows, 40);
}

/// Goal: where records left before this process read them, what another counted of them counts here too; where nobody did, all that
/// is still there is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_process_counted_is_not_missing() {
    let (rows, left) = count(Offset::ZERO, 0, Some(whole())).await;
    assert!(left < BLOCKS, "the mock has let some go");
    assert_eq!(rows, BLOCKS);
    let mut early = Stand::empty();
    let first = blocks().next().unwrap();
    early.add(Timestamp(1), &first.header, &first.body);
    for stored in [None, Some(early)] {
        let (rows, left) = count(Offset::ZERO, 0, stored).await;
        assert_eq!(rows, left, "nobody has counted what left");
    }
}
