//! What all tasks of a run share.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::RwLock;

use super::{
    event::{Lane, Table},
    oracle::{Known, Oracle},
};
use crate::random::Random;

/// Wrong answers that are kept; one is enough to fail.
const VIOLATIONS_MAX: usize = 20;

/// Where the server is, or where the services of a cluster are: whichever of several is asked must make no difference.
#[derive(Debug)]
pub(crate) struct Addresses {
    /// Of each gateway, by HTTP.
    pub(crate) events: Vec<String>,
    /// Of the same gateways, by gRPC.
    pub(crate) gateway_grpc: Vec<String>,
    pub(crate) query: Vec<String>,
    pub(crate) ledger: String,
}

/// What clients do, and what they may rely on.
#[derive(Debug)]
pub(crate) struct Conduct {
    /// What the tables are created with: batches sent again within it must not count again.
    pub(crate) dedup_window: Duration,
    /// How long the client library sends a batch again.
    pub(crate) retried_for: Duration,
    /// Whether batches are given up now and then. Only one server's death makes it final what became of them.
    pub(crate) gives_up: bool,
    /// Time until an answer without tokens has to count everything, once nobody sends.
    pub(crate) agreed_within: Duration,
}

/// What acks of a lane to a table prove: who presents these tokens sees these events.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown {
    pub(crate) tokens: Vec<String>,
    pub(crate) covers: Known,
}

/// Counts of what happened.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Sendings that were refused or whose outcome was unknown, and that were repeated.
    pub(crate) retried: AtomicU64,
    /// Requests with events that a gateway answered with a refusal for now.
    pub(crate) events_refused: AtomicU64,
    /// Batches sent again although they were acked.
    pub(crate) repeated: AtomicU64,
    /// Batches sent on two connections at once.
    pub(crate) twins: AtomicU64,
    /// Batches given up after an unknown outcome.
    pub(crate) given_up: AtomicU64,
    /// Questions answered, and complete.
    pub(crate) answered: AtomicU64,
    /// Of these, with tokens.
    pub(crate) with_tokens: AtomicU64,
    /// Answers that said that they were not complete.
    pub(crate) partial: AtomicU64,
    /// Questions refused for now, or not answered because the server died.
    pub(crate) refused: AtomicU64,
    /// Questions about a table that was not known to be there yet.
    pub(crate) early: AtomicU64,
    /// Questions to which one query API gave no answer and another one did.
    pub(crate) asked_again: AtomicU64,
}

/// What all tasks of a run share.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) addresses: Addresses,
    /// Times of events count from here, µs since the epoch.
    pub(crate) origin: i64,
    pub(crate) conduct: Conduct,
    /// Told apart by this from the producers of other runs.
    pub(crate) seed: u64,
    pub(crate) counts: Counts,
    /// Clients hold it open for each batch; whoever closes it knows that all is settled.
    pub(crate) gate: RwLock<()>,
    /// Asks clients that keep several batches under way to settle them.
    pub(crate) hush: AtomicBool,
    /// The run is over.
    pub(crate) over: AtomicBool,
    /// How often the server, or a gateway of the cluster, was started again.
    pub(crate) life: AtomicU64,
    oracle: Mutex<Oracle>,
    shown: Mutex<HashMap<(Table, Lane), Shown>>,
    /// What was acked before the server was last started: no answer since may miss any of it, token or not.
    settled_before_start: Mutex<Known>,
    violations: Mutex<Vec<String>>,
    /// Why the last question that was refused was.
    refusal: Mutex<Option<String>>,
    /// The same of events.
    events_refusal: Mutex<Option<String>>,
}

impl Scene {
    pub(crate) fn new(addresses: Addresses, origin: i64, conduct: Conduct, seed: u64) -> Self {
        Self {
            addresses,
            origin,
            conduct,
            seed,
            counts: Counts::default(),
            gate: RwLock::new(()),
            hush: AtomicBool::new(false),
            over: AtomicBool::new(false),
            life: AtomicU64::new(0),
            oracle: Mutex::default(),
            shown: Mutex::default(),
            settled_before_start: Mutex::default(),
            violations: Mutex::default(),
            refusal: Mutex::default(),
            events_refusal: Mutex::default(),
        }
    }

    pub(crate) fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock().expect("no holder of this lock panics")
    }

    /// All batches of a lane below `batches` are acked.
    pub(crate) fn settle(&self, lane: Lane, batches: u64) {
        let took = self.oracle().settle(lane, batches);
        // Beyond the window a batch may count twice, and the run would prove nothing.
        if took > self.conduct.dedup_window.mul_f64(SHARE_OF_WINDOW) {
            self.violate(format!("a batch of {} took {took:?} from first sending to ack: too slow a run", lane.name()));
        }
    }

    /// A batch of a lane that is still safe to send again.
    pub(crate) fn repeatable(&self, lane: Lane, random: &mut Random) -> Option<u64> {
        self.oracle().recent(lane, self.conduct.dedup_window.mul_f64(SHARE_OF_WINDOW), random)
    }

    /// The newest tokens of a lane for a table.
    pub(crate) fn show(&self, table: Table, lane: Lane, shown: Shown) {
        self.shown.lock().expect("no holder of this lock panics").insert((table, lane), shown);
    }

    /// The newest tokens for a table, of each lane that writes to it.
    pub(crate) fn shown(&self, table: Table) -> Vec<Shown> {
        let shown = self.shown.lock().expect("no holder of this lock panics");
        table.lanes().iter().filter_map(|(lane, _)| shown.get(&(table, *lane)).cloned()).collect()
    }

    /// The server is dead; what was acked until now is what its next life has to begin with.
    pub(crate) fn died(&self) {
        let certain = self.oracle().certain();
        *self.settled_before_start.lock().expect("no holder of this lock panics") = certain;
        self.restarts();
    }

    /// A gateway is about to end: the tokens of its next life cover nothing of this one.
    pub(crate) fn restarts(&self) {
        // Relaxed: only counts; what depends on it reads it under the locks.
        self.life.fetch_add(1, Relaxed);
    }

    /// What the token of a batch's ack covers; `known`: what was acked before the batch was first sent. Of several gateways each
    /// speaks for itself, so there it is the batch alone.
    pub(crate) fn covered(&self, lane: Lane, batch: u64, known: &Known) -> Known {
        match self.addresses.events.len() {
            1 => known.later(&self.oracle().certain().only(lane)),
            _ => Known::of(lane, lane.numbers(batch)),
        }
    }

    /// A question was refused, or no query API answered it.
    pub(crate) fn refuse(&self, why: String) {
        self.count(|counts| &counts.refused);
        *self.refusal.lock().expect("no holder of this lock panics") = Some(why);
    }

    /// Why the last question that was refused was.
    pub(crate) fn last_refusal(&self) -> Option<String> {
        self.refusal.lock().expect("no holder of this lock panics").clone()
    }

    /// A gateway refused events for now.
    pub(crate) fn refuse_events(&self, why: String) {
        self.count(|counts| &counts.events_refused);
        *self.events_refusal.lock().expect("no holder of this lock panics") = Some(why);
    }

    /// Why the last events that were refused were.
    pub(crate) fn last_events_refusal(&self) -> Option<String> {
        self.events_refusal.lock().expect("no holder of this lock panics").clone()
    }

    /// What no answer may miss, even without a token.
    pub(crate) fn settled_before_start(&self) -> Known {
        self.settled_before_start.lock().expect("no holder of this lock panics").clone()
    }

    /// Something is not as promised.
    pub(crate) fn violate(&self, what: String) {
        let mut violations = self.violations.lock().expect("no holder of this lock panics");
        if violations.len() < VIOLATIONS_MAX {
            violations.push(what);
        }
    }

    /// What was not as promised so far.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.violations.lock().expect("no holder of this lock panics").clone()
    }

    /// Whether the run is over.
    pub(crate) fn is_over(&self) -> bool {
        // Relaxed: nothing else is read because of it.
        self.over.load(Relaxed)
    }

    /// Adds one to a count.
    pub(crate) fn count(&self, which: impl FnOnce(&Counts) -> &AtomicU64) {
        // Relaxed: only a count.
        which(&self.counts).fetch_add(1, Relaxed);
    }

    /// The producer of a lane in this run.
    pub(crate) fn producer(&self, lane: Lane) -> String {
        format!("{}-{}", lane.name(), self.seed)
    }
}

/// Share of the window within which batches are sent again: the server counts its window from a later moment than we do, but
/// a batch may wait on its way.
const SHARE_OF_WINDOW: f64 = 0.5;
