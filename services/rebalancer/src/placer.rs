//! Keeps partitions on nodes that live: the first map, and a new one when a node is lost.
//!
//! 1. Of all rebalancers one places: the holder of a lease. A map is stored in its name and over the version that it was made
//!    from; one who lost the lease without knowing it, or read an old map, is refused by the store.
//! 2. All of them look who lives, so that one who takes the lease over judges by what it has seen.
//! 3. Moves in the map take their next steps ([`placement::Handover`]), by what is seen of them ([`crate::watching`]), and what
//!    is left on nodes that are being emptied is planned to move.
//! 4. A node that falls silent is lost, and its partitions go to others at once. One that left in order comes back, as a rule: it
//!    keeps its partitions for a while, and that while begins anew where all left. Where no node lives, nothing is placed.
//! 5. Where all that held a partition are lost, they keep their places in the map until one of those that took it holds all.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use metadata::{Claim, Lease, Liveness, MetadataError, MetadataStore, NodeRecord};
use metrics::{counter, describe_counter, describe_gauge, gauge};
use placement::{Ended, Node, Outcome, Pace, PlacementMap, place, repair};
use proto::members::HOT_TIER;
use service::{Health, Shutdown};
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval},
};
use types::NodeId;

use crate::{
    Commands,
    meter::{Meter, Replica},
    plan::{off_draining, takers},
    watching::{HotTiers, Watching},
};

/// The lease of who places.
const LEASE: &str = "placing";
/// How long it is held without a word of its holder.
const LEASE_TTL: Duration = Duration::from_secs(3);
/// How often to look who lives, and to keep the lease.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Rates of events and queries are of so long.
const MEASURE_INTERVAL: Duration = Duration::from_secs(5);
/// After so long without a word a node is lost. Nodes say each second that they live.
const LOST_AFTER: Duration = Duration::from_secs(3);
/// For so long a node that left in order keeps its partitions.
const KEEPS_FOR: Duration = Duration::from_secs(60);
/// Checkpoints that are copied at a time: each takes part of a disk and of the network, and nodes go on answering.
const PACE: Pace = Pace { copies_max: 8, copies_per_node_max: 4 };
/// Under this name the health tells of metadata that is away.
const METADATA: &str = "metadata";

// A loss is answered within 5 s: the silence, a look, and what the control plane takes to see and send the map.
const _: () = assert!(LOST_AFTER.as_millis() + 2 * LOOK_INTERVAL.as_millis() < 5_000);

/// Over which nodes partitions are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spread {
    /// Of the log.
    pub partitions: u32,
    /// How many nodes hold each partition, as far as there are so many.
    pub replicas: usize,
    /// How many nodes must be there before partitions are placed for the first time.
    pub nodes_first: usize,
}

/// One that places, or would if the one who does falls silent.
pub struct Placer {
    store: Arc<dyn MetadataStore>,
    spread: Spread,
    /// Its own name, of this life.
    holder: String,
    lease: Option<Lease>,
    liveness: Liveness,
    /// Since when nodes of the map are not registered any more.
    left: BTreeMap<NodeId, Instant>,
    /// Replicas that took what all others had lost, and those of lost nodes that kept their places, until they show all.
    fresh: BTreeSet<Replica>,
    watching: Watching,
    /// Told when there is something to do before the next look is due.
    wake: Arc<Notify>,
    meter: Meter,
}

impl Placer {
    /// One of that name, which no other has or had; `grace`: how long the source of a move holds on what it gave away.
    #[must_use]
    pub fn new(
        store: Arc<dyn MetadataStore>,
        nodes: HotTiers,
        spread: Spread,
        grace: Duration,
        holder: String,
    ) -> Self {
        let (wake, liveness) = (Arc::new(Notify::new()), Liveness::new(LOST_AFTER));
        let meter = Meter::new(nodes.clone());
        let watching = Watching::new(Arc::clone(&store), nodes, grace, Arc::clone(&wake));
        Self {
            store,
            spread,
            holder,
            lease: None,
            liveness,
            left: BTreeMap::new(),
            fresh: BTreeSet::new(),
            watching,
            wake,
            meter,
        }
    }

    /// What people ask of the map.
    #[must_use]
    pub fn commands(&self) -> Commands {
        Commands::new(Arc::clone(&self.store), Arc::clone(&self.wake), self.meter.clone())
    }

    /// Runs until it is told to stop, and gives the lease up then.
    pub(crate) async fn run(mut self, health: Health, stop: Shutdown) {
        describe();
        let metering = tokio::spawn(measure(self.meter.clone()));
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.wait() => break,
                _ = ticks.tick() => {}
                () = self.wake.notified() => {}
            }
            match self.round(Instant::now()).await {
                Ok(()) => health.recover(METADATA),
                Err(error) => health.degrade(METADATA, format!("partitions stay where they are: {error}")),
            }
            gauge!("truenow_rebalancer_places").set(if self.lease.is_some() { 1.0 } else { 0.0 });
        }
        metering.abort();
        if let Err(error) = self.give_up().await {
            tracing::warn!(%error, "the lease of who places is not given up; it runs out");
        }
    }

    /// Looks once who lives, and stores a new map if that is its part and one is needed; to be called every half second.
    ///
    /// # Errors
    /// Metadata cannot be read or written.
    pub async fn round(&mut self, now: Instant) -> Result<(), MetadataError> {
        self.keep_lease().await?;
        let mut records = self.store.nodes().await?;
        // That others are heard, such as the control plane's own process, says nothing about the way of the nodes.
        records.retain(|record| record.node.addresses.contains_key(HOT_TIER));
        self.liveness.look(&records, now);
        let map = self.store.placement().await?;
        self.note_left(&map, &records, now);
        let Some(lease) = self.lease.clone() else {
            self.watching.stop();
            return Ok(());
        };
        let (next, ended) = self.next_map(&map, &records, now);
        gauge!("truenow_rebalancer_moves").set(next.moves.len() as f64);
        if next.version == map.version {
            return Ok(());
        }
        match self.store.store_placement(&next, map.version, Some(&lease)).await {
            Ok(()) => {
                counter!("truenow_rebalancer_maps_total").increment(1);
                if next.replicas != map.replicas {
                    tracing::info!(version = next.version, nodes = ?self.living(&records), "placed partitions anew");
                }
                ended.iter().for_each(tell);
                Ok(())
            }
            // Another changed the map in between, or took over: what is now is seen by the next look.
            Err(MetadataError::Conflict) => Ok(()),
            Err(MetadataError::Fenced) => {
                self.lease = None;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Looks once at what nodes do and hold; to be called every few seconds.
    pub async fn measure(&self, now: Instant) {
        self.meter.look(now).await;
    }

    async fn keep_lease(&mut self) -> Result<(), MetadataError> {
        if let Some(lease) = &self.lease {
            match self.store.renew_lease(lease, LEASE_TTL).await {
                Ok(()) => return Ok(()),
                Err(MetadataError::Fenced) => {
                    tracing::warn!(epoch = lease.epoch, "another rebalancer places now");
                    self.lease = None;
                }
                Err(error) => return Err(error),
            }
        }
        if let Claim::Taken(lease) = self.store.take_lease(LEASE, &self.holder, LEASE_TTL).await? {
            tracing::info!(epoch = lease.epoch, "places partitions from now on");
            self.lease = Some(lease);
        }
        Ok(())
    }

    /// Gives the lease up, so that another need not wait for its end.
    ///
    /// # Errors
    /// Metadata cannot be written.
    pub async fn give_up(mut self) -> Result<(), MetadataError> {
        match self.lease.take() {
            Some(lease) => self.store.give_up_lease(&lease).await,
            None => Ok(()),
        }
    }

    fn note_left(&mut self, map: &PlacementMap, records: &[NodeRecord], now: Instant) {
        let is_there = |node: &NodeId| records.iter().any(|record| record.node.id == *node);
        self.left.retain(|node, _| !is_there(node));
        for &node in map.replicas.values().flatten().filter(|node| !is_there(node)) {
            self.left.entry(node).or_insert(now);
        }
        if self.living_nodes(records).is_empty() {
            // All left. The first that comes back must not take everything while the others start.
            self.left.values_mut().for_each(|since| *since = now);
        }
    }

    fn living(&self, records: &[NodeRecord]) -> Vec<NodeId> {
        self.living_nodes(records).into_iter().map(|node| node.id).collect()
    }

    /// The nodes that live.
    fn living_nodes(&self, records: &[NodeRecord]) -> Vec<Node> {
        let lives = records.iter().filter(|record| self.liveness.lives(record.node.id));
        lives.map(|record| Node { id: record.node.id, zone: record.node.zone.clone() }).collect()
    }

    /// The map that is right now, that of before where nothing is wrong with it; and what became of moves.
    fn next_map(&mut self, map: &PlacementMap, records: &[NodeRecord], now: Instant) -> (PlacementMap, Vec<Ended>) {
        let Spread { partitions, replicas, nodes_first } = self.spread;
        let living = self.living_nodes(records);
        let takers = takers(map, &living);
        if map.version == 0 {
            let is_time = takers.len() >= nodes_first.max(1);
            return (if is_time { place(map, partitions, replicas, &takers) } else { map.clone() }, Vec::new());
        }
        let back_soon = self.left.iter().filter(|&(_, &since)| now.duration_since(since) < KEEPS_FOR);
        let mut keeping: Vec<Node> = back_soon.map(|(&id, _)| Node { id, zone: None }).collect();
        keeping.extend(living);
        let seen = self.watching.look(map, now);
        let kept: BTreeSet<NodeId> = keeping.iter().map(|node| node.id).collect();
        // Where nobody lives the map stays, with its moves.
        if takers.is_empty() {
            return (map.clone(), Vec::new());
        }
        let (next, ended) = map.advanced(&kept, &seen, PACE);
        let unproven = self.unproven(&next);
        let repaired = repair(&next, partitions, replicas, &keeping, &takers, &unproven);
        self.note_fresh(&next, &repaired, |replica| kept.contains(&replica.1) && !unproven.contains(replica));
        // Who is lost may come back with another disk: he has to show what he has.
        self.meter.forget(|node| !kept.contains(&node));
        self.fresh.extend(replicas_of(&repaired).filter(|(_, node)| !kept.contains(node)));
        (off_draining(repaired, &kept, &takers), ended)
    }

    /// Replicas of which it is not known that they hold all. One that nothing was seen of counts as one that does, unless it is fresh:
    /// most have held all for long.
    fn unproven(&mut self, map: &PlacementMap) -> BTreeSet<Replica> {
        self.fresh.retain(|(partition, node)| map.is_replica(*node, *partition));
        self.fresh.retain(|replica| self.meter.is_whole(replica) != Some(true));
        let lacks = |replica: &Replica| self.fresh.contains(replica) || self.meter.is_whole(replica) == Some(false);
        replicas_of(map).filter(lacks).collect()
    }

    /// Notes who takes partitions of which no holder has all and lives.
    fn note_fresh(&mut self, before: &PlacementMap, after: &PlacementMap, has_all: impl Fn(&Replica) -> bool) {
        for (&partition, nodes) in &after.replicas {
            let holders = before.replicas.get(&partition).map(Vec::as_slice).unwrap_or_default();
            if !holders.iter().any(|&holder| has_all(&(partition, holder))) {
                let taken = nodes.iter().filter(|node| !holders.contains(node));
                self.fresh.extend(taken.map(|&node| (partition, node)));
            }
        }
    }
}

fn replicas_of(map: &PlacementMap) -> impl Iterator<Item = Replica> {
    map.replicas.iter().flat_map(|(&partition, nodes)| nodes.iter().map(move |&node| (partition, node)))
}

/// Looks at what nodes do, for as long as it is let.
async fn measure(meter: Meter) {
    let mut ticks = interval(MEASURE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        meter.look(Instant::now()).await;
    }
}

/// Counts and logs what became of a move.
fn tell(Ended { partition, step, outcome }: &Ended) {
    counter!("truenow_rebalancer_moves_total", "outcome" => outcome.name()).increment(1);
    let (partition, from, to, outcome_name) = (partition.0, step.from.0, step.to.0, outcome.name());
    match outcome {
        Outcome::Switched | Outcome::Done => {
            tracing::info!(partition, from, to, outcome = outcome_name, "a move took a step");
        }
        Outcome::Failed | Outcome::TargetLost | Outcome::SourceLost => {
            tracing::warn!(partition, from, to, outcome = outcome_name, "a move ended");
        }
    }
}

fn describe() {
    describe_gauge!(
        "truenow_rebalancer_places",
        "Whether this rebalancer is the one that places partitions: 1 yes, 0 no."
    );
    describe_counter!("truenow_rebalancer_maps_total", "Placement maps that this rebalancer stored.");
    describe_gauge!("truenow_rebalancer_moves", "Moves in the placement map, those that wait among them.");
    describe_counter!("truenow_rebalancer_moves_total", "Steps of moves by what became of them.");
}
