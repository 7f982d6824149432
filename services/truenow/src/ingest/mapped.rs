//! Files with a mapping: the reader of each format, and the batches made of its records.

use std::io;

use super::{
    access_log::AccessLog,
    delimited::{Delimited, Delimiter},
    event::{EventMaker, event_time},
    json_event,
    json_lines::JsonLines,
    mapping::Mapping,
    own_form::{BatchSource, LineBatch},
    record::{Read, Record, Records},
    source::{Lines, Source},
};
use crate::{args::Format, failure::Failure};

/// A reader of `format` that fills the slots of the mapping.
///
/// # Errors
/// The file lacks a column of the mapping.
pub(crate) fn records(format: Format, mapping: &Mapping, source: Source) -> Result<Box<dyn Records + Send>, Failure> {
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

/// Batches of the events of a file.
pub(crate) struct MappedBatches {
    records: Box<dyn Records + Send>,
    record: Record,
    maker: EventMaker,
    events_max: usize,
}

impl MappedBatches {
    /// Batches of at most `events_max` events.
    pub(crate) fn new(records: Box<dyn Records + Send>, maker: EventMaker, events_max: usize) -> Self {
        Self { records, record: Record::default(), maker, events_max }
    }
}

impl BatchSource for MappedBatches {
    fn next(&mut self) -> io::Result<Option<LineBatch>> {
        let mut batch = LineBatch::default();
        while !batch.is_full(self.events_max) {
            let read = self.records.next(&mut self.record)?;
            let line = self.record.line;
            let made = match read {
                Read::End => break,
                Read::Bad(why) => Err(why),
                Read::Record => self
                    .maker
                    .make(&self.record, |event| batch.body.extend_from_slice(json_event::line(event).as_bytes())),
            };
            match made {
                Ok(()) => batch.lines.push(line),
                Err(why) => batch.rejected.push((line, why)),
            }
        }
        Ok(batch.into_some())
    }
}
