//! The nodes of the hot tier together: which one is asked for which partition, and what is done where one fails or is slow.
//!
//! 1. Each partition is asked of one of its replicas: of one that was not far behind the log a moment ago and did not fail, of
//!    these of one that is preferred, else of one that has applied what the answer is to cover, the least loaded first, else the
//!    first of the placement map. The partitions that go to one node are one request. Whom the choice falls on changes no answer: replicas say the same of one offset.
//! 2. A node that fails, or a partition that it cannot scan, is replaced by the next replica, as long as there is one.
//! 3. A node that takes longer than it mostly does is asked once more elsewhere, where other replicas have all that it was
//!    asked for, within a budget. Whoever answers first wins, and the other request is dropped, which ends its work.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use metrics::{Counter, counter, describe_counter};
use placement::PlacementMap;
use proto::hot_tier::{HotTier, Unavailable};
use types::{ApiError, ErrorCode, NodeId, Offset, PartitionId};

use crate::{
    behind::{LogEnd, LogEnds},
    load::{Budget, Load},
    nodes::{Members, Nodes},
};

/// The nodes, and what this process has seen of each.
pub(crate) struct Fleet {
    nodes: Nodes,
    loads: Mutex<HashMap<NodeId, Arc<Load>>>,
    ends: LogEnds,
    budget: Budget,
    counts: Counts,
}

/// Second requests by what came of them, and failures.
struct Counts {
    won: Counter,
    lost: Counter,
    without_budget: Counter,
    failures: Counter,
}

/// What is to be asked of whom.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) partitions: &'a BTreeSet<PartitionId>,
    /// Offsets that are to be covered.
    pub(crate) after: &'a [(PartitionId, Offset)],
    /// Nodes that know something of a partition that the others do not.
    pub(crate) prefer: &'a BTreeMap<PartitionId, NodeId>,
    /// Whether a slow node's request is made once more elsewhere.
    pub(crate) hedged: bool,
}

/// A request to one node.
pub(crate) struct Ask {
    pub(crate) id: NodeId,
    pub(crate) node: Arc<dyn HotTier>,
    pub(crate) partitions: Vec<PartitionId>,
}

/// What a node answered, and which of the partitions it could not look at.
pub(crate) type Reply<R> = Result<(R, Vec<(PartitionId, Unavailable)>), ApiError>;

/// The replies of nodes, and the partitions of which no replica is left.
pub(crate) struct Asked<R> {
    pub(crate) replies: Vec<(NodeId, R)>,
    pub(crate) unavailable: Vec<(PartitionId, Unavailable)>,
}

/// A request that has ended.
struct Done<R> {
    id: NodeId,
    partitions: Vec<PartitionId>,
    reply: Reply<R>,
}

impl<R> Done<R> {
    /// Whether it has all that was asked.
    fn is_whole(&self) -> bool {
        self.reply.as_ref().is_ok_and(|(_, unavailable)| unavailable.is_empty())
    }

    /// Of how many partitions it has what was asked.
    fn found(&self) -> usize {
        self.reply.as_ref().map_or(0, |(_, unavailable)| self.partitions.len() - unavailable.len())
    }

    /// Whether it is the answer, where it is an error: no other replica would say otherwise.
    fn is_final_error(&self) -> bool {
        self.reply.as_ref().is_err_and(|error| !is_absence(error))
    }
}

/// Whether another replica may answer what this error says of one: it is away, or of an earlier version.
fn is_absence(error: &ApiError) -> bool {
    matches!(error.code, ErrorCode::Unavailable | ErrorCode::Unimplemented)
}

/// Of two requests for the same partitions, neither of which found all, the replies of the one that found more, for what both
/// found must count once; and the errors of both. What it lacks is asked for anew.
fn one_of<R>(first: Done<R>, mut second: Vec<Done<R>>) -> Vec<Done<R>> {
    if first.found() > second.iter().map(Done::found).sum::<usize>() {
        second.retain(|done| done.reply.is_err());
    } else if first.reply.is_ok() {
        return second;
    }
    second.push(first);
    second
}

/// One asking: what has been tried so far.
struct Asking<'a> {
    fleet: &'a Fleet,
    members: Arc<Members>,
    loads: BTreeMap<NodeId, Arc<Load>>,
    placement: &'a PlacementMap,
    wanted: Wanted<'a>,
}

/// A second request, for when the first one takes longer than this.
struct Hedge {
    wait: Duration,
    others: BTreeMap<NodeId, Vec<PartitionId>>,
}

/// The nodes that the placement map names for a partition.
#[derive(Default)]
pub(crate) struct Holders {
    pub(crate) there: Vec<(NodeId, Arc<dyn HotTier>)>,
    pub(crate) absent: Vec<NodeId>,
}

/// Nodes that were asked for a partition in vain.
type Tried = BTreeMap<PartitionId, Vec<NodeId>>;

impl Fleet {
    /// The fleet of these nodes, which are compared with where the log ends.
    pub(crate) fn new(nodes: Nodes, end: LogEnd) -> Self {
        describe_counter!(
            "truenow_query_hedges_total",
            "Requests to a slow node that another was asked, too: the other one won or lost, or there was no budget for it."
        );
        describe_counter!("truenow_query_node_failures_total", "Requests that a node of the hot tier did not answer.");
        let hedges = |outcome: &'static str| counter!("truenow_query_hedges_total", "outcome" => outcome);
        let counts = Counts {
            won: hedges("won"),
            lost: hedges("lost"),
            without_budget: hedges("no_budget"),
            failures: counter!("truenow_query_node_failures_total"),
        };
        Self { nodes, loads: Mutex::default(), ends: LogEnds::new(end), budget: Budget::new(), counts }
    }

    /// A node that was asked at a time answered of the newest state of its partition, which is that before an offset.
    pub(crate) fn answered_of(&self, id: NodeId, partition: PartitionId, next: Offset, asked_at: tokio::time::Instant) {
        if !self.is_many() {
            return;
        }
        let far_behind = self.ends.is_far_ahead_of(partition, next, asked_at);
        let load = self.loads().get(&id).map(Arc::clone);
        if let Some(load) = load {
            load.answered_of(partition, far_behind);
        }
    }

    fn loads(&self) -> MutexGuard<'_, HashMap<NodeId, Arc<Load>>> {
        // Held for so long alone as it takes to look nodes up.
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the nodes of some partitions; `request` makes one request.
    ///
    /// # Errors
    /// The first error of a node that is not its absence; `UNAVAILABLE` with the words of a node which does not know what is asked,
    /// where no other replica does: nodes of several versions run, and that ends.
    pub(crate) async fn ask<R, F>(
        &self,
        placement: &PlacementMap,
        wanted: Wanted<'_>,
        request: impl Fn(Ask) -> F,
    ) -> Result<Asked<R>, ApiError>
    where
        F: Future<Output = Reply<R>>,
    {
        let asking = self.asking(placement, wanted);
        let (mut tried, mut why) = (Tried::new(), BTreeMap::new());
        let (mut asked, mut unknown) = (Asked { replies: Vec::new(), unavailable: Vec::new() }, None);
        let (mut waiting, mut running) = (wanted.partitions.clone(), FuturesUnordered::new());
        loop {
            let (by_node, none) = asking.assign(&waiting, &tried);
            for partition in none {
                asked.unavailable.push((partition, why.get(&partition).copied().unwrap_or(Unavailable::Unreachable)));
            }
            waiting.clear();
            running.extend(by_node.into_iter().map(|(id, partitions)| {
                let hedge = asking.hedge(id, &partitions, &tried);
                asking.request(id, partitions, hedge, &request)
            }));
            let Some(mut ended) = running.next().await else { break };
            // What one of two requests found is not asked for again because the other failed.
            ended.sort_by_key(|done| done.reply.is_err());
            let mut found = BTreeSet::<PartitionId>::new();
            for Done { id, partitions, reply } in ended {
                let not_there = match reply {
                    Ok((reply, unavailable)) => {
                        asked.replies.push((id, reply));
                        found.extend(partitions.iter().filter(|p| unavailable.iter().all(|(of, _)| of != *p)));
                        unavailable
                    }
                    Err(error) if is_absence(&error) => {
                        if error.code == ErrorCode::Unimplemented {
                            unknown = Some(format!("node {id} speaks another version: {}", error.message));
                        }
                        partitions.into_iter().map(|partition| (partition, Unavailable::Unreachable)).collect()
                    }
                    Err(error) => return Err(error),
                };
                for (partition, reason) in not_there {
                    tried.entry(partition).or_default().push(id);
                    // One that recovers will be back, whatever is with the others.
                    let known = why.entry(partition).or_insert(reason);
                    if reason == Unavailable::Recovering {
                        *known = reason;
                    }
                    if !found.contains(&partition) {
                        waiting.insert(partition);
                    }
                }
            }
        }
        drop(running);
        asked.unavailable.sort_unstable_by_key(|(partition, _)| *partition);
        match unknown {
            Some(message) if !asked.unavailable.is_empty() => Err(ApiError::unavailable(message)),
            _ => Ok(asked),
        }
    }

    /// Waits until each of these offsets is applied on one replica of its partition that answers; a scan says where none does.
    ///
    /// # Errors
    /// `DEADLINE_EXCEEDED` with the field `after`.
    pub(crate) async fn applied(
        &self,
        after: &BTreeMap<PartitionId, Offset>,
        placement: &PlacementMap,
        deadline: Instant,
    ) -> Result<(), ApiError> {
        let partitions = after.keys().copied().collect();
        let wanted = Wanted { partitions: &partitions, after: &[], prefer: &BTreeMap::new(), hedged: false };
        let asking = self.asking(placement, wanted);
        let waits = after.iter().map(|(&partition, &offset)| asking.applied(partition, offset, deadline));
        join_all(waits).await.into_iter().collect()
    }

    /// Whether there are several nodes.
    pub(crate) fn is_many(&self) -> bool {
        self.nodes.now().len() > 1
    }

    /// The nodes that hold a partition.
    pub(crate) fn holders(&self, placement: &PlacementMap, partition: PartitionId) -> Holders {
        let (members, mut holders) = (self.nodes.now(), Holders::default());
        for &id in placement.replicas.get(&partition).map(Vec::as_slice).unwrap_or_default() {
            match members.get(&id) {
                Some(node) => holders.there.push((id, Arc::clone(node))),
                None => holders.absent.push(id),
            }
        }
        holders
    }

    fn asking<'a>(&'a self, placement: &'a PlacementMap, wanted: Wanted<'a>) -> Asking<'a> {
        let members = self.nodes.now();
        let mut known = self.loads();
        if known.len() > members.len() {
            known.retain(|id, _| members.contains_key(id));
        }
        let loads = members.keys().map(|&id| (id, Arc::clone(known.entry(id).or_default()))).collect();
        Asking { fleet: self, members, loads, placement, wanted }
    }
}

impl Asking<'_> {
    /// The replicas of a partition that are known here, in the order of the placement map.
    fn replicas(&self, partition: PartitionId) -> impl Iterator<Item = NodeId> {
        let replicas = self.placement.replicas.get(&partition).map(Vec::as_slice).unwrap_or_default();
        replicas.iter().copied().filter(|id| self.members.contains_key(id))
    }

    /// Which node is asked for which of the partitions, and those of which no replica is left.
    fn assign(
        &self,
        partitions: &BTreeSet<PartitionId>,
        tried: &Tried,
    ) -> (BTreeMap<NodeId, Vec<PartitionId>>, Vec<PartitionId>) {
        let (mut by_node, mut none) = (BTreeMap::<_, Vec<_>>::new(), Vec::new());
        let standing = |load: &Load| (load.far_behind(), load.failed_lately(), load.score());
        let standings: BTreeMap<_, _> = self.loads.iter().map(|(id, load)| (id, standing(load))).collect();
        for &partition in partitions {
            let tried = tried.get(&partition).map(Vec::as_slice).unwrap_or_default();
            let after = self.wanted.after.iter().find(|(of, _)| *of == partition).map(|(_, offset)| *offset);
            let preferred = self.wanted.prefer.get(&partition);
            let rank = |id: &NodeId| {
                let (behind, failed, score) = &standings[id];
                let lags = after.is_some_and(|offset| !self.loads[id].has_applied(partition, offset));
                (behind.contains(&partition), *failed, preferred != Some(id), lags, *score)
            };
            match self.replicas(partition).filter(|id| !tried.contains(id)).min_by_key(rank) {
                Some(id) => by_node.entry(id).or_default().push(partition),
                None => none.push(partition),
            }
        }
        (by_node, none)
    }

    /// One request, and a second one elsewhere where it takes long.
    async fn request<R, F>(
        &self,
        id: NodeId,
        partitions: Vec<PartitionId>,
        hedge: Option<Hedge>,
        request: &impl Fn(Ask) -> F,
    ) -> Vec<Done<R>>
    where
        F: Future<Output = Reply<R>>,
    {
        self.fleet.budget.earn();
        let mut first = std::pin::pin!(self.send(id, partitions, request));
        let Some(Hedge { wait, others }) = hedge else { return vec![first.await] };
        tokio::select! {
            biased;
            done = &mut first => return vec![done],
            () = tokio::time::sleep(wait) => {}
        }
        if !self.fleet.budget.take() {
            self.fleet.counts.without_budget.increment(1);
            return vec![first.await];
        }
        let second = others.into_iter().map(|(id, partitions)| self.send(id, partitions, request));
        let mut second = std::pin::pin!(join_all(second));
        tokio::select! {
            biased;
            done = &mut first => {
                if done.is_whole() || done.is_final_error() {
                    self.fleet.counts.lost.increment(1);
                    return vec![done];
                }
                let ended = second.await;
                self.fleet.counts.won.increment(1);
                one_of(done, ended)
            }
            ended = &mut second => {
                if ended.iter().all(Done::is_whole) {
                    self.fleet.counts.won.increment(1);
                    return ended;
                }
                self.fleet.counts.lost.increment(1);
                let done = first.await;
                if done.is_whole() || done.is_final_error() {
                    return vec![done];
                }
                one_of(done, ended)
            }
        }
    }

    /// When and of whom these partitions are asked once more, if other replicas have all of them and the node's times are known.
    fn hedge(&self, id: NodeId, partitions: &[PartitionId], tried: &Tried) -> Option<Hedge> {
        let wait = self.loads[&id].hedge_after().filter(|_| self.wanted.hedged)?;
        let mut tried = tried.clone();
        partitions.iter().for_each(|&partition| tried.entry(partition).or_default().push(id));
        let (others, none) = self.assign(&partitions.iter().copied().collect(), &tried);
        none.is_empty().then_some(Hedge { wait, others })
    }

    async fn send<R, F>(&self, id: NodeId, partitions: Vec<PartitionId>, request: &impl Fn(Ask) -> F) -> Done<R>
    where
        F: Future<Output = Reply<R>>,
    {
        let under_way = self.loads[&id].begin();
        let node = Arc::clone(&self.members[&id]);
        let reply = request(Ask { id, node, partitions: partitions.clone() }).await;
        match &reply {
            Err(error) if error.code == ErrorCode::Unavailable => {
                under_way.failed();
                self.fleet.counts.failures.increment(1);
            }
            // An error that the query is to blame for takes no time that says anything.
            Err(_) => drop(under_way),
            Ok(_) => under_way.answered(),
        }
        Done { id, partitions, reply }
    }

    /// Waits for the first replica that has applied everything before an offset.
    async fn applied(&self, partition: PartitionId, offset: Offset, deadline: Instant) -> Result<(), ApiError> {
        let known = |id: &NodeId| self.loads[id].has_applied(partition, offset);
        if self.replicas(partition).any(|id| known(&id)) {
            return Ok(());
        }
        let waits = self
            .replicas(partition)
            .map(|id| async move { (id, self.members[&id].applied(vec![(partition, offset)], deadline).await) });
        let (mut waits, mut late) = (waits.collect::<FuturesUnordered<_>>(), None);
        while let Some((id, waited)) = waits.next().await {
            match waited {
                Ok(()) => {
                    self.loads[&id].applied(partition, offset);
                    return Ok(());
                }
                Err(error) if is_absence(&error) => {}
                Err(error) => late = Some(error),
            }
        }
        late.map_or(Ok(()), Err)
    }
}
