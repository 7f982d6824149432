//! A page of raw events in parts of bounded size, and back. Names of columns go once.

use std::{collections::HashMap, sync::Arc};

use query::RawEvent;
use types::ApiError;

use super::{
    EventsCovered, NodeEvents,
    messages::{place, place_of, unavailable, unavailable_of},
};
use crate::{
    internal::{self, EventsPart, EventsTail},
    wire::Malformed,
};

/// Bytes of a part, about.
const PART_BYTES: usize = 256 << 10;
/// What an event takes beside the bytes of its dimensions, about: its place, and each of its columns.
const PLACE_BYTES: usize = 32;
const COLUMN_BYTES: usize = 12;

/// The parts of a page, made one by one.
pub(super) struct Parts {
    events: std::vec::IntoIter<RawEvent>,
    names: HashMap<Arc<str>, u32>,
    /// Goes with the last part.
    tail: Option<EventsTail>,
}

impl Parts {
    pub(super) fn new(page: NodeEvents) -> Self {
        let tail = EventsTail {
            more: page.more,
            covered: page.covered.iter().map(Into::into).collect(),
            unavailable: unavailable(&page.unavailable),
        };
        Self { events: page.events.into_iter(), names: HashMap::new(), tail: Some(tail) }
    }

    /// The place of a name, which goes with this part where no part had it before.
    fn name(&mut self, name: Arc<str>, part: &mut EventsPart) -> u32 {
        let next = self.names.len() as u32;
        *self.names.entry(name).or_insert_with_key(|name| {
            part.names.push(name.to_string());
            next
        })
    }
}

impl Iterator for Parts {
    type Item = EventsPart;

    fn next(&mut self) -> Option<EventsPart> {
        self.tail.as_ref()?;
        let (mut part, mut bytes) = (EventsPart::default(), 0);
        while bytes < PART_BYTES {
            let Some(event) = self.events.next() else {
                part.tail = self.tail.take();
                break;
            };
            let mut message = internal::RawEvent { place: Some(place(event.place)), ..Default::default() };
            bytes += PLACE_BYTES + COLUMN_BYTES * (event.dimensions.len() + event.metrics.len());
            for (name, value) in event.dimensions {
                bytes += value.len();
                message.dimension_names.push(self.name(name, &mut part));
                message.dimensions.push(value);
            }
            for (name, value) in event.metrics {
                message.metric_names.push(self.name(name, &mut part));
                message.metrics.push(value);
            }
            part.events.push(message);
        }
        Some(part)
    }
}

/// A page whose parts are coming.
#[derive(Default)]
pub(super) struct Gathering {
    names: Vec<Arc<str>>,
    events: Vec<RawEvent>,
    tail: Option<EventsTail>,
}

impl Gathering {
    /// Takes the next part of a page of at most `limit` events. `false`: it was the last.
    ///
    /// # Errors
    /// `INTERNAL` for a part that no node sends.
    pub(super) fn take(&mut self, part: EventsPart, limit: usize) -> Result<bool, ApiError> {
        self.names.extend(part.names.into_iter().map(Arc::from));
        if part.events.len() > limit.saturating_sub(self.events.len()) {
            return Err(Malformed("more events than were asked for").into());
        }
        for event in part.events {
            let (place, dimensions) = (event.place.unwrap_or_default(), event.dimensions);
            let event = RawEvent {
                place: place_of(place),
                dimensions: self.columns(event.dimension_names, dimensions)?,
                metrics: self.columns(event.metric_names, event.metrics)?,
            };
            self.events.push(event);
        }
        self.tail = part.tail;
        Ok(self.tail.is_none())
    }

    fn columns<T>(&self, names: Vec<u32>, values: Vec<T>) -> Result<Vec<(Arc<str>, T)>, Malformed> {
        if names.len() != values.len() {
            return Err(Malformed("an event with a column without a value"));
        }
        let named = |(name, value): (u32, T)| {
            let name = self.names.get(name as usize).ok_or(Malformed("an event with a column without a name"))?;
            Ok((Arc::clone(name), value))
        };
        names.into_iter().zip(values).map(named).collect()
    }

    /// The page.
    ///
    /// # Errors
    /// `UNAVAILABLE` where its last part did not come; `INTERNAL` where no node sends such a one.
    pub(super) fn finish(self) -> Result<NodeEvents, ApiError> {
        let tail = self.tail.ok_or_else(|| ApiError::unavailable("a node of the hot tier left within its answer"))?;
        let covered = tail.covered.into_iter().map(EventsCovered::try_from);
        Ok(NodeEvents {
            events: self.events,
            more: tail.more,
            covered: covered.collect::<Result<_, _>>()?,
            unavailable: unavailable_of(&tail.unavailable),
        })
    }
}
