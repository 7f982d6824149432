//! The follower: the one that reads every partition behind its newest record, counts the rows, and shows the records to
//! readers. A thread of its own, with one client for all partitions, so that each record crosses the network once however many
//! read it here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    consumer::BaseConsumer,
    message::{BorrowedMessage, Message},
};
use types::{Offset, PartitionId};

use super::{
    client::{Quiet, Trouble},
    config::KafkaOpenError,
    fetch::{Source, offset_of},
    notes::Notes,
    record::{block_of, time_of},
    store::{Followed, Store},
};
use crate::api::Record;

/// How often to look whether the log ends; records are taken as they come.
const POLL_WAIT: Duration = Duration::from_millis(200);
/// Records that are shown together at most: readers see the first of them that much later.
const BATCH_RECORDS: usize = 64;
/// How often a record that was passed over is asked for again, before it counts as lost: a batch may have been damaged on its way.
const ASKED_AGAIN_MAX: u32 = 2;
/// How long to wait for brokers that cannot say what a partition holds.
const RETRY: Duration = Duration::from_millis(500);

/// The one that reads.
pub(crate) struct Follower {
    pub(crate) store: Arc<Store>,
    pub(crate) source: Source,
    pub(crate) consumer: BaseConsumer<Quiet>,
    /// The offsets of the next records; `None` of a partition that cannot be followed any more.
    pub(crate) next: Vec<Option<Offset>>,
    /// How often each of them was asked for again.
    pub(crate) asked_again: Vec<u32>,
    /// Reads what all processes have stored.
    pub(crate) notes: Box<dyn Fn() -> Result<Notes, KafkaOpenError> + Send>,
    /// Ends it. Relaxed: it orders nothing, and is seen within a poll.
    pub(crate) stop: Arc<AtomicBool>,
}

impl Follower {
    /// Follows until it is told to stop.
    pub(crate) fn run(mut self) {
        let mut read = Vec::new();
        while !self.stop.load(Relaxed) {
            self.step(&mut read);
        }
    }

    /// Follows until every partition has come to its end as of now, which the log's start waits for.
    pub(crate) fn catch_up(&mut self) {
        let ends: Vec<_> = {
            let state = self.store.lock();
            (0..self.next.len()).map(|at| state.bounds(partition(at)).end).collect()
        };
        let (mut read, mut said) = (Vec::new(), Instant::now());
        let waits = |next: &[Option<Offset>]| {
            let left = |(next, end): (&Option<Offset>, &Offset)| next.map_or(0, |next| end.0.saturating_sub(next.0));
            next.iter().zip(&ends).map(left).sum::<u64>()
        };
        while waits(&self.next) > 0 && !self.stop.load(Relaxed) {
            self.step(&mut read);
            if said.elapsed() > Duration::from_secs(5) {
                said = Instant::now();
                tracing::info!(records = waits(&self.next), "event log: counting what the topic holds");
            }
        }
    }

    fn step(&mut self, read: &mut Vec<(PartitionId, Followed)>) {
        if !self.take(read) {
            self.find_again(read);
        }
        self.show(read);
    }

    /// Takes what came; waits a moment for the first. `false`: what was to be read next did not come.
    fn take(&mut self, read: &mut Vec<(PartitionId, Followed)>) -> bool {
        let mut wait = POLL_WAIT;
        while read.len() < BATCH_RECORDS {
            match self.consumer.poll(wait) {
                None => return true,
                Some(Ok(message)) => {
                    let Ok(at) = usize::try_from(message.partition()) else { continue };
                    let (offset, what) = (offset_of(message.offset()), followed(&message, partition(at)));
                    drop(message);
                    if !self.take_in(at, offset, what, read) {
                        return false;
                    }
                }
                Some(Err(error)) => match Trouble::of(&error) {
                    Trouble::Passing => tracing::debug!(%error, "event log: follow kafka"),
                    // The hole in the offsets that this leaves is met with the next record.
                    Trouble::Damage => tracing::error!(%error, "event log: a batch is damaged"),
                    Trouble::NotThere => {
                        tracing::error!(%error, "event log: the brokers do not have what was to be read next");
                        return false;
                    }
                },
            }
            wait = Duration::ZERO;
        }
        true
    }

    /// Takes in what lies at an offset; `false`: something else was to come first.
    fn take_in(&mut self, at: usize, offset: Offset, what: Followed, read: &mut Vec<(PartitionId, Followed)>) -> bool {
        let Some(&Some(next)) = self.next.get(at) else { return true };
        if offset < next {
            return true;
        }
        if offset > next && self.asked_again[at] < ASKED_AGAIN_MAX {
            self.asked_again[at] += 1;
            return false;
        }
        self.asked_again[at] = 0;
        if offset > next {
            tracing::error!(partition = at, from = next.0, to = offset.0, "event log: records cannot be read");
            let (instead, go_on) = self.in_place_of(partition(at), offset);
            read.push((partition(at), instead));
            if go_on > offset {
                self.next[at] = Some(go_on);
                return false;
            }
        }
        read.push((partition(at), what));
        self.next[at] = Some(offset.next());
        true
    }

    fn show(&self, read: &mut Vec<(PartitionId, Followed)>) {
        // Stable: a partition's records keep their order.
        read.sort_by_key(|(partition, _)| *partition);
        let mut rest = read.drain(..).peekable();
        while let Some((partition, first)) = rest.next() {
            let more = std::iter::from_fn(|| rest.next_if(|(of, _)| *of == partition).map(|(_, read)| read));
            self.store.follow(partition, std::iter::once(first).chain(more));
        }
    }

    /// Asks the brokers what they hold and goes on from there: behind a gap, or no more where records are gone that were read.
    fn find_again(&mut self, read: &mut Vec<(PartitionId, Followed)>) {
        for at in 0..self.next.len() {
            let Some(next) = self.next[at] else { continue };
            let Some((start, end)) = self.bounds(partition(at)) else { return };
            if next < start {
                tracing::error!(
                    partition = at,
                    from = next.0,
                    to = start.0,
                    "event log: records left before they were counted"
                );
                let (instead, go_on) = self.in_place_of(partition(at), start);
                read.push((partition(at), instead));
                self.store.starts_at(partition(at), start);
                self.next[at] = Some(go_on);
            } else if end < next {
                tracing::error!(
                    partition = at,
                    read = next.0,
                    end = end.0,
                    "event log: the topic holds less than what was read of it: it was truncated or made anew"
                );
                self.store.truncated(partition(at));
                self.next[at] = None;
            }
        }
        let places = self.next.iter().enumerate().filter_map(|(at, next)| Some((partition(at), (*next)?)));
        match self.source.reader(places) {
            Ok(reader) => self.consumer = reader,
            Err(error) => tracing::error!(%error, "event log: go on reading"),
        }
    }

    /// What stands for records up to `end` that cannot be read, and where to go on: what a process counted that has read them, where
    /// there was one; else they are missing from all counts, which are the same everywhere.
    fn in_place_of(&self, partition: PartitionId, end: Offset) -> (Followed, Offset) {
        match (self.notes)() {
            Ok(mut notes) => {
                let stand = notes.stand(partition);
                if stand.next >= end {
                    let next = stand.next;
                    tracing::warn!(
                        partition = partition.0,
                        to = next.0,
                        "event log: goes by what another process counted"
                    );
                    return (Followed::Counted(stand), next);
                }
            }
            Err(error) => tracing::error!(%error, "event log: read what other processes counted"),
        }
        (Followed::Missing { next: end, header: None }, end)
    }

    /// What the brokers hold of a partition; waits until they say so.
    fn bounds(&self, partition: PartitionId) -> Option<(Offset, Offset)> {
        while !self.stop.load(Relaxed) {
            match self.source.bounds(&self.consumer, partition) {
                Ok(bounds) => return Some(bounds),
                Err(error) => tracing::warn!(%error, partition = partition.0, "event log: ask what a partition holds"),
            }
            std::thread::sleep(RETRY);
        }
        None
    }
}

/// What a message is that is the next of its partition.
fn followed(message: &BorrowedMessage<'_>, partition: PartitionId) -> Followed {
    let offset = offset_of(message.offset());
    match block_of(message, partition) {
        Ok((header, body)) => Followed::Record(Record { offset, append_time: time_of(message), header, body }),
        Err(header) => {
            tracing::error!(partition = partition.0, offset = offset.0, "event log: a record is damaged");
            Followed::Missing { next: offset.next(), header }
        }
    }
}

fn partition(at: usize) -> PartitionId {
    PartitionId(u32::try_from(at).expect("a log has at most 1,024 partitions"))
}
