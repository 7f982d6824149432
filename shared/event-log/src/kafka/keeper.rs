//! The keeper: every few seconds it stores where the partitions stand, and only then deletes what was released, so that no row
//! leaves the topic before it was counted. A thread of its own.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{TopicPartitionList, consumer::BaseConsumer, error::KafkaError};
use tokio::sync::watch;
use types::{Offset, PartitionId};

use super::{
    appender::Appender,
    client::Quiet,
    fetch::{Source, offset_of, partition_number},
    notes::store_stand,
    store::Store,
    topic::Admin,
};

/// How long the last look waits for what was acked and not yet read.
const LAST_TIMEOUT: Duration = Duration::from_secs(2);

/// Ends the keeper.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

/// The one that keeps.
pub(crate) struct Keeper {
    pub(crate) store: Arc<Store>,
    pub(crate) appender: Arc<Appender>,
    pub(crate) admin: Admin,
    pub(crate) source: Source,
    pub(crate) consumer: BaseConsumer<Quiet>,
    pub(crate) stands_topic: String,
    pub(crate) delete_released: bool,
    pub(crate) interval: Duration,
    /// Up to where stands are stored.
    pub(crate) stored: Vec<Offset>,
    pub(crate) stop: Arc<Stop>,
    /// Says that it has ended.
    pub(crate) ended: watch::Sender<bool>,
}

impl Stop {
    pub(crate) fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits; `true` where it is time to stop.
    fn wait(&self, wait: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(stopped, wait, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Keeper {
    /// Keeps until it is told to stop, and once more then.
    pub(crate) fn run(mut self) {
        while !self.stop.wait(self.interval) {
            self.keep();
        }
        self.wait_for_acked();
        self.keep();
        // Nobody may wait for it.
        let _ = self.ended.send(true);
    }

    fn keep(&mut self) {
        let kept = self.store_stands().and_then(|()| match self.delete_released {
            true => self.delete(),
            false => self.look_for_starts(),
        });
        if let Err(error) = kept {
            tracing::warn!(%error, "event log: store what was counted; trying again");
        }
    }

    fn store_stands(&mut self) -> Result<(), KafkaError> {
        for at in 0..self.stored.len() {
            let stand = {
                let state = self.store.lock();
                let of = &state.partitions[at];
                (of.stand.next > self.stored[at] && !of.truncated).then(|| of.stand.clone())
            };
            let Some(stand) = stand else { continue };
            store_stand(&self.appender, &self.stands_topic, partition(at), &stand.encode())?;
            self.stored[at] = stand.next;
        }
        Ok(())
    }

    /// Deletes what was released and is counted in what is stored.
    fn delete(&self) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        for (at, stored) in self.stored.iter().enumerate() {
            let (start, released) = {
                let state = self.store.lock();
                (state.partitions[at].start, state.partitions[at].released)
            };
            let to = released.min(*stored);
            if start < to {
                let to = rdkafka::Offset::Offset(to.0.cast_signed());
                list.add_partition_offset(&self.source.topic, partition_number(partition(at)), to)?;
            }
        }
        if list.count() == 0 {
            return Ok(());
        }
        let Admin { client, runtime } = &self.admin;
        let deleted = runtime.block_on(client.delete_records(&list, &Admin::options()))?;
        for element in deleted.elements() {
            element.error()?;
            if let (Ok(number), rdkafka::Offset::Offset(start)) = (u32::try_from(element.partition()), element.offset())
            {
                self.store.starts_at(PartitionId(number), offset_of(start));
            }
        }
        Ok(())
    }

    /// Sees what the topic's own retention has left.
    fn look_for_starts(&self) -> Result<(), KafkaError> {
        for at in 0..self.stored.len() {
            let (start, _) = self.source.bounds(&self.consumer, partition(at))?;
            self.store.starts_at(partition(at), start);
        }
        Ok(())
    }

    /// Waits until what was acked to this process has been counted too, but not for long.
    fn wait_for_acked(&self) {
        let began = Instant::now();
        for at in 0..self.stored.len() {
            let mut state = self.store.lock();
            while state.of(partition(at)).stand.next < state.bounds(partition(at)).end {
                let Some(left) = LAST_TIMEOUT.checked_sub(began.elapsed()) else { return };
                let waited = self.store.grown(partition(at)).wait_timeout(state, left);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

fn partition(at: usize) -> PartitionId {
    PartitionId(u32::try_from(at).expect("a log has at most 1,024 partitions"))
}
