//! The one way in, for every form of request: admit, sort into blocks, let tables grow, keep what was rejected, append,
//! and only when all is durable reply with a token.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use codec::{BatchIdentity, BodyBuilder, Encoding, Reject};
use event_log::{AppendError, Durability, EventLog};
use proto::catalog::Catalog;
use serde_json::json;
use types::{ApiError, ErrorCode, Table, TableName, TenantId};

use crate::{
    acked::Acked,
    admission::Admission,
    clock::Clock,
    columns::ColumnsJob,
    counted::Counted,
    dead_letters::{DeadLetters, Letter},
    in_flight::Share,
    judge::Judge,
    pool::Pool,
    rows::{Format, Rejected, Rows, SortedRows},
    schemas::Schemas,
    shares::Shares,
    sort::{Known, Rules, Sorted, SortedTable},
    tables::{Added, Tables},
    together::Together,
    wire::ColumnsRequest,
};

/// Bodies up to this many bytes, not compressed, are decoded where they arrive: a decode thread would cost more than it
/// saves.
const INLINE_BYTES_MAX: usize = 16 << 10;
/// Blocks of columns up to this many bytes, in all, are looked through where they arrive: some tens of microseconds, mostly of
/// waiting for memory that this processor has just written. Those that cannot go on as they are go to the decode threads.
const INLINE_COLUMNS_BYTES_MAX: usize = 256 << 10;
/// How often a request is sorted before its tables are said to change too quickly: once for missing tables, once to see that
/// it is one for the decode threads, once strictly, and as often again where other requests change the same tables meanwhile.
const SORTS_MAX: usize = 7;
/// Blocks of a request may have this many times the bytes that a request may have: columns that few events have in common
/// are mostly absent, and absence takes place too.
const BLOCKS_TIMES_MAX: usize = 8;
/// Sets of builders that are kept for the next requests.
const SPARE_BUILDERS_MAX: usize = 32;
/// Bytes of memory that a set of spare builders may hold, so that rare large requests do not keep theirs for ever.
const SPARE_SET_BYTES_MAX: usize = 8 << 20;

/// What a request was answered.
#[derive(Debug)]
pub(crate) struct Ack {
    /// Events appended.
    pub accepted: u64,
    /// Events rejected, ascending.
    pub rejected: Vec<Reject>,
    /// What the ack means.
    pub durability: Durability,
    /// What to present to see these events; none where nothing was appended.
    pub token: Option<String>,
}

/// Rows as they arrived.
#[derive(Debug)]
pub(crate) struct RowsRequest {
    /// Whose they are.
    pub tenant: TenantId,
    /// How they are written.
    pub format: Format,
    /// How their bytes are compressed.
    pub encoding: Encoding,
    /// Their bytes.
    pub body: Bytes,
    /// The batch's identity, if it came beside the body.
    pub batch: Option<BatchIdentity>,
    /// What the request holds of the bytes in flight.
    pub share: Share,
}

/// Limits of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestLimits {
    /// Bytes, also decompressed.
    pub bytes_max: usize,
    /// Events.
    pub events_max: usize,
}

/// The way in.
pub(crate) struct Ingest {
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) letters: Arc<DeadLetters>,
    pub(crate) admission: Admission,
    /// Where the limits are those of several gateways.
    pub(crate) shares: Option<Shares>,
    pub(crate) acked: Acked,
    pub(crate) schemas: Schemas,
    pub(crate) counted: Counted,
    pub(crate) pool: Pool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limits: RequestLimits,
    /// Chooses partitions for events that any may take. Relaxed: it orders nothing.
    pub(crate) any: AtomicU64,
    pub(crate) spare_builders: Mutex<Vec<Vec<BodyBuilder>>>,
    pub(crate) together: Together,
}

/// A request on its way through the decode threads.
struct RowsJob {
    request: RowsRequest,
    rules: Rules,
    tables: Tables,
    admitted: bool,
    /// Not for the threads of the network, however small it is.
    slow: bool,
}

impl Ingest {
    /// Bytes of one request.
    pub(crate) fn request_bytes_max(&self) -> usize {
        self.limits.bytes_max
    }

    /// Events of one request.
    pub(crate) fn request_events_max(&self) -> usize {
        self.limits.events_max
    }

    /// Whether requests of a tenant are taken at all now; asked before anything is read or done for one.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` where a limit is used up or the server has too much to do.
    pub(crate) async fn open(&self, tenant: TenantId) -> Result<(), ApiError> {
        if let Some(shares) = &self.shares {
            // On the heap, so that calls are not larger by what few of them have.
            Box::pin(shares.met(&self.admission.limiter, tenant, &*self.clock)).await;
        }
        self.admission.open(tenant, &self.log.load(), self.clock.monotonic())
    }

    /// The tenant's limits and what is left of them, as `GET /v1/limits` shows them.
    pub(crate) fn limits_of(&self, tenant: TenantId) -> serde_json::Value {
        let mut limits = self.admission.limits_of(tenant, self.clock.monotonic());
        limits["request"] = json!({"bytes": self.limits.bytes_max, "events": self.limits.events_max});
        limits
    }

    /// Takes in rows in protocol buffers.
    ///
    /// # Errors
    /// As [`Ingest::rows`].
    pub(crate) async fn protobuf_rows(
        self: &Arc<Self>,
        tenant: TenantId,
        body: Bytes,
        share: Share,
    ) -> Result<Ack, ApiError> {
        let (format, encoding) = (Format::Protobuf, Encoding::Identity);
        self.rows(RowsRequest { tenant, format, encoding, body, batch: None, share }).await
    }

    /// Takes in rows.
    ///
    /// # Errors
    /// Nothing of the request was appended, or (`UNAVAILABLE`) nobody knows.
    pub(crate) async fn rows(self: &Arc<Self>, request: RowsRequest) -> Result<Ack, ApiError> {
        self.open(request.tenant).await?;
        let waiting = request.share.wait(request.body.len() as u64).await?;
        let ack = self.take_rows(request, false).await?;
        waiting.acked();
        Ok(ack)
    }

    /// Takes in rows that have room; `admitted`: they are counted against the rate limits.
    pub(crate) async fn take_rows(self: &Arc<Self>, request: RowsRequest, admitted: bool) -> Result<Ack, ApiError> {
        self.counted.arrived(request.body.len());
        let rules = Rules {
            received: self.clock.now(),
            batch: request.batch,
            any: self.any.fetch_add(1, Relaxed),
            strict: false,
            blocks_bytes_max: self.limits.bytes_max * BLOCKS_TIMES_MAX,
        };
        let tenant = request.tenant;
        let mut job = RowsJob { request, rules, tables: Tables::default(), admitted, slow: false };
        for _ in 0..SORTS_MAX {
            let (back, sorted) = self.sort(job).await?;
            job = back;
            let SortedRows { events, sorted, rejected } = sorted?;
            if events == 0 {
                return Err(ApiError::new(ErrorCode::InvalidArgument, "the request has no events"));
            }
            let mut tables = match sorted {
                Sorted::Missing(missing) => {
                    job.tables.get(&*self.catalog, tenant, missing).await?;
                    continue;
                }
                Sorted::TooSlow => {
                    job.slow = true;
                    continue;
                }
                Sorted::Tables(tables) => tables,
            };
            match self.grow(&mut job.tables, tenant, &mut tables).await? {
                Added::Done => return self.store(tenant, &job.request.share, 0, tables, rejected).await,
                Added::Again => job.rules.strict = true,
            }
        }
        Err(ApiError::unavailable("the tables of this request change too quickly"))
    }

    /// Describes a table to a client that makes blocks.
    ///
    /// # Errors
    /// `NOT_FOUND`, or what forbids its creation.
    pub(crate) async fn describe(
        &self,
        tenant: TenantId,
        name: &TableName,
        create: bool,
    ) -> Result<Arc<Table>, ApiError> {
        if create {
            for (field, part) in [("namespace", &name.namespace), ("table", &name.table)] {
                types::check_table_name(part).map_err(|error| ApiError::invalid(field, format!("{field} {error}")))?;
            }
            return Tables::default().known(&*self.catalog, tenant, name).await;
        }
        self.catalog.table(tenant, name).await
    }

    /// Takes in columns.
    ///
    /// # Errors
    /// Nothing of the request was appended, or (`UNAVAILABLE`) nobody knows.
    pub(crate) async fn columns(
        self: &Arc<Self>,
        tenant: TenantId,
        request: ColumnsRequest,
        share: Share,
    ) -> Result<Ack, ApiError> {
        self.open(tenant).await?;
        let waiting = share.wait(request.message_bytes as u64).await?;
        let ack = self.take_columns(tenant, request, share).await?;
        waiting.acked();
        Ok(ack)
    }

    async fn take_columns(
        self: &Arc<Self>,
        tenant: TenantId,
        request: ColumnsRequest,
        share: Share,
    ) -> Result<Ack, ApiError> {
        let message_bytes = request.message_bytes;
        let bytes: usize = request.blocks.iter().map(Bytes::len).sum();
        self.counted.arrived(bytes);
        let name = TableName::new(request.namespace.as_str(), request.table.as_str());
        let mut tables = Tables::default();
        let mut job = ColumnsJob::new(request, tenant, self.clock.now(), self.any.fetch_add(1, Relaxed))?;
        for _ in 0..SORTS_MAX {
            let table = tables.known(&*self.catalog, tenant, &name).await?;
            let plain = table.settings.json_schema.is_none();
            if plain && bytes <= INLINE_COLUMNS_BYTES_MAX {
                let admit = |events| self.admit(tenant, events);
                let judge = Judge::new(&*self.clock);
                if let Some(sorted) = job.as_sent(&table, &judge, self.limits.events_max, &admit)? {
                    return self.store(tenant, &share, message_bytes, vec![sorted], Vec::new()).await;
                }
            }
            let small = plain && bytes <= INLINE_BYTES_MAX;
            let this = Arc::clone(self);
            let work = move || {
                let schema = this.schemas.of(&table);
                let admit = |events| this.admit(tenant, events);
                let judge = Judge::new(&*this.clock);
                let sorted = schema
                    .and_then(|schema| job.sort(&table, (schema.as_deref(), &judge), this.limits.events_max, &admit));
                (job, sorted)
            };
            let (back, sorted) = if small { work() } else { self.pool.run(work).await? };
            job = back;
            let (sorted, rejected) = sorted?;
            let mut sorted = vec![sorted];
            if self.grow(&mut tables, tenant, &mut sorted).await? == Added::Done {
                return self.store(tenant, &share, message_bytes, sorted, rejected).await;
            }
        }
        Err(ApiError::unavailable("the table of this request changes too quickly"))
    }

    /// Takes `events` of what a tenant may send.
    ///
    /// # Errors
    /// As [`Admission::admit`].
    pub(crate) fn admit(&self, tenant: TenantId, events: u64) -> Result<(), ApiError> {
        self.admission.admit(tenant, events, self.clock.monotonic())
    }

    async fn sort(self: &Arc<Self>, mut job: RowsJob) -> Result<(RowsJob, Result<SortedRows, ApiError>), ApiError> {
        let plain = job.request.encoding == Encoding::Identity && !job.slow;
        let small = plain && job.request.body.len() <= INLINE_BYTES_MAX;
        let this = Arc::clone(self);
        let work = move || {
            let sorted = this.sort_now(&mut job, if small { None } else { Some(&this.schemas) });
            (job, sorted)
        };
        if small { Ok(work()) } else { self.pool.run(work).await }
    }

    /// Sorts on this thread; without `schemas` it has no time for them.
    fn sort_now(&self, job: &mut RowsJob, schemas: Option<&Schemas>) -> Result<SortedRows, ApiError> {
        let request = &mut job.request;
        if request.encoding != Encoding::Identity {
            request.body = codec::decompress(request.encoding, &request.body, self.limits.bytes_max)?.into();
            request.encoding = Encoding::Identity;
            request.share.hold(request.body.len() as u64)?;
        }
        let tenant = request.tenant;
        let admitted = std::mem::replace(&mut job.admitted, true);
        let judge = Judge::new(&*self.clock);
        let rows = Rows {
            format: request.format,
            body: &request.body,
            tenant,
            rules: job.rules,
            events_max: self.limits.events_max,
            admit: &|events| if admitted { Ok(()) } else { self.admit(tenant, events) },
            known: Known { tables: &|name| job.tables.lookup(&*self.catalog, tenant, name), schemas, judge: &judge },
        };
        let mut builders = self.spare_builders();
        let sorted = rows.sort(&mut builders);
        self.keep_builders(builders);
        sorted
    }

    /// Builders of earlier requests, if there are any.
    pub(crate) fn spare_builders(&self) -> Vec<BodyBuilder> {
        self.spare_builders.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Keeps builders for the next request.
    pub(crate) fn keep_builders(&self, mut builders: Vec<BodyBuilder>) {
        retain_within(&mut builders, SPARE_SET_BYTES_MAX);
        if !builders.is_empty() {
            let mut spares = self.spare_builders.lock().unwrap_or_else(PoisonError::into_inner);
            if spares.len() < SPARE_BUILDERS_MAX {
                spares.push(builders);
            }
        }
    }

    async fn grow(&self, known: &mut Tables, tenant: TenantId, tables: &mut [SortedTable]) -> Result<Added, ApiError> {
        let mut grown = Added::Done;
        for table in tables {
            if known.add_columns(&*self.catalog, tenant, table).await? == Added::Again {
                grown = Added::Again;
            }
        }
        Ok(grown)
    }

    /// Keeps letters, appends blocks, waits until both are durable. Their bytes count as in flight, but for the `held_bytes`
    /// that do already.
    async fn store(
        &self,
        tenant: TenantId,
        share: &Share,
        held_bytes: usize,
        tables: Vec<SortedTable>,
        rejected: Vec<Rejected>,
    ) -> Result<Ack, ApiError> {
        let mut rejects = Vec::with_capacity(rejected.len());
        let mut letters = Vec::new();
        for Rejected { reject, letter } in rejected {
            rejects.push(reject);
            letters.extend(letter);
        }
        self.counted.rejected(&rejects);
        let blocks_bytes: usize = tables.iter().flat_map(|table| &table.blocks).map(|block| block.body.len()).sum();
        let _blocks_held = share.holding(blocks_bytes.saturating_sub(held_bytes) as u64)?;
        let letters_held = share.holding(letters.iter().map(|(_, letter)| letter_bytes(letter)).sum())?;
        // Letters first: if they cannot be kept the request fails before anything of it counts.
        self.letters.put(letters, letters_held).await?;
        let mut blocks = Vec::new();
        let mut known = Vec::with_capacity(tables.len());
        for mut table in tables {
            known.push(table.table);
            blocks.append(&mut table.blocks);
        }
        let accepted = blocks.iter().map(|block| u64::from(block.header.rows)).sum();
        let mut token = None;
        if !blocks.is_empty() {
            self.append(&known, blocks).await?;
            token = Some(self.acked.token(tenant, known.iter().map(Arc::as_ref)));
        }
        self.counted.accepted(accepted);
        Ok(Ack { accepted, rejected: rejects, durability: self.log.durability(), token })
    }

    /// Appends blocks of `tables`, waits until they are durable, and notes that they are.
    ///
    /// # Errors
    /// Nothing was appended, or (`UNAVAILABLE`) nobody knows.
    pub(crate) async fn append(&self, tables: &[Arc<Table>], blocks: Vec<event_log::Append>) -> Result<(), ApiError> {
        let keys: Vec<_> = blocks.iter().map(|block| block.header.key).collect();
        let started = self.clock.monotonic();
        let appended = self.log.append(blocks).await.map_err(|error| self.append_error(error))?;
        let took = self.clock.monotonic().saturating_sub(started);
        self.counted.appended(took);
        for (place, key) in appended.iter().zip(keys) {
            let table = tables.iter().find(|table| table.key == key).expect("blocks are of the request's tables");
            self.acked.note(table, place.partition, place.offset.next());
        }
        Ok(())
    }

    fn append_error(&self, error: AppendError) -> ApiError {
        match error {
            AppendError::Overloaded { .. } => {
                self.admission.overloaded("log_queue", "the event log's queue is full, try again later")
            }
            AppendError::Unavailable(error) => {
                tracing::error!(%error, "the event log cannot append");
                ApiError::unavailable(
                    "the event log is away; whether the events were stored is not known, send them again",
                )
            }
            AppendError::Closed => ApiError::unavailable("the server is shutting down"),
        }
    }
}

/// Drops the builders whose memory does not fit in `bytes_max` beside that of those before them.
fn retain_within(builders: &mut Vec<BodyBuilder>, bytes_max: usize) {
    let mut left = bytes_max;
    builders.retain(|builder| match left.checked_sub(builder.memory_bytes()) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    });
}

/// Bytes of memory that a letter takes until it is written.
fn letter_bytes(letter: &Letter) -> u64 {
    (size_of::<Letter>() + letter.event.get().len() + letter.message.len()) as u64
}

#[cfg(test)]
mod tests {
    use codec::EventRef;
    use types::Timestamp;

    use super::*;

    fn builder(bytes: usize) -> BodyBuilder {
        let mut builder = BodyBuilder::default();
        let value = "x".repeat(1_000);
        for n in 0..bytes.div_ceil(1_000) as u32 {
            let (value, id) = (format!("{n}{value}"), n.to_le_bytes());
            let event = EventRef {
                namespace: "n",
                table: "t",
                event_time: None,
                event_id: Some(&id),
                dimensions: &[("a", &value)],
                metrics: &[],
            };
            builder.push(&event, Timestamp(0), n).unwrap();
        }
        builder.clear();
        builder
    }

    /// Goal: what is kept of a set of builders is bounded by the memory that they hold, however empty they are.
    #[test]
    fn spare_builders_are_kept_by_their_memory() {
        let mut builders = vec![builder(10_000), builder(1_000_000), builder(10_000)];
        retain_within(&mut builders, 100_000);
        assert_eq!(builders.len(), 2);
        assert!(builders.iter().map(BodyBuilder::memory_bytes).sum::<usize>() <= 100_000);
        retain_within(&mut builders, 20_000);
        assert_eq!(builders.len(), 1);
    }
}
