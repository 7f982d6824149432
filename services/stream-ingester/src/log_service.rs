//! `truenow.v1.Log`: what the log holds of a table, for reading it again.
//!
//! Reads block, so each call has a thread of the runtime's blocking pool, which waits for its client between two parts: a
//! client that is slow holds a few blocks and keeps nobody else waiting.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use codec::BlockKind;
use event_log::{EventLog, ReadError, Record};
use proto::{
    catalog::Catalog,
    v1::{LogBlock, LogPart, LogPosition, LogTable, ReadTableRequest, log_part::Part, log_server::Log},
};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use types::{ApiError, ErrorCode, Offset, PartitionId, Table, TableName, TenantId, Timestamp};

/// Calls that read at a time.
const CALLS_MAX: usize = 4;
/// Parts that are made before the client has taken those before.
const PARTS_AHEAD: usize = 2;
/// Bytes of records read at a time, about.
const POLL_BYTES: usize = 1 << 20;
/// How long a record that is durable may take to be read.
const POLL_WAIT: Duration = Duration::from_secs(10);
/// When to come again where too many read.
const RETRY_AFTER: Duration = Duration::from_secs(5);

type PartSender = mpsc::Sender<Result<LogPart, Status>>;

/// The service.
pub(crate) struct LogService {
    catalog: Arc<dyn Catalog>,
    log: Arc<dyn EventLog>,
    calls: Arc<Semaphore>,
}

impl LogService {
    pub(crate) fn new(catalog: Arc<dyn Catalog>, log: Arc<dyn EventLog>) -> Self {
        Self { catalog, log, calls: Arc::new(Semaphore::new(CALLS_MAX)) }
    }
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
        let permit = Arc::clone(&self.calls).try_acquire_owned().map_err(|_| {
            let message = format!("{CALLS_MAX} calls read the log already, which is as many as may");
            service::to_status(&ApiError::new(ErrorCode::ResourceExhausted, message).with_retry_after(RETRY_AFTER))
        })?;
        let (parts, stream) = mpsc::channel(PARTS_AHEAD);
        let read = TableRead::new(Arc::clone(&self.log), table, times);
        tokio::task::spawn_blocking(move || {
            let _until_it_ends = permit;
            if let Err(End::Failed(error)) = read.run(&parts) {
                // Nobody is told where the client has left.
                let _ = parts.blocking_send(Err(service::to_status(&error)));
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
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
}

impl TableRead {
    fn new(log: Arc<dyn EventLog>, table: Arc<Table>, times: Range<i64>) -> Self {
        let offsets = table.partitions.iter().map(|&partition| {
            let bounds = log.bounds(partition);
            (partition, bounds.start..bounds.end)
        });
        let offsets = offsets.collect();
        Self { log, table, times, offsets }
    }

    fn run(&self, parts: &PartSender) -> Result<(), End> {
        send(parts, Part::Table(self.table()))?;
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
                for record in records.drain(..).take_while(|record| record.offset < offsets.end) {
                    read += 1;
                    if self.wants(&record) {
                        send(parts, Part::Block(block(*partition, record)))?;
                    }
                }
                send(parts, Part::Position(LogPosition { records: read }))?;
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

fn send(parts: &PartSender, part: Part) -> Result<(), End> {
    parts.blocking_send(Ok(LogPart { part: Some(part) })).map_err(|_| End::ClientLeft)
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
