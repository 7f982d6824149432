//! Clients: what they send, what they know of it, what they send again.
//!
//! A client that has no reply knows nothing, and sends the same again until it has one: in another order or mixed with other
//! events where each has an id of its own, and as it was where the batch is the identity. Now and then one sends again what
//! was acked, repeats an event within a batch, or uses an id for something else.

use codec::BatchIdentity;
use types::TableKey;

use crate::{
    events::{Batch, Event},
    profile::Profile,
    random::Random,
};

/// What a client knows of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing: it was not sent, was refused, or the reply did not come.
    Unknown,
    /// On its way.
    Sent,
    /// It is durable.
    Acked,
}

/// A batch with what its client knows.
struct Tracked {
    batch: Batch,
    outcome: Outcome,
}

/// Names a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket(usize);

/// All clients.
#[derive(Default)]
pub(crate) struct Clients {
    batches: Vec<Tracked>,
    sequence: u64,
    events: u64,
    ids: u64,
}

/// Producers that number their batches.
const PRODUCERS: u64 = 3;
/// Batches without a reply at a time; more wait for these.
const UNKNOWN_MAX: usize = 12;
/// Most of what is sent again was sent this lately, in batches.
const RECENT_BATCHES: usize = 24;
/// Event times of the ordinary, µs around the time of sending.
const JITTER_US: i64 = 2_000_000;
/// How far stragglers and outliers lie away, µs.
const FAR_US: i64 = 86_400_000_000;

impl Clients {
    /// The next batch to send to one of these tables, its outcome being that it was sent.
    pub(crate) fn next(
        &mut self,
        tables: &[TableKey],
        now: i64,
        profile: &Profile,
        random: &mut Random,
    ) -> Option<(Ticket, Batch)> {
        let unknown = self.unknown(tables);
        let again = unknown.len() >= UNKNOWN_MAX || random.once_in(2);
        let ticket = match unknown.is_empty() {
            false if again => unknown[random.index(unknown.len())],
            _ if random.once_in(4) && !self.batches.is_empty() => self.some_batch(random),
            _ => self.new_batch(tables, now, profile, random)?,
        };
        let tracked = &mut self.batches[ticket.0];
        if !tables.contains(&tracked.batch.key) || tracked.outcome == Outcome::Sent {
            return None;
        }
        tracked.outcome = Outcome::Sent;
        let batch = tracked.batch.clone();
        Some((ticket, self.as_sent(batch, random)))
    }

    /// The batches to these tables of which nothing is known.
    pub(crate) fn unknown(&self, tables: &[TableKey]) -> Vec<Ticket> {
        let open = |tracked: &Tracked| tracked.outcome == Outcome::Unknown && tables.contains(&tracked.batch.key);
        (0..self.batches.len()).filter(|at| open(&self.batches[*at])).map(Ticket).collect()
    }

    /// A batch as it was meant, to be sent once more.
    pub(crate) fn resend(&mut self, ticket: Ticket) -> Batch {
        self.batches[ticket.0].outcome = Outcome::Sent;
        self.batches[ticket.0].batch.clone()
    }

    /// A reply came, or never will. What was acked once stays so.
    pub(crate) fn learn(&mut self, ticket: Ticket, outcome: Outcome) {
        self.batches[ticket.0].outcome = outcome;
    }

    /// The life of the process that was asked is over: what was on its way is unknown.
    pub(crate) fn lose_replies(&mut self) {
        let sent = self.batches.iter_mut().filter(|tracked| tracked.outcome == Outcome::Sent);
        sent.for_each(|tracked| tracked.outcome = Outcome::Unknown);
    }

    fn some_batch(&self, random: &mut Random) -> Ticket {
        let recent = if random.once_in(5) { self.batches.len() } else { self.batches.len().min(RECENT_BATCHES) };
        Ticket(self.batches.len() - 1 - random.index(recent))
    }

    fn new_batch(&mut self, tables: &[TableKey], now: i64, profile: &Profile, random: &mut Random) -> Option<Ticket> {
        let key = *tables.get(random.index(tables.len().max(1)))?;
        let identity = random.once_in(3).then(|| {
            self.sequence += 1;
            BatchIdentity { producer: 1 + u128::from(random.below(PRODUCERS)), sequence: self.sequence }
        });
        let count = 1 + random.below(profile.batch_events_max);
        let mut events = Vec::new();
        for _ in 0..count {
            let event = self.new_event(identity.is_some(), now, random);
            events.push(event.clone());
            if random.once_in(30) {
                events.push(event);
            }
        }
        self.batches.push(Tracked { batch: Batch { key, identity, events }, outcome: Outcome::Unknown });
        Some(Ticket(self.batches.len() - 1))
    }

    fn new_event(&mut self, batch_has_identity: bool, now: i64, random: &mut Random) -> Event {
        self.events += 1;
        let nameless = if batch_has_identity { random.once_in(2) } else { random.once_in(100) };
        let id = match random.below(40) {
            _ if nameless => None,
            // An id that was used before, for something else.
            0 if self.ids > 0 => Some(random.below(self.ids)),
            _ => {
                self.ids += 1;
                Some(self.ids - 1)
            }
        };
        let time = match random.below(60) {
            0 => None,
            1 => Some(now - random.between(0, FAR_US)),
            2 => Some(now + random.between(0, FAR_US)),
            _ => Some(now + random.between(-JITTER_US, 0)),
        };
        let key = (!random.once_in(10)).then(|| random.below(6) as u8);
        Event { n: self.events, id, key, time }
    }

    /// A batch as its client sends it this time.
    fn as_sent(&self, mut batch: Batch, random: &mut Random) -> Batch {
        if batch.identity.is_some() || batch.events.iter().any(|event| event.id.is_none()) {
            return batch;
        }
        if random.once_in(3) {
            random.shuffle(&mut batch.events);
        }
        if random.once_in(5) {
            // Events of another batch once more, whatever became of that one.
            let other = &self.batches[self.some_batch(random).0].batch;
            if other.key == batch.key {
                batch.events.extend(other.events.iter().filter(|event| event.id.is_some()).cloned());
            }
        }
        batch
    }
}
