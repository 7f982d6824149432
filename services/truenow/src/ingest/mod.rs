//! `truenow ingest`: the events of a file to a table.
//!
//! 1. One thread reads, unpacks and maps the file into batches; the runtime sends several of them at a time.
//! 2. Batches are cut by what is in the file alone, so that the same file gives the same batches with the same numbers,
//!    which are their identity.
//! 3. A line that makes no event is reported with its number and its reason and never stops the rest.

mod access_log;
mod delimited;
mod event;
mod identity;
pub(crate) mod json_event;
mod json_lines;
mod mapped;
mod mapping;
mod own_form;
mod record;
mod send_lines;
mod source;
mod summary;
mod time;

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, Instant, SystemTime},
};

use tokio::{sync::mpsc, task::JoinSet};

use self::{
    event::EventMaker,
    mapped::MappedBatches,
    mapping::Mapping,
    own_form::{BatchSource, LineBatch, LineBatches},
    send_lines::{LineSender, Sent},
    source::{Lines, Source},
    summary::{Progress, Tally},
};
use crate::{
    args::{Format, IngestArgs},
    failure::Failure,
    http::Http,
    outcome::{Outcome, answer, note, runtime},
};

/// Batches under way at a time.
const WINDOW: usize = 4;
/// Batches read ahead of those under way.
const AHEAD: usize = 4;
/// Progress is looked at this often.
const TICK: Duration = Duration::from_millis(200);

/// Sends, or prints, the events of a file.
///
/// # Errors
/// The file cannot be read, the mapping does not fit it, or nobody takes the events.
pub(crate) fn run(args: IngestArgs) -> Result<Outcome, Failure> {
    let source = source::open(&args.file)?;
    let (size, read) = (source.size, Arc::clone(&source.read));
    let batches = batches(&args, source)?;
    let began = Instant::now();
    let mut tally = Tally::default();
    let ended = if args.print {
        print(batches, &mut tally)
    } else {
        let mut progress = Progress::new(size, Arc::clone(&read), began);
        let ended = send_all(&args, batches, &mut tally, &mut progress);
        progress.finish();
        ended
    };
    tally.bytes = read.load(Relaxed);
    tally.lines(began.elapsed()).iter().for_each(|line| note(line));
    ended?;
    Ok(if tally.rejected == 0 { Outcome::Well } else { Outcome::NotAllWell })
}

/// The batches of a source, as its format and the mapping make them.
fn batches(args: &IngestArgs, source: Source) -> Result<Box<dyn BatchSource>, Failure> {
    let format = args.format.map_or_else(|| format_of(args), Ok)?;
    let events_max = args.batch as usize;
    let Some(mapping) = Mapping::from_args(args, format)? else {
        let lines = Lines::new(source.reader);
        return Ok(Box::new(LineBatches::new(lines, args.namespace.clone(), args.table.clone(), events_max)));
    };
    let (Some(namespace), Some(table)) = (&args.namespace, &args.table) else {
        return Err(Failure::new("where shall the events go?").hint("name the table with --namespace N --table T"));
    };
    let shift_us = if args.shift_to_now { shift_to_now(args, format, &mapping)? } else { 0 };
    let records = mapped::records(format, &mapping, source)?;
    let source_name = args.source.clone().unwrap_or_else(|| source::plain_name(&args.file));
    let maker = EventMaker::new(mapping, namespace, table, &source_name, shift_us);
    Ok(Box::new(MappedBatches::new(records, maker, events_max)))
}

/// The format that a file's name tells.
fn format_of(args: &IngestArgs) -> Result<Format, Failure> {
    let name = source::plain_name(&args.file);
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("ndjson" | "jsonl" | "json") => Ok(Format::Ndjson),
        Some("csv") => Ok(Format::Csv),
        Some("tsv" | "tab") => Ok(Format::Tsv),
        Some("log") => Ok(Format::Combined),
        _ => Err(Failure::new(format!("the name {name:?} does not tell the format"))
            .hint("say it with --format ndjson, csv, tsv, combined or common")),
    }
}

/// By how much all times move so that the last event is now, µs.
fn shift_to_now(args: &IngestArgs, format: Format, mapping: &Mapping) -> Result<i64, Failure> {
    if source::is_stdin(&args.file) {
        return Err(Failure::new("--shift-to-now reads the file twice, which stdin does not allow"));
    }
    let mut records = mapped::records(format, mapping, source::open(&args.file)?)?;
    let max = mapped::time_max(mapping, records.as_mut())
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", args.file.display())))?;
    let max = max.ok_or_else(|| Failure::new(format!("no event of {} has a time", args.file.display())))?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Ok(types::Timestamp::from_epoch(now).micros_since(types::Timestamp(max)))
}

fn print(mut batches: Box<dyn BatchSource>, tally: &mut Tally) -> Result<(), Failure> {
    while let Some(batch) = batches.next().map_err(read_failed)? {
        answer(&String::from_utf8_lossy(&batch.body))?;
        tally.count(Sent { accepted: batch.lines.len() as u64, rejected: batch.rejected, durability: String::new() });
    }
    Ok(())
}

fn send_all(
    args: &IngestArgs,
    batches: Box<dyn BatchSource>,
    tally: &mut Tally,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let producer = identity::producer_id(args)?;
    let http = Http::new(&args.addresses)?;
    let sender = LineSender { http, url: format!("{}/v1/events", args.addresses.gateway()), producer };
    runtime(1)?.block_on(async {
        let (sink, mut source) = mpsc::channel(AHEAD);
        let reader = thread::spawn(move || read_ahead(batches, &sink));
        let sent = send(&sender, &mut source, tally, progress).await;
        // Closed before the reader is waited for: it may be blocked on a full channel after a failure.
        source.close();
        while source.recv().await.is_some() {}
        let read = reader.join().map_err(|_panic| Failure::new("the reader of the file broke off"))?;
        sent.and(read)
    })
}

fn read_ahead(mut batches: Box<dyn BatchSource>, sink: &mpsc::Sender<LineBatch>) -> Result<(), Failure> {
    while let Some(batch) = batches.next().map_err(read_failed)? {
        if sink.blocking_send(batch).is_err() {
            break;
        }
    }
    Ok(())
}

async fn send(
    sender: &LineSender,
    source: &mut mpsc::Receiver<LineBatch>,
    tally: &mut Tally,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let (mut under_way, mut ended, mut sequence) = (JoinSet::new(), false, 0);
    let mut tick = tokio::time::interval(TICK);
    while !(ended && under_way.is_empty()) {
        tokio::select! {
            batch = source.recv(), if !ended && under_way.len() < WINDOW => match batch {
                None => ended = true,
                Some(batch) => {
                    sequence += 1;
                    let sender = sender.clone();
                    under_way.spawn(async move { sender.send(sequence, batch).await });
                }
            },
            Some(sent) = under_way.join_next() => {
                tally.count(sent.map_err(|_panic| Failure::new("a sender broke off"))??);
            }
            _ = tick.tick() => progress.show(tally, Instant::now()),
        }
    }
    Ok(())
}

fn read_failed(error: std::io::Error) -> Failure {
    Failure::new(format!("cannot read on: {error}"))
}
