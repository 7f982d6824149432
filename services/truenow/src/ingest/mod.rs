//! `truenow ingest`: the events of a file to a table.
//!
//! 1. Events in TrueNow's own form go as the lines that they are; a file with a mapping goes as columns. One thread reads,
//!    unpacks and maps; the runtime sends several batches at a time.
//! 2. Batches are cut by what is in the file alone, so that the same file gives the same batches with the same numbers,
//!    which are their identity.
//! 3. A line that makes no event is reported with its number and its reason and never stops the rest.

mod access_log;
mod delimited;
mod event;
mod identity;
pub(crate) mod json_event;
mod json_lines;
mod line_of_row;
mod mapped;
mod mapping;
mod own_form;
mod record;
mod send_lines;
mod source;
pub(crate) mod summary;
pub(crate) mod time;
mod visible;

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, Instant, SystemTime},
};

use tokio::{sync::mpsc, task::JoinSet};

use self::{
    event::EventMaker,
    mapped::MappedFile,
    mapping::Mapping,
    own_form::{LineBatch, LineBatches},
    send_lines::LineSender,
    source::{Lines, Source},
    summary::{Progress, Tally},
};
use crate::{
    args::{Format, IngestArgs},
    failure::Failure,
    http::Http,
    outcome::{Outcome, answer, note, runtime},
};

/// Batches of lines under way at a time.
const WINDOW: usize = 4;
/// Batches of lines read ahead of those under way.
const AHEAD: usize = 4;
/// Progress is looked at this often.
const TICK: Duration = Duration::from_millis(200);

/// Sends, or prints, the events of a file.
///
/// # Errors
/// The file cannot be read, the mapping does not fit it, or nobody takes the events.
pub(crate) fn run(args: &IngestArgs) -> Result<Outcome, Failure> {
    if args.wait {
        // The question that waits needs them; to find that out after everything is sent would be too late.
        table_of(args)?;
    }
    let source = source::open(&args.file)?;
    let (size, read) = (source.size, Arc::clone(&source.read));
    let events = events(args, source)?;
    let began = Instant::now();
    let mut progress = Progress::new(size, Arc::clone(&read), began);
    let mut tally = Tally::default();
    let runtime = runtime(1)?;
    let ended = runtime.block_on(async {
        match events {
            Events::Own(batches) if args.print => print_lines(batches, &mut tally),
            Events::Own(batches) => send_lines(args, batches, &mut tally, &mut progress).await,
            Events::Mapped(file) if args.print => file.print(&mut tally).await,
            Events::Mapped(file) => send_mapped(args, file, &mut tally, &mut progress).await,
        }
    });
    progress.finish();
    tally.bytes = read.load(Relaxed);
    tally.lines(began.elapsed()).iter().for_each(|line| note(line));
    ended?;
    if args.wait {
        runtime.block_on(visible::wait(args, &tally.tokens))?;
    }
    Ok(if tally.rejected == 0 { Outcome::Well } else { Outcome::NotAllWell })
}

/// The events of a source.
enum Events {
    /// In TrueNow's own form.
    Own(LineBatches),
    /// Of a form that the mapping explains.
    Mapped(MappedFile),
}

/// The events of a source, as its format and the mapping make them.
fn events(args: &IngestArgs, source: Source) -> Result<Events, Failure> {
    let format = args.format.map_or_else(|| format_of(args), Ok)?;
    let Some(mapping) = Mapping::from_args(args, format)? else {
        let (namespace, table) = (args.namespace.clone(), args.table.clone());
        return Ok(Events::Own(LineBatches::new(Lines::new(source.reader), namespace, table, args.batch as usize)));
    };
    let (namespace, table) = table_of(args)?;
    let shift_us = if args.shift_to_now { shift_to_now(args, format, &mapping)? } else { 0 };
    let records = mapped::records(format, &mapping, source)?;
    let source_name = args.source.clone().unwrap_or_else(|| source::plain_name(&args.file));
    let maker = EventMaker::new(mapping, namespace, table, &source_name, shift_us);
    Ok(Events::Mapped(MappedFile { records, maker }))
}

/// Namespace and table of the command line.
fn table_of(args: &IngestArgs) -> Result<(&str, &str), Failure> {
    match (&args.namespace, &args.table) {
        (Some(namespace), Some(table)) => Ok((namespace, table)),
        _ => Err(Failure::new("which table is meant?").hint("name it with --namespace N --table T")),
    }
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

fn print_lines(mut batches: LineBatches, tally: &mut Tally) -> Result<(), Failure> {
    while let Some(batch) = batches.next().map_err(|error| read_failed(&error))? {
        answer(&String::from_utf8_lossy(&batch.body))?;
        tally.accepted += batch.lines.len() as u64;
        batch.rejected.into_iter().for_each(|(line, why)| tally.reject(line, why));
    }
    Ok(())
}

async fn send_mapped(
    args: &IngestArgs,
    file: MappedFile,
    tally: &mut Tally,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let (namespace, table) = table_of(args)?;
    let writer = mapped::writer(args, namespace, table, identity::producer_id(args)?).await?;
    file.send(writer, tally, progress).await
}

async fn send_lines(
    args: &IngestArgs,
    batches: LineBatches,
    tally: &mut Tally,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let producer = identity::producer_id(args)?;
    let http = Http::new(&args.addresses)?;
    let sender = LineSender { http, url: format!("{}/v1/events", args.addresses.gateway()), producer };
    let (sink, mut source) = mpsc::channel(AHEAD);
    let reader = thread::spawn(move || read_ahead(batches, &sink));
    let sent = send_batches(&sender, &mut source, tally, progress).await;
    // Closed before the reader is waited for: it may be blocked on a full channel after a failure.
    source.close();
    while source.recv().await.is_some() {}
    let read = reader.join().map_err(|_panic| Failure::new("the reader of the file broke off"))?;
    sent.and(read)
}

fn read_ahead(mut batches: LineBatches, sink: &mpsc::Sender<LineBatch>) -> Result<(), Failure> {
    while let Some(batch) = batches.next().map_err(|error| read_failed(&error))? {
        if sink.blocking_send(batch).is_err() {
            break;
        }
    }
    Ok(())
}

async fn send_batches(
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
            _ = tick.tick() => progress.show(tally.accepted, Instant::now()),
        }
    }
    Ok(())
}

fn read_failed(error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot read on: {error}"))
}
