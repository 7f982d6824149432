//! `truenow.v1.Log`: what the log holds of a table, for reading it again.
//!
//! Reads block, so each call has a thread of the runtime's blocking pool, which waits for its client between two parts. Places
//! are few, and a tenant has a part of them: a client that takes nothing for [`TAKE_WAIT`] loses its place, and holds a few
//! blocks until it leaves. All calls together read no faster than [`READ_RATE`]: acks wait for the same disk.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use codec::BlockKind;
use event_log::{EventLog, ReadError, Record};
use proto::{
    catalog::Catalog,
    v1::{LogBlock, LogPart, LogPosition, LogTable, ReadTableRequest, log_part::Part, log_server::Log},
};
use tokio::{
    runtime::Handle,
    sync::mpsc::{self, error::SendTimeoutError},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use types::{ApiError, ErrorCode, Offset, PartitionId, Table, TableName, TenantId, Timestamp};

/// Calls that read at a time.
const CALLS_MAX: usize = 8;
/// And those of one tenant.
const TENANT_CALLS_MAX: usize = 2;
/// How long a client may take nothing. A replay into a table that is throttled takes a block now and then.
const TAKE_WAIT: Duration = Duration::from_secs(60);
/// Bytes of records a second that all calls read together, at most.
const READ_RATE: u64 = 256 << 20;
/// Parts that are made before the client has taken those before.
const PARTS_AHEAD: usize = 2;
/// Bytes of records read at a time, about.
const POLL_BYTES: usize = 1 << 20;
/// How long a record that is durable may take to be read.
const POLL_WAIT: Duration = Duration::from_secs(10);
/// When to come again where too many read.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The service.
pub(crate) struct LogService {
    catalog: Arc<dyn Catalog>,
    log: Arc<dyn EventLog>,
    calls: Arc<Calls>,
    pace: Arc<Pace>,
}

impl LogService {
    pub(crate) fn new(catalog: Arc<dyn Catalog>, log: Arc<dyn EventLog>) -> Self {
        Self { catalog, log, calls: Arc::default(), pace: Arc::default() }
    }
}

/// The calls that read now, by tenant.
#[derive(Debug, Default)]
struct Calls {
    reading: Mutex<HashMap<TenantId, usize>>,
}

/// The place of one call, for as long as this lives.
struct Call {
    calls: Arc<Calls>,
    tenant: TenantId,
}

impl Calls {
    fn begin(self: &Arc<Self>, tenant: TenantId) -> Result<Call, ApiError> {
        let mut reading = lock(&self.reading);
        let refused = |message| Err(ApiError::new(ErrorCode::ResourceExhausted, message).with_retry_after(RETRY_AFTER));
        if reading.get(&tenant).is_some_and(|calls| *calls >= TENANT_CALLS_MAX) {
            return refused(format!(
                "{TENANT_CALLS_MAX} calls of this tenant read the log already, which is as many as may"
            ));
        }
        if reading.values().sum::<usize>() >= CALLS_MAX {
            return refused(format!("{CALLS_MAX} calls read the log already, which is as many as may"));
        }
        *reading.entry(tenant).or_default() += 1;
        Ok(Call { calls: Arc::clone(self), tenant })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut reading = lock(&self.calls.reading);
        if let Some(calls) = reading.get_mut(&self.tenant) {
            *calls -= 1;
        }
        reading.retain(|_, calls| *calls > 0);
    }
}

/// How far ahead of [`READ_RATE`] calls have read.
#[derive(Debug, Default)]
struct Pace {
    /// When what was read is due.
    due: Mutex<Option<Instant>>,
}

impl Pace {
    /// Counts bytes that were read by now, and says how long to wait before the next.
    fn wait_after(&self, bytes: u64, now: Instant) -> Duration {
        let mut due = lock(&self.due);
        let next = due.map_or(now, |due| due.max(now)) + Duration::from_secs_f64(bytes as f64 / READ_RATE as f64);
        *due = Some(next);
        next - now
    }
}

/// A lock whose holders cannot panic between changes that belong together.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[tonic::async_trait]
impl Log for LogService {
    type ReadTableStream = ReceiverStream<Result<LogPart, Status>>;

    async fn read_table(&self, request: Request<ReadTableRequest>) -> Result<Response<Self::ReadTableStream>, Status> {
        let tenant = request.extensions().get::<TenantId>().copied();
        let tenant = tenant.ok_or_else(|| Status::internal("the request came without a tenant"))?;
        let request = request.into_inner();
        let times = times(&request).map_err(|error| service::to_status(&error))?;
        let name = TableName::new(request.namespace, request.table);
        let table = self.catalog.table(tenant, &name).await.map_err(|error| service::to_status(&error))?;
        let call = self.calls.begin(tenant).map_err(|error| service::to_status(&error))?;
        let read = TableRead::new(Arc::clone(&self.log), table, times, Arc::clone(&self.pace));
        Ok(Response::new(serve(call, TAKE_WAIT, move |parts| read.run(parts))))
    }
}

/// Reads on a thread of its own. Where that ends early, the stream says so behind the parts that were made.
fn serve(
    call: Call,
    take_wait: Duration,
    read: impl FnOnce(&Parts) -> Result<(), End> + Send + 'static,
) -> ReceiverStream<Result<LogPart, Status>> {
    // One place more, which is kept for the error: a client that takes nothing is to find it when it comes back, and must not
    // believe that it has all.
    let (sender, stream) = mpsc::channel(PARTS_AHEAD + 1);
    let last = sender.clone().try_reserve_owned().expect("the channel is empty");
    let parts = Parts { sender, take_wait, runtime: Handle::current() };
    tokio::task::spawn_blocking(move || {
        let _until_it_ends = call;
        if let Err(End::Failed(error)) = read(&parts) {
            last.send(Err(service::to_status(&error)));
        }
    });
    ReceiverStream::new(stream)
}

/// The client's end of a stream.
struct Parts {
    sender: mpsc::Sender<Result<LogPart, Status>>,
    take_wait: Duration,
    runtime: Handle,
}

impl Parts {
    /// Waits until the client has taken enough.
    fn send(&self, part: Part) -> Result<(), End> {
        let part = Ok(LogPart { part: Some(part) });
        match self.runtime.block_on(self.sender.send_timeout(part, self.take_wait)) {
            Ok(()) => Ok(()),
            Err(SendTimeoutError::Closed(_)) => Err(End::ClientLeft),
            Err(SendTimeoutError::Timeout(_)) => {
                let seconds = self.take_wait.as_secs();
                let message = format!("the client took nothing of the log for {seconds} s; ask again");
                Err(End::Failed(ApiError::unavailable(message)))
            }
        }
    }
}

/// The event times asked for, half-open.
fn times(request: &ReadTableRequest) -> Result<Range<i64>, ApiError> {
    let times = request.start_time.unwrap_or(i64::MIN)..request.end_time.unwrap_or(i64::MAX);
    if times.is_empty() {
        return Err(ApiError::invalid("end_time", "end_time must be after start_time"));
    }
    Ok(times)
}

/// Why a reading ended early.
enum End {
    ClientLeft,
    Failed(ApiError),
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> Self {
        let code = match &error {
            ReadError::Gap { .. } => ErrorCode::OutOfRange,
            ReadError::NoSuchOffset { .. } => ErrorCode::Internal,
            ReadError::Corrupt { .. } | ReadError::Io(_) | ReadError::Closed => ErrorCode::Unavailable,
        };
        Self::Failed(ApiError::new(code, error.to_string()))
    }
}

/// One reading: the partitions of a table, each up to where it ended when the call came.
struct TableRead {
    log: Arc<dyn EventLog>,
    table: Arc<Table>,
    times: Range<i64>,
    offsets: Vec<(PartitionId, Range<Offset>)>,
    pace: Arc<Pace>,
}

impl TableRead {
    fn new(log: Arc<dyn EventLog>, table: Arc<Table>, times: Range<i64>, pace: Arc<Pace>) -> Self {
        let offsets = table.partitions.iter().map(|&partition| {
            let bounds = log.bounds(partition);
            (partition, bounds.start..bounds.end)
        });
        let offsets = offsets.collect();
        Self { log, table, times, offsets, pace }
    }

    fn run(&self, parts: &Parts) -> Result<(), End> {
        parts.send(Part::Table(self.table()))?;
        let mut read = 0;
        for (partition, offsets) in &self.offsets {
            if offsets.is_empty() {
                continue;
            }
            let mut reader = self.log.reader(*partition, offsets.start)?;
            let mut records = Vec::new();
            while reader.position() < offsets.end {
                if reader.poll(POLL_BYTES, POLL_WAIT, &mut records)? == 0 {
                    let message = format!("partition {partition} of the log gives no records");
                    return Err(End::Failed(ApiError::unavailable(message)));
                }
                let bytes = records.iter().map(|record| record.body.len() as u64).sum();
                std::thread::sleep(self.pace.wait_after(bytes, Instant::now()));
                for record in records.drain(..).take_while(|record| record.offset < offsets.end) {
                    read += 1;
                    if self.wants(&record) {
                        parts.send(Part::Block(block(*partition, record)))?;
                    }
                }
                parts.send(Part::Position(LogPosition { records: read }))?;
            }
        }
        Ok(())
    }

    fn table(&self) -> LogTable {
        let gone = self.offsets.iter().filter(|(_, offsets)| offsets.start > Offset::ZERO);
        let whole_from = gone.map(|(partition, offsets)| {
            // A partition of which nothing is left is whole from now on; its last record's time is the nearest to that.
            let oldest = self.log.append_time_of(*partition, offsets.start);
            oldest.unwrap_or_else(|| self.log.bounds(*partition).last_append_time).0
        });
        LogTable {
            table_id: self.table.key.table.0,
            generation: self.table.key.generation.0,
            records: self.offsets.iter().map(|(_, offsets)| offsets.end.0 - offsets.start.0).sum(),
            whole_from_us: whole_from.max(),
        }
    }

    fn wants(&self, record: &Record) -> bool {
        let header = &record.header;
        let (Timestamp(min), Timestamp(max)) = (header.time_min, header.time_max);
        header.kind == BlockKind::Events
            && header.key == self.table.key
            && min < self.times.end
            && max >= self.times.start
    }
}

fn block(partition: PartitionId, record: Record) -> LogBlock {
    let batch = record.header.batch;
    LogBlock {
        partition: partition.0,
        offset: record.offset.0,
        append_time_us: record.append_time.0,
        batch_producer: batch.map_or_else(Bytes::new, |batch| Bytes::copy_from_slice(&batch.producer.to_be_bytes())),
        batch_sequence: batch.map_or(0, |batch| batch.sequence),
        body: record.body,
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    /// Goal: a client that takes nothing for too long loses its place and is told so when it comes back, behind what was
    /// made for it: never a stream that looks whole. One that takes all, and one that leaves, end without an error.
    #[tokio::test]
    async fn who_takes_nothing_loses_its_place() {
        let calls = Arc::new(Calls::default());
        let position = |records| Part::Position(LogPosition { records });
        let begin = || calls.begin(TenantId(1)).map_err(|error| error.message).unwrap();
        let stream = serve(begin(), Duration::from_millis(20), move |parts| {
            (0..).try_for_each(|records| parts.send(position(records)))
        });
        while !lock(&calls.reading).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let taken: Vec<_> = stream.collect().await;
        assert_eq!(taken.len(), PARTS_AHEAD + 1);
        let (last, parts) = taken.split_last().unwrap();
        assert!(parts.iter().all(Result::is_ok));
        assert_eq!(last.as_ref().unwrap_err().code(), tonic::Code::Unavailable);
        let all = serve(begin(), Duration::from_secs(3_600), move |parts| {
            (0..20).try_for_each(|records| parts.send(position(records)))
        });
        assert_eq!(all.filter(Result::is_ok).collect::<Vec<_>>().await.len(), 20);
        drop(serve(begin(), Duration::from_secs(3_600), move |parts| {
            (0..).try_for_each(|records| parts.send(position(records)))
        }));
        while !lock(&calls.reading).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Goal: one tenant has a part of the places, all have no more than there are, and a place that is left is free again.
    #[test]
    fn no_tenant_has_all_places() {
        let calls = Arc::new(Calls::default());
        let tenants = (CALLS_MAX / TENANT_CALLS_MAX) as u64;
        let mut held = Vec::new();
        for tenant in (0..tenants).map(TenantId) {
            held.extend((0..TENANT_CALLS_MAX).map(|_| calls.begin(tenant).expect("there is room")));
            assert!(calls.begin(tenant).is_err(), "it has its part");
        }
        let error = calls.begin(TenantId(tenants)).err().expect("all places are taken");
        assert_eq!((error.code, error.retry_after), (ErrorCode::ResourceExhausted, Some(RETRY_AFTER)));
        held.remove(0);
        held.push(calls.begin(TenantId(tenants)).expect("one is free"));
        assert!(calls.begin(TenantId(0)).is_err());
        drop(held);
        assert!(lock(&calls.reading).is_empty());
    }

    /// Goal: calls together wait for as long as the rate says, and time in which nobody read is not made up for.
    #[test]
    fn calls_share_one_rate() {
        let (pace, now) = (Pace::default(), Instant::now());
        assert_eq!(pace.wait_after(READ_RATE, now), Duration::from_secs(1));
        assert_eq!(pace.wait_after(READ_RATE, now), Duration::from_secs(2));
        assert_eq!(pace.wait_after(READ_RATE, now + Duration::from_secs(1)), Duration::from_secs(2));
        assert_eq!(pace.wait_after(READ_RATE / 2, now + Duration::from_secs(60)), Duration::from_millis(500));
    }
}
