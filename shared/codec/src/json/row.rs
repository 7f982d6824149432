//! The event being read, reused from event to event.

use types::limits::EVENT_COLUMNS_MAX;

use super::scalar::{self, StringField, Text};
use crate::{
    Decoded, EventRef, Refused, Reject,
    check::{named_twice, too_many_columns},
};

/// A field of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Namespace,
    Table,
    EventTime,
    EventId,
    Dimensions,
    Metrics,
}

impl Field {
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "namespace" => Self::Namespace,
            "table" => Self::Table,
            "event_time" => Self::EventTime,
            "event_id" => Self::EventId,
            "dimensions" => Self::Dimensions,
            "metrics" => Self::Metrics,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::Table => "table",
            Self::EventTime => "event_time",
            Self::EventId => "event_id",
            Self::Dimensions => "dimensions",
            Self::Metrics => "metrics",
        }
    }
}

type Pair<'a> = (&'a str, &'a str);
type Number<'a> = (&'a str, f64);

/// What was read of an event so far, and its first fault.
#[derive(Debug, Default)]
pub(super) struct Row<'de> {
    namespace: Option<Text<'de>>,
    table: Option<Text<'de>>,
    event_time: Option<i64>,
    event_id: Option<Text<'de>>,
    dimensions: Vec<(Text<'de>, Text<'de>)>,
    metrics: Vec<(Text<'de>, f64)>,
    // Dimensions that are null: absent, but their names are taken.
    nulls: Vec<Text<'de>>,
    scratch: String,
    seen: [bool; 6],
    fault: Option<String>,
    // Memory of the vectors that are handed out, empty in between.
    dimensions_memory: Vec<Pair<'static>>,
    metrics_memory: Vec<Number<'static>>,
}

impl<'de> Row<'de> {
    pub(super) fn clear(&mut self) {
        (self.namespace, self.table, self.event_time, self.event_id) = (None, None, None, None);
        self.dimensions.clear();
        self.metrics.clear();
        self.nulls.clear();
        self.scratch.clear();
        self.seen = [false; 6];
        self.fault = None;
    }

    /// Where decoded text goes.
    pub(super) fn scratch(&mut self) -> &mut String {
        &mut self.scratch
    }

    /// Notes a fault; the first one is told.
    pub(super) fn refuse(&mut self, fault: impl FnOnce() -> String) {
        self.fault.get_or_insert_with(fault);
    }

    /// Notes a fault that goes before any other.
    pub(super) fn refuse_first(&mut self, fault: impl FnOnce() -> String) {
        self.fault = Some(fault());
    }

    /// Notes that a field came; a second time is a fault.
    pub(super) fn begin(&mut self, field: Field) {
        if std::mem::replace(&mut self.seen[field as usize], true) {
            self.refuse(|| named_twice(field.name()));
        }
    }

    /// Takes the value of a scalar field.
    pub(super) fn set(&mut self, field: Field, raw: &'de str) {
        if field == Field::EventTime {
            match scalar::time(raw) {
                Ok(time) => self.event_time = time,
                Err(why) => self.refuse(|| format!("event_time {why}")),
            }
            return;
        }
        let text = match scalar::string(raw, &mut self.scratch) {
            StringField::Text(text) => text,
            StringField::Null if field == Field::EventId => return,
            StringField::Null => return self.refuse(|| format!("{} is not a string", field.name())),
            StringField::Fault(why) => return self.refuse(|| format!("{} {why}", field.name())),
        };
        match field {
            Field::Namespace => self.namespace = Some(text),
            Field::Table => self.table = Some(text),
            _ => self.event_id = Some(text),
        }
    }

    pub(super) fn add_dimension(&mut self, name: Text<'de>, raw: &'de str) {
        if self.is_full() {
            return self.refuse(too_many_columns);
        }
        match scalar::dimension(raw, &mut self.scratch) {
            StringField::Text(value) => self.dimensions.push((name, value)),
            StringField::Null => self.nulls.push(name),
            StringField::Fault(why) => {
                let name = name.get(&self.scratch);
                self.fault.get_or_insert_with(|| format!("dimensions.{name} {why}"));
            }
        }
    }

    pub(super) fn add_metric(&mut self, name: Text<'de>, raw: &str) {
        if self.is_full() {
            return self.refuse(too_many_columns);
        }
        match scalar::metric(raw) {
            Ok(value) => self.metrics.push((name, value)),
            Err(why) => {
                let name = name.get(&self.scratch);
                self.fault.get_or_insert_with(|| format!("metrics.{name} {why}"));
            }
        }
    }

    /// Hands the event out, or why it is none.
    pub(super) fn hand_out(&mut self, index: u32, raw: Option<&[u8]>, each: &mut dyn FnMut(Decoded<'_>)) {
        self.find_missing();
        if let Some(message) = self.fault.take() {
            let refused = Refused {
                reject: Reject::invalid(index, message),
                namespace: self.namespace.as_ref().map(|text| text.get(&self.scratch)),
                table: self.table.as_ref().map(|text| text.get(&self.scratch)),
            };
            return each(Decoded { index, raw, event: Err(refused) });
        }
        let scratch = self.scratch.as_str();
        let mut dimensions: Vec<Pair<'_>> = emptied(std::mem::take(&mut self.dimensions_memory));
        dimensions.extend(self.dimensions.iter().map(|(name, value)| (name.get(scratch), value.get(scratch))));
        let mut metrics: Vec<Number<'_>> = emptied(std::mem::take(&mut self.metrics_memory));
        metrics.extend(self.metrics.iter().map(|(name, value)| (name.get(scratch), *value)));
        let event = EventRef {
            namespace: self.namespace.as_ref().map_or("", |text| text.get(scratch)),
            table: self.table.as_ref().map_or("", |text| text.get(scratch)),
            event_time: self.event_time,
            event_id: self.event_id.as_ref().map(|text| text.get(scratch).as_bytes()),
            dimensions: &dimensions,
            metrics: &metrics,
        };
        each(Decoded { index, raw, event: Ok(event) });
        self.dimensions_memory = emptied(dimensions);
        self.metrics_memory = emptied(metrics);
    }

    /// Refuses an event without a table, or with a name that is null and given again. Other names that are given twice
    /// are found by [`crate::EventChecker`].
    fn find_missing(&mut self) {
        let scratch = self.scratch.as_str();
        let again = self.nulls.iter().enumerate().map(|(at, name)| (at, name.get(scratch))).find(|&(at, name)| {
            self.nulls[..at].iter().any(|other| other.get(scratch) == name)
                || self.dimensions.iter().any(|(other, _)| other.get(scratch) == name)
                || self.metrics.iter().any(|(other, _)| other.get(scratch) == name)
        });
        let fault = match again {
            Some((_, name)) => named_twice(name),
            None if self.namespace.is_none() => "namespace is missing".to_owned(),
            None if self.table.is_none() => "table is missing".to_owned(),
            None => return,
        };
        self.refuse(|| fault);
    }

    fn is_full(&self) -> bool {
        self.dimensions.len() + self.metrics.len() + self.nulls.len() >= EVENT_COLUMNS_MAX
    }
}

/// The memory of a vector for items that live for another time. Collecting a vector's own iterator keeps its memory.
fn emptied<From, Into>(mut items: Vec<From>) -> Vec<Into> {
    items.clear();
    items.into_iter().map(|_| -> Into { unreachable!("the vector was cleared") }).collect()
}
