//! Single events of many calls, stored together.
//!
//! A block of one event costs what a block costs: a head, a place in the log, a reader that finds it, an application to the
//! table. Many senders of single events pay that with every call. So events of different calls that came one by one go into the
//! same blocks, as many as there are when the log takes more, which is once a commit or so:
//!
//! 1. Only what has no need of a block of its own is joined: one event that is known by its id if it is to be known again (the
//!    identity of a batch stands in the head of its block), of a table without a JSON Schema that is known here with all
//!    columns, and with nothing wrong. Any other call goes its way alone, as it always did, and nothing
//!    of it has been stored by then. So a call's answer never hangs on another call's event.
//! 2. Events of different tenants do not meet.
//! 3. While the events of [`TURNS_MAX`] turns are on their way to the disk, what comes waits until one of them is there, or until it fills a
//!    turn. The log would have let it wait as long: it makes one group of all that comes during a sync. A turn is of [`CALLS_MAX`] calls
//!    at most: were all that wait in one, senders would all wait for their acks at one time, and the server for them at another.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
};

use admission::overload::spread;
use bytes::Bytes;
use codec::ProtobufBatch;
use event_log::Durability;
use futures_util::{FutureExt as _, StreamExt as _, future::join_all, stream::FuturesUnordered};
use tokio::sync::{Notify, oneshot};
use types::{ApiError, ErrorCode, TenantId};

use crate::{
    identity,
    in_flight::{Share, Waiting},
    ingest::{Ack, Ingest},
    judge::Judge,
    sort::{Known, Lookup, Rules, Sorted, SortedTable, Sorter},
    wire,
};

/// Turns under way that need not be full: one that the log makes durable, and one that waits for it.
const TURNS_MAX: usize = 2;
/// Turns under way where each that is begun is full, for logs that take long.
const FULL_TURNS_MAX: usize = 32;
/// Calls of one turn: some tenths of a millisecond on a thread of the network.
const CALLS_MAX: usize = 256;
/// Bytes of a call with an event that is joined: what is larger shares the costs of its block with itself.
const BODY_BYTES_MAX: usize = 4 << 10;

/// Calls that wait to be joined.
#[derive(Default)]
pub(crate) struct Together {
    calls: Mutex<VecDeque<Call>>,
    /// There are some.
    come: Notify,
}

/// A call with one event.
struct Call {
    tenant: TenantId,
    body: Bytes,
    share: Share,
    waiting: Waiting,
    joined: oneshot::Sender<Joined>,
}

/// What became of a call.
pub(crate) enum Joined {
    /// Its event is stored; the answer, an `IngestReply` with its prefix.
    Stored(Bytes),
    /// It is not, or nobody knows.
    Refused(ApiError),
    /// It is one of those that go alone.
    Alone {
        /// It was counted against the rate limits.
        admitted: bool,
        /// What it waits as.
        waiting: Waiting,
    },
}

/// Events in blocks, and whose they are.
struct Blocks {
    tenant: TenantId,
    tables: Vec<SortedTable>,
    /// With its table among `tables`.
    calls: Vec<(usize, Call)>,
}

impl Together {
    /// Waits until a call's event is stored with those of others. Given up meanwhile, it counts as waiting until its turn comes.
    pub(crate) async fn join(&self, tenant: TenantId, body: Bytes, share: Share, waiting: Waiting) -> Joined {
        let (joined, outcome) = oneshot::channel();
        self.add(Call { tenant, body, share, waiting, joined });
        let defect = || Joined::Refused(ApiError::internal("storing failed; this is a defect of the server"));
        outcome.await.unwrap_or_else(|_| defect())
    }

    fn add(&self, call: Call) {
        let mut calls = self.lock();
        calls.push_back(call);
        if calls.len() == 1 || calls.len() == CALLS_MAX {
            self.come.notify_one();
        }
    }

    /// The calls of the next turn, oldest first, but for those that were given up; none where it is not yet time for them.
    fn take(&self, turns_under_way: usize) -> Vec<Call> {
        let mut calls = self.lock();
        let begins = match turns_under_way {
            ..TURNS_MAX => true,
            TURNS_MAX..FULL_TURNS_MAX => calls.len() >= CALLS_MAX,
            FULL_TURNS_MAX.. => false,
        };
        let next = if begins { calls.len().min(CALLS_MAX) } else { 0 };
        calls.drain(..next).filter(|call| !call.joined.is_closed()).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Call>> {
        // Every change is complete before anything can panic.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Joins calls for as long as the gateway lives.
pub(crate) async fn join_calls(ingest: Arc<Ingest>) {
    let mut turns = FuturesUnordered::new();
    loop {
        let calls = ingest.together.take(turns.len());
        if !calls.is_empty() {
            let blocks = ingest.join(calls);
            turns.push(join_all(blocks.into_iter().map(|blocks| ingest.store_joined(blocks))));
            continue;
        }
        tokio::select! {
            () = ingest.together.come.notified() => {}
            Some(_) = turns.next() => {}
        }
    }
}

impl Ingest {
    /// Makes blocks of calls, for each tenant; those that go alone are told.
    fn join(&self, mut calls: Vec<Call>) -> Vec<Blocks> {
        let mut all = Vec::with_capacity(1);
        calls.sort_by_key(|call| call.tenant);
        while let Some(&Call { tenant, .. }) = calls.first() {
            let of_tenant = calls.partition_point(|call| call.tenant == tenant);
            let rest = calls.split_off(of_tenant);
            // Of a panic, which the hook has logged, the calls learn as nobody answers them.
            all.extend(catch_unwind(AssertUnwindSafe(|| self.join_some(tenant, calls))).unwrap_or_default());
            calls = rest;
        }
        all
    }

    fn join_some(&self, tenant: TenantId, calls: Vec<Call>) -> Option<Blocks> {
        // Where all together are too many for a limit, some may pass by themselves.
        if self.admit(tenant, calls.len() as u64).is_err() {
            calls.into_iter().for_each(|call| call.goes_alone(false));
            return None;
        }
        // Where one contradicts its table, each is held against it, so that the others need not go alone too.
        let sorted = [false, true].into_iter().find_map(|strict| self.sort_joined(tenant, &calls, strict));
        let Some((tables, table_of)) = sorted else {
            calls.into_iter().for_each(|call| call.goes_alone(true));
            return None;
        };
        let mut joined = Vec::with_capacity(calls.len());
        for (call, table) in calls.into_iter().zip(table_of) {
            match table {
                Some(table) => joined.push((table, call)),
                None => call.goes_alone(true),
            }
        }
        (!joined.is_empty()).then_some(Blocks { tenant, tables, calls: joined })
    }

    /// The calls' events by table, and the place of each event's table, which those have not that cannot be joined; `None`: that is
    /// so of all, or, unless this is `strict`, of some that it cannot name.
    fn sort_joined(
        &self,
        tenant: TenantId,
        calls: &[Call],
        strict: bool,
    ) -> Option<(Vec<SortedTable>, Vec<Option<usize>>)> {
        let rules = Rules {
            received: self.clock.now(),
            batch: None,
            any: self.any.fetch_add(1, Relaxed),
            strict,
            blocks_bytes_max: usize::MAX,
        };
        let judge = Judge::new(&*self.clock);
        // The places of the tables, in the order in which the sorter comes to ask for them; it leaves out those that it is refused.
        let (asked, known) = (RefCell::new(Vec::new()), Cell::new(0));
        let tables = |name: &_| {
            let table = self.catalog.cached(tenant, name).filter(|table| table.settings.json_schema.is_none());
            asked.borrow_mut().push(table.is_some().then(|| known.replace(known.get() + 1)));
            let unknown = || Lookup::Refused(ApiError::new(ErrorCode::NotFound, "its calls go alone"));
            table.map_or_else(unknown, Lookup::Known)
        };
        let mut builders = self.spare_builders();
        let mut sorter = Sorter::new(rules, Known { tables: &tables, schemas: None, judge: &judge }, &mut builders);
        let mut places = Vec::with_capacity(calls.len());
        for call in calls {
            let mut place = None;
            if let Ok(batch) = ProtobufBatch::parse(&call.body, 1) {
                let needs_id = !batch.producer_id().is_empty();
                batch.for_each(|decoded| {
                    let event = decoded.event.ok().filter(|event| !needs_id || event.event_id.is_some());
                    place = event
                        .and_then(|event| sorter.push(&event, 0).ok())
                        .and_then(|()| asked.borrow()[sorter.last_table()]);
                });
            }
            places.push(place);
        }
        let sorted = sorter.finish();
        self.keep_builders(builders);
        let Ok(Sorted::Tables(tables)) = sorted else { return None };
        let known = tables.iter().all(|table| !table.conflict && table.new_columns.is_empty());
        known.then_some((tables, places))
    }

    /// Appends blocks, and answers their calls when all is durable. Of a panic they learn as of one before.
    async fn store_joined(&self, blocks: Blocks) {
        let _ = AssertUnwindSafe(self.store_blocks(blocks)).catch_unwind().await;
    }

    async fn store_blocks(&self, blocks: Blocks) {
        let Blocks { tenant, mut tables, calls } = blocks;
        self.counted.arrived(calls.iter().map(|(_, call)| call.body.len()).sum());
        let bytes: usize = tables.iter().flat_map(|table| &table.blocks).map(|block| block.body.len()).sum();
        let blocks = tables.iter_mut().flat_map(|table| std::mem::take(&mut table.blocks)).collect();
        let known: Vec<_> = tables.into_iter().map(|table| table.table).collect();
        let stored = match calls[0].1.share.holding(bytes as u64) {
            Ok(_held) => self.append(&known, blocks).await,
            Err(error) => Err(error),
        };
        if let Err(error) = stored {
            for (_, call) in calls {
                // Each has its own time to come back.
                let after = error.retry_after.map(|after| spread(after, self.any.fetch_add(1, Relaxed)));
                call.refuse(ApiError { retry_after: after, ..error.clone() });
            }
            return;
        }
        self.counted.accepted(calls.len() as u64);
        let reply = |table| {
            let token = self.acked.token(tenant, std::iter::once(table));
            let durability = self.log.durability();
            wire::framed(&wire::reply(Ack { accepted: 1, rejected: Vec::new(), durability, token: Some(token) }))
        };
        let replies: Vec<Bytes> = known.iter().map(|table| reply(table.as_ref())).collect();
        for (table, Call { waiting, joined, .. }) in calls {
            waiting.acked();
            // Nobody waits where the call was given up; its event stands all the same.
            let _ = joined.send(Joined::Stored(replies[table].clone()));
        }
    }
}

impl Call {
    fn goes_alone(self, admitted: bool) {
        // Nobody waits where the call was given up; nothing of it is stored then.
        let _ = self.joined.send(Joined::Alone { admitted, waiting: self.waiting });
    }

    fn refuse(self, error: ApiError) {
        // As above.
        let _ = self.joined.send(Joined::Refused(error));
    }
}

/// Whether events of different calls may share an append to a log. Only one that makes all partitions durable together: in
/// another, where an append of several partitions waits for the slowest and fails with any, calls for one would hang on those for others.
pub(crate) fn may_join(durability: Durability) -> bool {
    durability == Durability::Synced
}

/// Whether a body is that of a call whose event may be joined: one event alone. What of that cannot be told, as the body is damaged or its
/// batch wrongly named, is denied.
pub(crate) fn may_be_joined(body: &[u8]) -> bool {
    let one = |batch: ProtobufBatch<'_>| {
        batch.events() == 1 && identity::of_producer(batch.producer_id().as_bytes(), batch.sequence()).is_ok()
    };
    body.len() <= BODY_BYTES_MAX && ProtobufBatch::parse(body, 1).is_ok_and(one)
}
