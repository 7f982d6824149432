//! `truenow replay`: a table's events as the log has them into another table.
//!
//! 1. Blocks are read from the log of the running server and sent the normal way in, as they are where all of their events
//!    are wanted.
//! 2. Every event keeps an identity: its own id, else its batch and its place there, else its place in the log. So what was a
//!    duplicate in the log is one again, and a replay that is repeated within the table's `dedup_window_us` changes nothing.
//! 3. The log is read up to where it ended when the replay began.

mod requests;

use std::{
    ops::Range,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use proto::v1::{LogTable, ReadTableRequest, log_client::LogClient, log_part::Part};
use tonic::{Request, Status, Streaming, metadata::AsciiMetadataValue, transport::Endpoint};
use truenow_client::{BlocksWriter, Client, IdentifiedBlock, Options, Summary};

use self::requests::{Cutter, Limits};
use crate::{
    args::ReplayArgs,
    failure::Failure,
    ingest::{summary::Progress, time::TimeForm},
    outcome::{Outcome, note, runtime},
    table_text::thousands,
};

/// Blocks under way at a time: the server syncs those that come together as one.
const WINDOW: usize = 16;
/// Rejected events whose reasons are shown.
const SHOWN_MAX: usize = 10;

/// Reads a table's part of the log and sends it to another table.
///
/// # Errors
/// The names or times are none, a service is away, or the log cannot be read to its end.
pub(crate) fn run(args: &ReplayArgs) -> Result<Outcome, Failure> {
    let times = times(args)?;
    let target = target(args)?;
    runtime(1)?.block_on(async {
        let mut replay = Replay::start(args, times, target).await?;
        let read = replay.run().await;
        replay.finish(read).await
    })
}

/// The event times asked for, µs, half-open.
fn times(args: &ReplayArgs) -> Result<Range<i64>, Failure> {
    let read = |text: &Option<String>, flag: &str, otherwise: i64| {
        let Some(text) = text else { return Ok(otherwise) };
        let epoch = TimeForm::Epoch { digits: 0 }.read(text);
        let time = epoch.or_else(|_no_number| TimeForm::Rfc3339.read(text)).map_err(|wrong| {
            Failure::new(format!("{flag}: {wrong}")).hint("µs since the epoch, or a time such as 2026-01-31T12:00:00Z")
        })?;
        Ok(time.0)
    };
    let times = read(&args.from, "--from", i64::MIN)?..read(&args.to, "--to", i64::MAX)?;
    if times.is_empty() {
        return Err(Failure::new("--to must be after --from"));
    }
    Ok(times)
}

/// Namespace and table of `--into`.
fn target(args: &ReplayArgs) -> Result<(String, String), Failure> {
    let (namespace, table) = args.into.split_once('.').unwrap_or((&args.namespace, &args.into));
    if (namespace, table) == (args.namespace.as_str(), args.table.as_str()) {
        return Err(Failure::new("a table cannot be replayed into itself").hint("name another one with --into"));
    }
    Ok((namespace.to_owned(), table.to_owned()))
}

/// What a replay came to so far.
#[derive(Debug, Default)]
struct Counts {
    blocks: u64,
    events: u64,
}

/// A replay under way.
struct Replay {
    /// `shop.events`.
    from: String,
    /// The same of the table that it goes to.
    into: String,
    parts: Streaming<proto::v1::LogPart>,
    cutter: Cutter,
    whole_from_us: Option<i64>,
    /// None: only counted.
    writer: Option<BlocksWriter>,
    counts: Counts,
    records: Arc<AtomicU64>,
    progress: Progress,
    began: Instant,
}

impl Replay {
    async fn start(
        args: &ReplayArgs,
        times: Range<i64>,
        (namespace, table): (String, String),
    ) -> Result<Self, Failure> {
        let mut parts = read_table(args, &times).await?;
        let Some(Part::Table(origin)) = next(&mut parts).await? else {
            return Err(Failure::new("the server's reading of the log does not begin with its table"));
        };
        let writer = if args.dry_run { None } else { Some(writer(args, &namespace, &table).await?) };
        let limits = writer.as_ref().map_or(Limits::NONE, |writer| Limits {
            bytes_max: writer.request_bytes_max(),
            rows_max: writer.request_rows_max(),
        });
        let (records, began) = (Arc::<AtomicU64>::default(), Instant::now());
        let LogTable { table_id, generation, records: all, whole_from_us } = origin;
        Ok(Self {
            from: format!("{}.{}", args.namespace, args.table),
            into: format!("{namespace}.{table}"),
            parts,
            cutter: Cutter::new(format!("replay:{table_id}.{generation}"), times, limits),
            whole_from_us,
            writer,
            counts: Counts::default(),
            progress: Progress::of_records(all, Arc::clone(&records), began),
            records,
            began,
        })
    }

    async fn run(&mut self) -> Result<(), Failure> {
        while let Some(part) = next(&mut self.parts).await? {
            match part {
                Part::Table(_) => return Err(Failure::new("the server named the table twice")),
                Part::Position(position) => self.records.store(position.records, Relaxed),
                Part::Block(block) => {
                    self.counts.blocks += 1;
                    let at = (block.partition, block.offset);
                    let requests = self.cutter.cut(block).map_err(|error| {
                        Failure::new(format!("record {} of partition {} is no block: {error}", at.1, at.0))
                    })?;
                    for request in requests {
                        self.send(request).await?;
                    }
                }
            }
            self.progress.show(self.counts.events, Instant::now());
        }
        Ok(())
    }

    async fn send(&mut self, block: IdentifiedBlock) -> Result<(), Failure> {
        self.counts.events += block.rows;
        match &mut self.writer {
            Some(writer) => writer.send(block).await.map_err(|error| refused(&self.into, &error)),
            None => Ok(()),
        }
    }

    /// Waits for the acks and says what became of it all.
    async fn finish(self, read: Result<(), Failure>) -> Result<Outcome, Failure> {
        let Self { from, into, writer, counts, progress, began, whole_from_us, .. } = self;
        let acked = match writer {
            Some(writer) => Some(writer.finish().await.map_err(|error| refused(&into, &error))),
            None => None,
        };
        progress.finish();
        // What broke off the reading comes first; what is acked is said all the same.
        let took = began.elapsed();
        let rejected = match acked {
            Some(Ok(summary)) => tell(&from, &into, &summary, took),
            Some(Err(error)) => return read.and(Err(error)),
            None => {
                let Counts { blocks, events } = counts;
                note(&format!("{from} has {} events in {} blocks to replay", thousands(events), thousands(blocks)));
                0
            }
        };
        if let Some(whole_from) = whole_from_us {
            note(&format!(
                "the log has let go of records that were appended before {whole_from} µs: older events may lack"
            ));
        }
        read.map(|()| if rejected == 0 { Outcome::Well } else { Outcome::NotAllWell })
    }
}

/// Says what was accepted and what was not; returns how many were not.
fn tell(from: &str, into: &str, summary: &Summary, took: Duration) -> u64 {
    let seconds = took.as_secs_f64().max(1e-6);
    note(&format!(
        "{from} into {into}: accepted {} events ({}) in {seconds:.2} s: {} events/s; rejected {}",
        thousands(summary.accepted),
        if summary.durability.is_empty() { "none sent" } else { &summary.durability },
        thousands((summary.accepted as f64 / seconds) as u64),
        thousands(summary.rejected),
    ));
    for reject in summary.rejects.iter().take(SHOWN_MAX) {
        note(&format!("  event {} of the replay: {}", reject.row, reject.message));
    }
    summary.rejected
}

async fn read_table(args: &ReplayArgs, times: &Range<i64>) -> Result<Streaming<proto::v1::LogPart>, Failure> {
    let address = args.addresses.ingester_grpc();
    let wrong = |error: tonic::transport::Error| {
        Failure::new(format!("no answer from {address}: {error}")).hint("is the server running?")
    };
    let channel = Endpoint::from_shared(address.clone()).map_err(wrong)?.connect().await.map_err(wrong)?;
    let mut request = Request::new(ReadTableRequest {
        namespace: args.namespace.clone(),
        table: args.table.clone(),
        start_time: Some(times.start),
        end_time: Some(times.end),
    });
    if let Some(key) = args.addresses.key()? {
        let value = AsciiMetadataValue::try_from(format!("Bearer {key}"));
        let mut value = value.map_err(|_no_header| Failure::new("the API key must be visible ASCII"))?;
        value.set_sensitive(true);
        request.metadata_mut().insert("authorization", value);
    }
    // A block is as large as a request may be, which the server decides.
    let mut client = LogClient::new(channel).max_decoding_message_size(usize::MAX);
    Ok(client.read_table(request).await.map_err(|status| said(&status))?.into_inner())
}

async fn writer(args: &ReplayArgs, namespace: &str, table: &str) -> Result<BlocksWriter, Failure> {
    let into = format!("{namespace}.{table}");
    let key = args.addresses.key()?;
    let client = Client::connect(&args.addresses.gateway_grpc(), key.as_deref()).await;
    let client = client.map_err(|error| refused(&into, &error))?;
    // The producer of each block is its own; this one names nothing.
    let options = Options { batches_in_flight_max: WINDOW, ..Options::new("") };
    client.blocks(namespace, table, options).await.map_err(|error| refused(&into, &error))
}

async fn next(parts: &mut Streaming<proto::v1::LogPart>) -> Result<Option<Part>, Failure> {
    let part = parts.message().await.map_err(|status| said(&status))?;
    part.map(|part| part.part.ok_or_else(|| Failure::new("the server sent an empty part"))).transpose()
}

fn said(status: &Status) -> Failure {
    Failure::new(format!("the log cannot be read: {}", status.message()))
}

fn refused(into: &str, error: &dyn std::error::Error) -> Failure {
    let mut text = error.to_string();
    let mut cause = error;
    while let Some(source) = cause.source() {
        text = format!("{text}: {source}");
        cause = source;
    }
    Failure::new(format!("{into} does not take the events: {text}"))
        .hint("what was sent before is stored; repeating the replay within the table's dedup_window_us is safe")
}
