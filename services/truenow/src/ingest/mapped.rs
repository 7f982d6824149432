//! Files with a mapping: the reader of each format, and their events sent as columns, or printed.

use std::{
    io,
    time::{Duration, Instant, SystemTime},
};

use truenow_client::{Client, ColumnsWriter, Options, PushError, Row, Summary};
use types::Timestamp;

use super::{
    access_log::AccessLog,
    delimited::{Delimited, Delimiter},
    event::{EventMaker, event_time},
    json_event,
    json_lines::JsonLines,
    line_of_row::LineOfRow,
    mapping::Mapping,
    read_failed,
    record::{Read, Record, Records},
    source::{Lines, Source},
    summary::{Progress, Tally},
};
use crate::{
    args::{Format, IngestArgs},
    failure::Failure,
    outcome::answer,
};

/// Batches under way at a time.
const WINDOW: usize = 8;
/// Rejects of the server that are listed with their lines; all are counted.
const LISTED_MAX: usize = 1_000;
/// Progress is looked at after so many records, so that the clock is not read for each.
const SHOW_EVERY: u64 = 1_024;
/// Progress is shown this often.
const TICK: Duration = Duration::from_millis(200);

/// A reader of `format` that fills the slots of the mapping.
///
/// # Errors
/// The file lacks a column of the mapping.
pub(crate) fn records(format: Format, mapping: &Mapping, source: Source) -> Result<Box<dyn Records>, Failure> {
    let columns = &mapping.columns;
    Ok(match format {
        Format::Ndjson => Box::new(JsonLines::new(Lines::new(source.reader), columns)),
        Format::Csv => Box::new(Delimited::new(source.reader, Delimiter::Comma, columns)?),
        Format::Tsv => Box::new(Delimited::new(source.reader, Delimiter::Tab, columns)?),
        Format::Combined => Box::new(AccessLog::new(Lines::new(source.reader), columns, true)?),
        Format::Common => Box::new(AccessLog::new(Lines::new(source.reader), columns, false)?),
    })
}

/// The greatest event time of a file, µs; `None` where no record has one.
///
/// # Errors
/// The file cannot be read on.
pub(crate) fn time_max(mapping: &Mapping, records: &mut dyn Records) -> io::Result<Option<i64>> {
    let (mut record, mut max) = (Record::default(), None);
    loop {
        match records.next(&mut record)? {
            Read::End => return Ok(max),
            Read::Bad(_) => {}
            Read::Record => max = max.max(event_time(mapping, &record).unwrap_or_default()),
        }
    }
}

/// The events of a file.
pub(crate) struct MappedFile {
    /// Its records.
    pub(crate) records: Box<dyn Records>,
    /// What makes events of them.
    pub(crate) maker: EventMaker,
}

impl MappedFile {
    /// Prints the events in TrueNow's own form.
    ///
    /// # Errors
    /// The file cannot be read on, or stdout not written.
    pub(crate) async fn print(mut self, tally: &mut Tally) -> Result<(), Failure> {
        let (mut record, mut text) = (Record::default(), String::new());
        loop {
            let made = match self.records.next(&mut record).map_err(|error| read_failed(&error))? {
                Read::End => return answer(&text),
                Read::Bad(why) => Err(why),
                Read::Record => self.maker.make(&record, async |event| text.push_str(&json_event::line(event))).await,
            };
            match made {
                Ok(()) => tally.accepted += 1,
                Err(why) => tally.reject(record.line, why),
            }
            if text.len() > PRINT_BYTES {
                answer(&text)?;
                text.clear();
            }
        }
    }

    /// Sends the events as columns. Reading and mapping happen on the calling thread, sending on the runtime's.
    ///
    /// # Errors
    /// The file cannot be read on, or nobody takes the events.
    pub(crate) async fn send(
        mut self,
        mut writer: ColumnsWriter,
        tally: &mut Tally,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let (mut record, mut lines, mut shown) = (Record::default(), LineOfRow::default(), Instant::now());
        for number in 0_u64.. {
            match self.records.next(&mut record).map_err(|error| read_failed(&error))? {
                Read::End => break,
                Read::Bad(why) => tally.reject(record.line, why),
                Read::Record => match self.maker.make(&record, async |event| push(&mut writer, event).await).await {
                    Err(why) => tally.reject(record.line, why),
                    Ok(pushed) => {
                        lines.push(record.line);
                        match pushed {
                            Ok(()) => {}
                            Err(PushError::Row(why)) => tally.reject(record.line, why),
                            Err(PushError::Client(error)) => return Err(client_failed(&error)),
                        }
                    }
                },
            }
            if number.is_multiple_of(SHOW_EVERY) && shown.elapsed() >= TICK {
                shown = Instant::now();
                progress.show(writer.summary().accepted, shown);
            }
        }
        let summary = writer.finish().await.map_err(|error| client_failed(&error))?;
        count(tally, summary, &lines);
        Ok(())
    }
}

/// Printed text is written in pieces of about this size.
const PRINT_BYTES: usize = 1 << 20;

async fn push(writer: &mut ColumnsWriter, event: &codec::EventRef<'_>) -> Result<(), PushError> {
    let event_time = event.event_time.unwrap_or_else(|| {
        Timestamp::from_epoch(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()).0
    });
    let (event_id, dimensions, metrics) = (event.event_id, event.dimensions, event.metrics);
    writer.push(&Row { event_time, event_id, dimensions, metrics }).await
}

/// A writer for the table of the command line.
///
/// # Errors
/// Nobody is there, or the table cannot be had.
pub(crate) async fn writer(
    args: &IngestArgs,
    namespace: &str,
    table: &str,
    producer: String,
) -> Result<ColumnsWriter, Failure> {
    let key = args.addresses.key()?;
    let failed = |error| client_failed(&error);
    let client = Client::connect(&args.addresses.gateway_grpc(), key.as_deref()).await.map_err(failed)?;
    let mut options = Options::new(producer);
    options.batch_rows_max = args.batch as usize;
    options.batches_in_flight_max = WINDOW;
    options.rejects_listed_max = LISTED_MAX;
    client.columns(namespace, table, options).await.map_err(failed)
}

fn count(tally: &mut Tally, summary: Summary, lines: &LineOfRow) {
    tally.accepted = summary.accepted;
    tally.durability = summary.durability;
    tally.tokens = summary.tokens;
    let listed = summary.rejects.len() as u64;
    for reject in summary.rejects {
        tally.reject(lines.line(reject.row), format!("{}: {}", reject.code, reject.message));
    }
    tally.rejected += summary.rejected.saturating_sub(listed);
}

fn client_failed(error: &truenow_client::ClientError) -> Failure {
    let cause = std::error::Error::source(error).map_or(String::new(), |cause| format!(": {cause}"));
    Failure::new(format!("{error}{cause}")).hint(
        "what was not acked may be sent again with the same command; --gateway-grpc and --port-offset say where to",
    )
}
