//! Kept results over HTTP: a server that keeps them beside one that keeps none.

mod support;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use cache::{LocalResults, ResultCache};
use serde_json::{Value, json};
use support::{Event, PARTITIONS, World};

const MEMORY: u64 = 1 << 30;
const MINUTE_US: i64 = 60_000_000;
/// Longer than any test takes.
const TTL: Duration = Duration::from_secs(3_600);

/// Numbers that a seed names (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % end
    }
}

fn query(start: i64, end: i64, rest: &Value) -> Value {
    let mut query = json!({"namespace": "shop", "table": "events", "start_time": start, "end_time": end});
    query.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    query
}

fn random_query(random: &mut Random) -> Value {
    let (start, end) = [(0, 100), (1, 3), (2, 4), (0, 5), (4, 9)][random.below(5) as usize];
    let rest = [
        json!({"aggregates": [{"fn": "count"}, {"fn": "avg", "metric": "number"}, {"fn": "stddev", "metric": "number"}]}),
        json!({"aggregates": [{"fn": "sum", "metric": "number"}], "group_by": ["region"], "interval_us": MINUTE_US / 2}),
        json!({"aggregates": [{"fn": "p90", "metric": "number", "method": "exact"}], "filters": {"region": ["r0", "r2"]}}),
        json!({"aggregates": [{"fn": "top", "dimension": "region", "k": 2}], "group_by": ["region"], "limit": 2}),
    ];
    let mut query = query(start * MINUTE_US, end * MINUTE_US, &rest[random.below(4) as usize]);
    query["allow_partial"] = json!(random.below(3) > 0);
    query
}

/// What two servers must agree on: all but when they were asked and what it took.
fn told((status, mut answer): (u16, Value)) -> (u16, Value) {
    if let Some(receipt) = answer["receipt"].as_object_mut() {
        assert!(receipt.remove("as_of_us").is_some() && receipt.remove("freshness_us").is_some());
    }
    if let Some(answer) = answer.as_object_mut() {
        answer.remove("stats");
    }
    (status, answer)
}

/// Goal: while events come, late ones too, old ones leave and records are lost, a server that keeps results says what one says
/// that keeps none, to the byte: rows, columns, what is covered and what is missing. And what is kept serves without a scan.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_results_are_never_stale() {
    let (mut hits, mut refused, mut missing) = (0, 0, 0);
    for seed in 0..3 {
        let mut random = Random(seed);
        let (mut keeping, mut plain) = (World::start_keeping(MEMORY, TTL).await, World::start(MEMORY).await);
        let mut now = 0;
        for number in 0..150_u64 {
            if random.below(100) < 25 {
                let events: Vec<Event> = (0..1 + random.below(200))
                    .map(|n| {
                        now += random.below(400_000) as i64;
                        let late = if random.below(10) == 0 { random.below(4 * MINUTE_US as u64) as i64 } else { 0 };
                        Event { time: (now - late).max(0), number: number * 1_000 + n }
                    })
                    .collect();
                let partition = random.below(PARTITIONS.into()) as u32;
                keeping.ingest(partition, &events).await;
                plain.ingest(partition, &events).await;
            }
            if number > 100 && random.below(100) < 6 {
                let window = (1 + random.below(6) as i64) * MINUTE_US;
                keeping.keep_only(window).await;
                plain.keep_only(window).await;
            }
            let query = random_query(&mut random);
            let (answer, expected) =
                (keeping.post("/v1/query", query.to_string()).await, plain.post("/v1/query", query.to_string()).await);
            if answer.1["stats"]["cached"] == true {
                hits += 1;
                assert_eq!(
                    (&answer.1["stats"]["rows_scanned"], &answer.1["stats"]["segments"]),
                    (&json!(0), &json!(0))
                );
            }
            assert_ne!(expected.1["stats"]["cached"], true);
            refused += u32::from(expected.0 == 400);
            missing += u32::from(expected.1["receipt"]["complete"] == false);
            assert_eq!(told(answer), told(expected), "seed {seed}, {number}: {query}");
        }
    }
    assert!(hits > 50 && refused > 5 && missing > 5, "{hits} hits, {refused} refused, {missing} incomplete");
}

/// Goal: results that query APIs share are those of the node that they were made by, as it is now: two nodes with the same table,
/// the same questions and other rows never answer for each other, and what one query API made serves the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_results_are_never_stale_nor_foreign() {
    let shared: Arc<dyn ResultCache> = Arc::new(LocalResults::new(16 << 20));
    let mut pairs = Vec::new();
    for seed in [1, 2] {
        let sharing = World::start_sharing(MEMORY, TTL, seed, Arc::clone(&shared)).await;
        pairs.push((sharing, World::start(MEMORY).await));
    }
    let (mut random, mut now, mut asked) = (Random(9), 0, BTreeSet::new());
    let (mut hits, mut of_the_other) = (0, 0);
    for number in 0..200_u64 {
        let at = random.below(2) as usize;
        let (sharing, plain) = &mut pairs[at];
        if random.below(100) < 30 {
            now += MINUTE_US / 10;
            let events: Vec<Event> =
                (0..5).map(|n| Event { time: now + n, number: number * 1_000 + n as u64 }).collect();
            let partition = random.below(PARTITIONS.into()) as u32;
            sharing.ingest(partition, &events).await;
            plain.ingest(partition, &events).await;
        }
        let query = random_query(&mut random).to_string();
        let other = random.below(2) == 1;
        let answer = match other {
            true => sharing.post_other("/v1/query", query.clone()).await,
            false => sharing.post("/v1/query", query.clone()).await,
        };
        if answer.1["stats"]["cached"] == true {
            hits += 1;
            of_the_other += u32::from(!asked.contains(&(at, other, query.clone())));
        }
        asked.insert((at, other, query.clone()));
        assert_eq!(told(answer), told(plain.post("/v1/query", query.clone()).await), "{number}: {query}");
    }
    assert!(hits > 20 && of_the_other > 0, "{hits} hits, {of_the_other} of what this query API was never asked");
}

async fn ask(world: &World, query: &Value) -> (Value, bool) {
    let (status, mut answer) = world.post("/v1/query", query.to_string()).await;
    assert_eq!(status, 200, "{answer}");
    (answer["rows"].take(), answer["stats"]["cached"].as_bool().unwrap())
}

/// Goal: a result serves the same question with another timeout, and none after a column was added or the table made anew;
/// a record that is lost is told of at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_and_lives_are_apart() {
    let mut world = World::start_keeping(MEMORY, TTL).await;
    let events: Vec<Event> = (0..100).map(|number| Event { time: number as i64, number }).collect();
    world.ingest(0, &events).await;
    let asked = query(0, 1_000, &json!({"timeout_ms": 4_000}));
    let hundred = json!([{"count": 100}]);
    assert_eq!(ask(&world, &asked).await, (hundred.clone(), false));
    let hasty = query(0, 1_000, &json!({"timeout_ms": 3_000}));
    assert_eq!(ask(&world, &hasty).await, (hundred.clone(), true));
    // Rows of another time change nothing.
    world.ingest(1, &[Event { time: 5 * MINUTE_US, number: 1_000 }]).await;
    assert_eq!(ask(&world, &asked).await, (hundred.clone(), true));
    world.catalog.add_column("late");
    assert_eq!(ask(&world, &asked).await, (hundred.clone(), false));
    assert_eq!(ask(&world, &asked).await, (hundred, true));

    world.lose_next(2);
    let (status, error) = world.post("/v1/query", asked.to_string()).await;
    assert_eq!((status, &error["error"]["code"]), (503, &json!("UNAVAILABLE")), "{error}");

    world.catalog.replace();
    let partial = query(0, 1_000, &json!({"allow_partial": true}));
    assert_eq!(ask(&world, &partial).await, (json!([{"count": 0}]), false));
}

/// Goal: equal questions that come at once, while events come too, each cover what was applied before they were asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn equal_questions_at_once_read_their_writes() {
    let mut world = World::start_keeping(MEMORY, TTL).await;
    let asked = query(0, 1_000_000, &json!({"aggregates": [{"fn": "count"}, {"fn": "max", "metric": "number"}]}));
    for round in 0..40_u64 {
        world.ingest(round as u32 % PARTITIONS, &[Event { time: round as i64, number: round }]).await;
        let answers = (0..6).map(|_| ask(&world, &asked));
        for (rows, _) in futures_util::future::join_all(answers).await {
            assert_eq!(rows, json!([{"count": round + 1, "max_number": round as f64}]));
        }
    }
}

/// Goal: a table that is deleted after the first scan of a question, while further scans may run, is told of, and no answer
/// of what was left of it is given or kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_go_between_scans_are_told_of() {
    let mut world = World::start_keeping(MEMORY, TTL).await;
    let events: Vec<Event> = (0..100).map(|number| Event { time: number as i64, number }).collect();
    world.ingest(0, &events).await;
    let asked = query(0, 1_000, &json!({"aggregates": [{"fn": "p90", "metric": "number", "method": "exact"}]}));
    // The question's own look at the table, and the one after its first scan.
    world.catalog.replace_after(2);
    let (status, error) = world.post("/v1/query", asked.to_string()).await;
    assert_eq!((status, &error["error"]["code"]), (404, &json!("NOT_FOUND")), "{error}");
    assert_eq!(ask(&world, &asked).await, (json!([{"p90_number": null}]), false));
}
