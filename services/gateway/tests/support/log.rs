//! A log in memory whose state a test can choose.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use codec::{BodyView, EventRef};
use event_log::{Append, AppendError, Appended, Bounds, Durability, EventLog, Load, LogLedger, LogReader, ReadError};
use tokio::sync::watch;
use types::{LogIdentity, Offset, PartitionId, TableKey, Timestamp};

/// How the log is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It takes blocks.
    Well,
    /// Its queue is 91 % full.
    Filling,
    /// Its queue is full.
    Full,
    /// Its disk fails; what was appended is not known.
    Failing,
    /// It is quiet until its state is another one.
    Stalled,
    /// It appends, and then says that it failed.
    Uncertain,
}

pub struct MemoryLog {
    partitions: Vec<Mutex<Vec<Append>>>,
    state: watch::Sender<State>,
    /// Whether it is one of brokers.
    of_brokers: AtomicBool,
    /// Calls of `append`.
    asked: watch::Sender<usize>,
    /// Answers to come before the state counts, `true` for success.
    script: Mutex<Vec<State>>,
}

impl MemoryLog {
    pub fn new(partitions: usize) -> Self {
        Self {
            partitions: (0..partitions).map(|_| Mutex::default()).collect(),
            state: watch::Sender::new(State::Well),
            of_brokers: AtomicBool::new(false),
            asked: watch::Sender::new(0),
            script: Mutex::default(),
        }
    }

    pub fn set(&self, state: State) {
        self.state.send_replace(state);
    }

    /// From now on it is one of brokers, each of which has some of the partitions.
    pub fn goes_to_brokers(&self) {
        self.of_brokers.store(true, SeqCst);
    }

    /// The next appends fare so, in this order.
    pub fn next(&self, states: &[State]) {
        self.script.lock().unwrap().extend(states.iter().rev());
    }

    /// Waits until `append` was called so often.
    pub async fn asked(&self, times: usize) {
        let mut asked = self.asked.subscribe();
        let often = tokio::time::timeout(Duration::from_secs(20), asked.wait_for(|asked| *asked >= times));
        often.await.expect("`append` was called so often").unwrap();
    }

    /// How often `append` was called.
    pub fn times_asked(&self) -> usize {
        *self.asked.borrow()
    }

    /// Where a block lies in its partition.
    pub fn offset_of(&self, block: &Append) -> Offset {
        let blocks = self.partitions[block.header.partition.0 as usize].lock().unwrap();
        let at = blocks.iter().position(|other| other.body.as_ptr() == block.body.as_ptr());
        Offset(at.expect("it was taken") as u64)
    }

    /// All blocks, by partition.
    pub fn blocks(&self) -> Vec<Append> {
        self.partitions.iter().flat_map(|blocks| blocks.lock().unwrap().clone()).collect()
    }

    pub fn rows(&self) -> usize {
        self.blocks().iter().map(|block| block.header.rows as usize).sum()
    }

    /// Every event as JSON with its index in its batch, checked on the way: what the log holds is well formed.
    pub fn events(&self) -> Vec<(Append, u32, String)> {
        let mut events = Vec::new();
        for block in self.blocks() {
            let view = BodyView::parse(&block.body).unwrap();
            assert_eq!(view.rows() as u32, block.header.rows);
            assert_eq!(view.times().min_max(), (block.header.time_min.0, block.header.time_max.0));
            for row in 0..view.rows() {
                let dimensions = view.dimensions().iter();
                let dimensions: Vec<_> = dimensions.filter_map(|d| Some((d.name(), d.value(row)?))).collect();
                let metrics = view.metrics().iter().map(|metric| (metric.name(), metric.values().get(row)));
                let metrics: Vec<_> = metrics.filter(|(_, value)| !value.is_nan()).collect();
                let event = EventRef {
                    namespace: "",
                    table: "",
                    event_time: Some(view.times().get(row)),
                    event_id: view.ids().and_then(|ids| ids.get(row)),
                    dimensions: &dimensions,
                    metrics: &metrics,
                };
                let index = view.batch_indexes().map_or(row as u32, |indexes| indexes.get(row));
                events.push((block.clone(), index, event.to_json()));
            }
        }
        events
    }
}

#[async_trait]
impl EventLog for MemoryLog {
    fn identity(&self) -> LogIdentity {
        LogIdentity(1)
    }

    fn partitions(&self) -> u32 {
        self.partitions.len() as u32
    }

    fn durability(&self) -> Durability {
        if self.of_brokers.load(SeqCst) { Durability::Replicated } else { Durability::Synced }
    }

    async fn append(&self, blocks: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        self.asked.send_modify(|asked| *asked += 1);
        let scripted = self.script.lock().unwrap().pop();
        let state = match scripted {
            Some(state) => state,
            None => *self.state.subscribe().wait_for(|state| *state != State::Stalled).await.unwrap(),
        };
        let failed = || AppendError::Unavailable(Arc::new(io::Error::other("no disk")));
        match state {
            State::Full => return Err(AppendError::Overloaded { retry_after: Duration::from_secs(1) }),
            State::Failing => return Err(failed()),
            State::Well | State::Filling | State::Stalled | State::Uncertain => {}
        }
        let place = |block: Append| {
            let partition = block.header.partition;
            let mut records = self.partitions[partition.0 as usize].lock().unwrap();
            records.push(block);
            Appended { partition, offset: Offset(records.len() as u64 - 1), append_time: Timestamp(0) }
        };
        let appended = blocks.into_iter().map(place).collect();
        if state == State::Uncertain { Err(failed()) } else { Ok(appended) }
    }

    fn reader(&self, partition: PartitionId, wanted: Offset) -> Result<Box<dyn LogReader>, ReadError> {
        Err(ReadError::NoSuchOffset { partition, wanted })
    }

    fn bounds(&self, partition: PartitionId) -> Bounds {
        let end = self.partitions[partition.0 as usize].lock().unwrap().len() as u64;
        Bounds { start: Offset::ZERO, end: Offset(end), last_append_time: Timestamp::MIN }
    }

    fn append_time_of(&self, _: PartitionId, _: Offset) -> Option<Timestamp> {
        None
    }

    fn offset_at(&self, _: PartitionId, _: Timestamp) -> Offset {
        Offset::ZERO
    }

    fn ledger(&self, partition: PartitionId, _: TableKey, wanted: Offset) -> Result<LogLedger, ReadError> {
        Err(ReadError::NoSuchOffset { partition, wanted })
    }

    fn appended_bytes(&self, _: PartitionId) -> u64 {
        0
    }

    fn load(&self) -> Load {
        let queued_bytes = if *self.state.borrow() == State::Filling { 91 } else { 0 };
        Load { queued_bytes, queued_bytes_max: 100 }
    }

    fn release_before(&self, _: PartitionId, _: Offset) {}

    async fn close(&self) {}
}
