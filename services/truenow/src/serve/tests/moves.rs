//! Partitions that move from node to node while events come in and queries are answered.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use hyper::Method;
use serde_json::{Value, json};
use tokio::sync::Mutex as AsyncMutex;

use super::{BETWEEN, Composed, PARTITIONS, TRIES, World};

/// Moves of the plain test, and of the long one.
const MOVES: usize = 32;
const MOVES_LONG: usize = 1_000;
/// Moves under way at a time.
const AT_ONCE: usize = 6;
/// How long queries are timed before the first move.
const QUIET: Duration = Duration::from_secs(3);
/// Behind the time of every event.
const TIME_MAX: u64 = 100_000_000;
/// Tokens that a query shows: so many requests have events in every partition.
const TOKENS: usize = 8;
/// How often the phases of a move are looked for.
const SOON: Duration = Duration::from_millis(10);
/// Events of one request.
const BATCH: u32 = 20;

struct Cluster {
    world: World,
    plane: Composed,
    /// The one that makes the map first: it was there first.
    rebalancers: AsyncMutex<VecDeque<Composed>>,
    nodes: AsyncMutex<BTreeMap<u64, Composed>>,
    gateway: Composed,
    query_api: Composed,
}

impl Cluster {
    /// Three nodes, of which two hold each partition.
    async fn start() -> Self {
        let world = World::new().await;
        let plane = world.start(&world.config("control-plane,watermark", &[])).await;
        let gateway = world.member(&plane, "gateway", &[]).await;
        let query_api = world.member(&plane, "query-api", &[]).await;
        let (rebalancers, nodes) = (AsyncMutex::default(), AsyncMutex::default());
        let cluster = Self { world, plane, rebalancers, nodes, gateway, query_api };
        cluster.start_rebalancer().await;
        cluster.start_rebalancer().await;
        tokio::join!(cluster.start_node(1), cluster.start_node(2), cluster.start_node(3));
        cluster
    }

    async fn start_rebalancer(&self) {
        let settings = [("cluster.nodes_first", "3"), ("cluster.handover_grace_ms", "300")];
        let rebalancer = self.world.member(&self.plane, "rebalancer", &settings).await;
        self.rebalancers.lock().await.push_back(rebalancer);
    }

    async fn start_node(&self, id: u64) {
        let settings = [("cluster.node_id", &*id.to_string()), ("hot_tier.checkpoint_interval_ms", "300")];
        let node = self.world.member(&self.plane, "hot-tier,stream-ingester", &settings).await;
        self.nodes.lock().await.insert(id, node);
    }

    async fn take_node(&self, id: u64) -> Composed {
        self.nodes.lock().await.remove(&id).expect("it was started")
    }

    /// Asks the rebalancer that came last, which need not be the one that makes the map.
    async fn rebalancer(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let rebalancers = self.rebalancers.lock().await;
        let newest = rebalancers.back().expect("there is one all the time");
        self.world.ask(newest, "rebalancer", method, path, body).await
    }

    async fn moves(&self) -> Vec<Value> {
        let (status, moves) = self.rebalancer(Method::GET, "/v1/moves", &Value::Null).await;
        assert_eq!(status, 200, "{moves}");
        moves["moves"].as_array().unwrap().clone()
    }

    /// The nodes of each partition.
    async fn placed(&self) -> Vec<Vec<u64>> {
        let (_, cluster) = self.world.ask(&self.plane, "control-plane", Method::GET, "/v1/cluster", &Value::Null).await;
        let partitions = cluster["placement"]["partitions"].as_array().cloned().unwrap_or_default();
        let nodes = |partition: &Value| serde_json::from_value(partition["replicas"].clone()).unwrap();
        partitions.iter().map(nodes).collect()
    }

    async fn until(&self, what: &str, is_so: impl Fn(&[Vec<u64>], &[Value]) -> bool) {
        for _ in 0..TRIES {
            if is_so(&self.placed().await, &self.moves().await) {
                return;
            }
            tokio::time::sleep(BETWEEN).await;
        }
        panic!("{what} does not come: {:?} {:?}", self.placed().await, self.moves().await);
    }

    /// All partitions are placed, and all replicas answer.
    async fn until_ready(&self) {
        self.world.ingest(&self.gateway, 0..BATCH).await;
        assert_eq!(self.world.count_complete(&self.query_api).await, u64::from(BATCH));
        self.until("a map", |placed, _| placed.iter().all(|nodes| nodes.len() == 2)).await;
        self.world.until_replicas_agree(&self.query_api).await;
    }

    /// After so many events and one more request each is counted once, two replicas of each partition agree, and the ledger
    /// balances.
    async fn assert_whole(&self, sent: u32) {
        let token = self.world.ingest(&self.gateway, sent..sent + BATCH).await;
        let all = u64::from(sent + BATCH);
        assert_eq!(self.world.count_within(&self.query_api, TIME_MAX, &[&token]).await, all);
        assert!(self.placed().await.iter().all(|nodes| nodes.len() == 2));
        self.world.until_replicas_agree(&self.query_api).await;
        let path = "/v1/ledger/shop/events";
        let (_, ledger) = self.world.ask(&self.plane, "watermark", Method::GET, path, &Value::Null).await;
        assert_eq!((&ledger["live"], &ledger["balanced"]), (&json!(all), &json!(true)), "{ledger}");
    }

    /// Begins to move a partition from the first node that has it to one that lacks it; gives both.
    async fn begin_move(&self, partition: u32) -> (u64, u64) {
        for _ in 0..TRIES {
            let held = &self.placed().await[partition as usize];
            let to = (1..=3).find(|node| !held.contains(node)).expect("two of three hold it");
            let step = json!({"partition": partition, "from": held[0], "to": to});
            // The target may have been started a moment ago.
            if self.rebalancer(Method::POST, "/v1/moves", &step).await.0 == 200 {
                return (held[0], to);
            }
            tokio::time::sleep(BETWEEN).await;
        }
        panic!("partition {partition} cannot be moved");
    }

    /// Kills who makes the map, the source or the target of a move while it copies and while it leaves, one after the other, and
    /// brings them back.
    async fn lose_in_turn(&self) {
        for (round, phase) in ["copying", "copying", "copying", "leaving", "leaving", "leaving"].into_iter().enumerate()
        {
            let partition = round as u32;
            let (from, to) = self.begin_move(partition).await;
            while self
                .moves()
                .await
                .iter()
                .any(|step| step["phase"] != json!(phase) && step["phase"] != json!("leaving"))
            {
                tokio::time::sleep(SOON).await;
            }
            let lost = [None, Some(from), Some(to)][round % 3];
            match lost {
                None => {
                    let leader = self.rebalancers.lock().await.pop_front().expect("there are two");
                    leader.vanish().await;
                    self.start_rebalancer().await;
                }
                Some(node) => self.take_node(node).await.vanish().await,
            }
            let lives = |node: &u64| Some(*node) != lost;
            self.until("the end of the move", |placed, moves| {
                moves.is_empty() && placed.iter().all(|nodes| nodes.len() == 2 && nodes.iter().all(lives))
            })
            .await;
            self.world.until_replicas_agree(&self.query_api).await;
            if let Some(node) = lost {
                self.start_node(node).await;
            }
        }
    }

    /// Makes so many moves, some at a time, each of a partition from one of its nodes to the node that lacks it; every tenth is
    /// given up at once if it can be.
    async fn move_about(&self, moves: usize) -> (usize, usize) {
        let (mut asked, mut given_up) = (0, 0);
        while asked < moves {
            let (under_way, placed) = (self.moves().await, self.placed().await);
            let free = |partition: &u32| under_way.iter().all(|step| step["partition"] != json!(partition));
            let room = AT_ONCE.saturating_sub(under_way.len());
            let next = (0..PARTITIONS).map(|n| (n + asked as u32) % PARTITIONS).filter(free).take(room);
            for partition in next.collect::<Vec<_>>() {
                let held = &placed[partition as usize];
                let to = (1..=3).find(|node| !held.contains(node)).expect("two of three hold it");
                let step = json!({"partition": partition, "from": held[asked % 2], "to": to});
                let (status, answer) = self.rebalancer(Method::POST, "/v1/moves", &step).await;
                // What the control plane shows may be of a moment ago.
                if status != 200 {
                    assert_eq!(status, 409, "{answer}");
                    continue;
                }
                asked += 1;
                if asked % 10 == 0 {
                    let (status, _) =
                        self.rebalancer(Method::DELETE, &format!("/v1/moves/{partition}"), &Value::Null).await;
                    given_up += usize::from(status == 200);
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.until("the end of all moves", |_, moves| moves.is_empty()).await;
        (asked, given_up)
    }

    async fn end(self) {
        let nodes = self.nodes.into_inner().into_values();
        let all = [self.gateway, self.query_api].into_iter().chain(nodes).chain(self.rebalancers.into_inner());
        for member in all.chain([self.plane]) {
            member.shutdown().await;
        }
    }
}

/// What goes on beside the moves.
struct Traffic {
    stop: AtomicBool,
    /// Events that were sent, from the first on.
    sent: AtomicU32,
    /// Those that were acked, and the newest token of each partition that these have together.
    acked: Mutex<(u32, Vec<String>)>,
}

impl Traffic {
    /// After so many events.
    fn new(sent: u32) -> Self {
        Self { stop: AtomicBool::new(false), sent: AtomicU32::new(sent), acked: Mutex::default() }
    }

    /// Goes on until some work is done.
    async fn until<T>(&self, work: impl Future<Output = T>) -> T {
        let done = work.await;
        self.stop.store(true, SeqCst);
        done
    }

    async fn ingest(&self, world: &World, gateway: &Composed) {
        while !self.stop.load(SeqCst) {
            let first = self.sent.fetch_add(BATCH, SeqCst);
            let token = world.ingest(gateway, first..first + BATCH).await;
            self.note_acked(first + BATCH, token);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn note_acked(&self, events: u32, token: String) {
        let mut acked = self.acked.lock().unwrap();
        // A token names the partitions of its own events alone.
        acked.1.push(token);
        let older = acked.1.len().saturating_sub(TOKENS);
        acked.1.drain(..older);
        acked.0 = events;
    }

    /// Asks until it is told to stop, and gives how long each answer took: none is refused, none incomplete, and each has all that
    /// was acked when it was asked for, and nothing that was not sent.
    async fn query(&self, world: &World, query_api: &Composed) -> Vec<Duration> {
        let mut times = Vec::new();
        while !self.stop.load(SeqCst) {
            let (acked, token) = self.acked.lock().unwrap().clone();
            let query = json!({"namespace": "shop", "table": "events", "start_time": 0, "end_time": TIME_MAX,
                "aggregates": [{"fn": "count"}], "timeout_ms": 20_000, "after": token});
            let began = Instant::now();
            let (status, answer) = world.ask(query_api, "query-api", Method::POST, "/v1/query", &query).await;
            times.push(began.elapsed());
            assert_eq!((status, &answer["receipt"]["complete"]), (200, &json!(true)), "{answer}");
            let count = answer["rows"][0]["count"].as_u64().unwrap() as u32;
            let sent = self.sent.load(SeqCst);
            assert!((acked..=sent).contains(&count), "{count} of {acked} to {sent}");
        }
        times
    }
}

/// The percentiles 50 and 99 of some times, ms.
fn percentiles(times: &mut [Duration]) -> (f64, f64) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    (at(50), at(99))
}

async fn moves_under_traffic(moves: usize) {
    let cluster = Cluster::start().await;
    let Cluster { world, gateway, query_api, .. } = &cluster;
    cluster.until_ready().await;
    let traffic = Traffic::new(BATCH);
    let pause = traffic.until(tokio::time::sleep(QUIET));
    let ((), mut quiet, ()) = tokio::join!(traffic.ingest(world, gateway), traffic.query(world, query_api), pause);
    let traffic = Traffic::new(traffic.sent.load(SeqCst));
    let began = Instant::now();
    let moved = traffic.until(cluster.move_about(moves));
    let ((), mut moving, (made, given_up)) =
        tokio::join!(traffic.ingest(world, gateway), traffic.query(world, query_api), moved);
    let took = began.elapsed();
    let (quiet, moving, queries) = (percentiles(&mut quiet), percentiles(&mut moving), moving.len());
    eprintln!(
        "{made} moves in {took:?}, {given_up} given up, {} events, {queries} queries; p50 and p99 of queries, ms: quiet {quiet:.1?}, \
         moving {moving:.1?}",
        traffic.sent.load(SeqCst)
    );

    cluster.assert_whole(traffic.sent.load(SeqCst)).await;
    cluster.end().await;
}

/// Goal: while partitions move about, some moves being given up, events are taken, no answer is refused, incomplete or wrong, and
/// afterwards every event is counted once, by replicas that agree.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn partitions_move_under_ingest_and_queries() {
    moves_under_traffic(MOVES).await;
}

/// Goal: as above, a thousand times.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes minutes; test.sh --full runs it"]
async fn a_thousand_moves_under_ingest_and_queries() {
    moves_under_traffic(MOVES_LONG).await;
}

/// Goal: whoever dies during a move, its leader, its source or its target, before or after the target took over: the move goes on or
/// is given up, no answer is refused, incomplete or wrong meanwhile, and in the end two replicas hold all and agree.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn moves_outlive_whoever_dies() {
    let cluster = Cluster::start().await;
    let Cluster { world, gateway, query_api, .. } = &cluster;
    cluster.until_ready().await;
    let traffic = Traffic::new(BATCH);
    let lost = traffic.until(cluster.lose_in_turn());
    let ((), times, ()) = tokio::join!(traffic.ingest(world, gateway), traffic.query(world, query_api), lost);
    assert!(times.len() > 20, "queries were asked all the time");
    cluster.assert_whole(traffic.sent.load(SeqCst)).await;
    cluster.end().await;
}

/// Goal: a node that is to be emptied gives all that it has to others and takes nothing, so that it can stop unnoticed; one that
/// joins takes its part of what is rebalanced; what cannot be done is refused by name.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_is_emptied_and_another_takes_its_part() {
    let cluster = Cluster::start().await;
    let token = cluster.world.ingest(&cluster.gateway, 0..2_000).await;
    assert_eq!(cluster.world.count_complete(&cluster.query_api).await, 2_000);
    let refused = async |step: Value| cluster.rebalancer(Method::POST, "/v1/moves", &step).await.0;
    assert_eq!(refused(json!({"partition": 99, "from": 1, "to": 2})).await, 404);
    assert_eq!(refused(json!({"partition": 0, "from": 1, "to": 77})).await, 409);
    assert_eq!(refused(json!({"partition": 0})).await, 400);

    let (status, view) = cluster.rebalancer(Method::PUT, "/v1/draining/1", &Value::Null).await;
    assert_eq!((status, &view["draining"][0]["node"]), (200, &json!(1)), "{view}");
    cluster
        .until("an empty node", |placed, moves| {
            moves.is_empty() && placed.iter().all(|nodes| nodes.len() == 2 && !nodes.contains(&1))
        })
        .await;
    let (_, view) = cluster.rebalancer(Method::GET, "/v1/moves", &Value::Null).await;
    assert_eq!(view["draining"], json!([{"node": 1, "partitions": 0}]));
    cluster.take_node(1).await.depart().await;
    assert_eq!(cluster.world.count(&cluster.query_api, &[&token]).await, 2_000);

    cluster.start_node(4).await;
    let mut run = Value::Null;
    for _ in 0..TRIES {
        run = cluster.rebalancer(Method::POST, "/v1/rebalance", &Value::Null).await.1;
        if run["moves"].as_array().is_some_and(|moves| !moves.is_empty()) {
            break;
        }
        tokio::time::sleep(BETWEEN).await;
    }
    assert!(run["moves"].as_array().unwrap().iter().all(|step| step["to"] == json!(4)), "{run}");
    cluster
        .until("a part for the new node", |placed, moves| {
            let of_new = placed.iter().filter(|nodes| nodes.contains(&4)).count();
            moves.is_empty() && (3..=7).contains(&of_new) && placed.iter().all(|nodes| nodes.len() == 2)
        })
        .await;
    assert_eq!(cluster.world.count(&cluster.query_api, &[&token]).await, 2_000);
    cluster.end().await;
}
