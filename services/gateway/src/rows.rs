//! Bytes of rows to blocks, in one pass: what a decode thread does for one request.

use bytes::Bytes;
use codec::{BodyBuilder, Decoded, EventRef, JsonForm, ProtobufBatch, Reject};
use serde_json::value::RawValue;
use types::{ApiError, TableName, TenantId};

use crate::{
    dead_letters::{Drawer, Letter},
    identity,
    sort::{Known, Rules, Sorted, Sorter},
};

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// An `IngestBatchRequest`.
    Protobuf,
    /// One event, an array, or an object of events.
    Json,
    /// An event per line.
    Ndjson,
}

/// An event that was rejected, and its letter where its table could be read.
#[derive(Debug)]
pub(crate) struct Rejected {
    /// Which and why.
    pub reject: Reject,
    /// For the dead letters.
    pub letter: Option<(Drawer, Letter)>,
}

/// What a request's rows became.
#[derive(Debug)]
pub(crate) struct SortedRows {
    /// Events in the request, the rejected ones included.
    pub events: u64,
    /// Blocks, or what was lacking to make them.
    pub sorted: Sorted,
    /// Rejected events in the request's order.
    pub rejected: Vec<Rejected>,
}

/// The rows of one request, and what is to be known to sort them.
pub(crate) struct Rows<'a> {
    /// How they are written.
    pub format: Format,
    /// Their bytes, not compressed.
    pub body: &'a Bytes,
    /// Whose they are.
    pub tenant: TenantId,
    /// How to sort them; rows in protocol buffers bring the identity of their batch along.
    pub rules: Rules,
    /// How many there may be.
    pub events_max: usize,
    /// Permits that many events, or refuses the request. Called once, before the events are read where their number is
    /// known so early.
    pub admit: &'a dyn Fn(u64) -> Result<(), ApiError>,
    /// What is known of tables.
    pub known: Known<'a>,
}

impl Rows<'_> {
    /// Decodes, checks and sorts the rows, with builders of `builders`, which come back there.
    ///
    /// # Errors
    /// The body as a whole cannot be read, is too large, or is not admitted; nothing of it counts.
    pub(crate) fn sort(&self, builders: &mut Vec<BodyBuilder>) -> Result<SortedRows, ApiError> {
        let Self { body, events_max, mut rules, .. } = *self;
        let batch = match self.format {
            Format::Protobuf => Some(ProtobufBatch::parse(body, events_max)?),
            Format::Json | Format::Ndjson => None,
        };
        if let Some(batch) = &batch {
            rules.batch = identity::of_producer(batch.producer_id().as_bytes(), batch.sequence())?;
            (self.admit)(u64::from(batch.events()))?;
        }
        let mut sorter = Sorter::new(rules, self.known, builders);
        let (mut events, mut found) = (0, Vec::new());
        let each = |decoded: Decoded<'_>| {
            events += 1;
            found.extend(sort_one(&mut sorter, &decoded));
        };
        let decoded = match (&batch, self.format) {
            (Some(batch), _) => {
                batch.for_each(each);
                Ok(())
            }
            (None, Format::Ndjson) => codec::decode_json(body, JsonForm::Lines, events_max, each).map(drop),
            (None, _) => codec::decode_json(body, JsonForm::Document, events_max, each).map(drop),
        };
        // The sorter ends in any case: it gives the builders back.
        let sorted = sorter.finish();
        decoded?;
        let sorted = sorted?;
        if batch.is_none() {
            (self.admit)(events)?;
        }
        if self.format == Format::Json {
            add_raw_events(body, &mut found);
        }
        let rejected = found.into_iter().map(|found| found.into_rejected(self.tenant, rules)).collect();
        Ok(SortedRows { events, sorted, rejected })
    }
}

/// A rejected event while the request is read.
struct Found {
    reject: Reject,
    table: Option<TableName>,
    event: Option<Box<RawValue>>,
}

fn sort_one(sorter: &mut Sorter<'_>, decoded: &Decoded<'_>) -> Option<Found> {
    match &decoded.event {
        Ok(event) => {
            let reject = sorter.push(event, decoded.index).err()?;
            let table = Some(TableName::new(event.namespace, event.table));
            Some(Found { reject, table, event: decoded.raw.map(|raw| shown(raw, Some(event))) })
        }
        Err(refused) => {
            let table = refused.namespace.zip(refused.table).map(|(namespace, table)| TableName::new(namespace, table));
            let event = decoded.raw.map(|raw| shown(raw, None));
            Some(Found { reject: refused.reject.clone(), table, event })
        }
    }
}

impl Found {
    fn into_rejected(self, tenant: TenantId, rules: Rules) -> Rejected {
        let drawer = self.table.and_then(|table| Drawer::new(tenant, table));
        let letter = drawer.zip(self.event).map(|(drawer, event)| {
            let Reject { code, message, .. } = &self.reject;
            (drawer, Letter { received: rules.received, code: *code, message: message.clone(), event })
        });
        Rejected { reject: self.reject, letter }
    }
}

/// An event as sent if that is JSON, else the event as JSON, else its bytes as a JSON string.
fn shown(raw: &[u8], event: Option<&EventRef<'_>>) -> Box<RawValue> {
    let text = std::str::from_utf8(raw).ok();
    if let Some(json) = text.and_then(|text| RawValue::from_string(text.trim().to_owned()).ok()) {
        return json;
    }
    if let Some(json) = event.and_then(|event| RawValue::from_string(event.to_json()).ok()) {
        return json;
    }
    serde_json::value::to_raw_value(&String::from_utf8_lossy(raw)).expect("a string has a JSON form")
}

/// Finds the rejected events of a JSON body, whose decoder does not know where its events lie.
fn add_raw_events(body: &Bytes, found: &mut [Found]) {
    if found.iter().all(|found| found.event.is_some() || found.table.is_none()) {
        return;
    }
    let Ok(text) = std::str::from_utf8(body) else { return };
    // Both are in the request's order.
    let mut wanted = found.iter_mut().peekable();
    codec::raw_json_events(text, |index, raw| {
        if let Some(found) = wanted.next_if(|found| found.reject.index == index) {
            found.event = Some(shown(raw.as_bytes(), None));
        }
    });
}
