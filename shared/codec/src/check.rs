//! The one place that holds an event against the limits of the contract.
//!
//! Neighbouring events mostly have the same names, so names that passed once are only compared.

use types::{
    NameError, TableSettings, Timestamp, check_column_name, check_table_name,
    limits::{DIMENSION_BYTES_MAX, EVENT_COLUMNS_MAX, EVENT_ID_BYTES_MAX, MAX_FUTURE_US_DEFAULT},
};

use crate::{EventRef, Reject};

/// Bytes of a name that a message shows.
const SHOWN_BYTES_MAX: usize = 160;

/// Between which times an event may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// The time of receipt.
    pub now: Timestamp,
    /// How old an event may be, µs; `None`: any age.
    pub max_age_us: Option<i64>,
    /// How far in the future an event may lie, µs.
    pub max_future_us: i64,
}

impl TimeLimits {
    /// How far in the future an event may lie whatever a table allows, µs: ten years of 366 days. It keeps windows and
    /// watermarks, which follow the greatest event time, off the end of the range.
    pub const FUTURE_US_MAX: i64 = 10 * 366 * 86_400_000_000;
    /// How old an event may be whatever a table allows, µs: some 146,000 years. The span between any two events fits an `i64`.
    pub const AGE_US_MAX: i64 = i64::MAX / 2;

    /// The limits of a table for what is received at `now`.
    #[must_use]
    pub fn of(settings: &TableSettings, now: Timestamp) -> Self {
        Self { now, max_age_us: settings.max_age_us, max_future_us: settings.max_future_us }
    }

    /// The limits of a table that does not exist yet.
    #[must_use]
    pub fn default_at(now: Timestamp) -> Self {
        Self { now, max_age_us: None, max_future_us: MAX_FUTURE_US_DEFAULT }
    }

    /// Holds an event time against the limits.
    ///
    /// # Errors
    /// Says which limit it breaks.
    pub fn check(&self, event_time: i64) -> Result<(), String> {
        let age = self.now.micros_since(Timestamp(event_time));
        let max_future_us = self.max_future_us.min(Self::FUTURE_US_MAX);
        if age < max_future_us.saturating_neg() {
            return Err(format!(
                "event_time {event_time} is {} µs in the future, at most max_future_us = {max_future_us} are allowed",
                age.saturating_neg(),
            ));
        }
        let max_age_us = self.max_age_us.unwrap_or(Self::AGE_US_MAX).min(Self::AGE_US_MAX);
        if age > max_age_us {
            return Err(format!(
                "event_time {event_time} is {age} µs old, at most max_age_us = {max_age_us} are allowed"
            ));
        }
        Ok(())
    }
}

/// Checks events one after the other. Keeps the names of the last that passed, nothing else.
#[derive(Debug, Default)]
pub struct EventChecker {
    namespace: String,
    table: String,
    names: String,
    // Where each name ends in `names`: dimensions, then metrics.
    ends: Vec<usize>,
    dimensions: usize,
}

impl EventChecker {
    /// Holds an event against all limits: names, number and lengths, finite metrics, event time.
    ///
    /// # Errors
    /// The first fault, with `index` as the event's.
    pub fn check(&mut self, event: &EventRef<'_>, index: u32, times: &TimeLimits) -> Result<(), Reject> {
        self.fault(event, times).map_err(|message| Reject::invalid(index, message))
    }

    fn fault(&mut self, event: &EventRef<'_>, times: &TimeLimits) -> Result<(), String> {
        if !self.has_names_of(event) {
            check_names(event)?;
            self.keep_names_of(event);
        }
        if let Some(id) = event.event_id
            && !(1..=EVENT_ID_BYTES_MAX).contains(&id.len())
        {
            return Err(format!("event_id has {} bytes, 1 to {EVENT_ID_BYTES_MAX} are allowed", id.len()));
        }
        if let Some((name, value)) = event.dimensions.iter().find(|(_, value)| value.len() > DIMENSION_BYTES_MAX) {
            let len = value.len();
            return Err(format!("dimensions.{name} has {len} bytes, at most {DIMENSION_BYTES_MAX} are allowed"));
        }
        match event.metrics.iter().find(|(_, value)| !value.is_finite()) {
            Some((name, value)) if value.is_nan() => return Err(format!("metrics.{name} is not a number")),
            Some((name, _)) => return Err(format!("metrics.{name} is not finite")),
            None => {}
        }
        event.event_time.map_or(Ok(()), |time| times.check(time))
    }

    fn has_names_of(&self, event: &EventRef<'_>) -> bool {
        if event.dimensions.len() != self.dimensions
            || event.dimensions.len() + event.metrics.len() != self.ends.len()
            || event.namespace != self.namespace
            || event.table != self.table
        {
            return false;
        }
        let mut start = 0;
        column_names(event).zip(&self.ends).all(|(name, &end)| {
            let known = &self.names[start..end];
            start = end;
            name == known
        })
    }

    fn keep_names_of(&mut self, event: &EventRef<'_>) {
        self.namespace.clear();
        self.namespace.push_str(event.namespace);
        self.table.clear();
        self.table.push_str(event.table);
        self.names.clear();
        self.ends.clear();
        for name in column_names(event) {
            self.names.push_str(name);
            self.ends.push(self.names.len());
        }
        self.dimensions = event.dimensions.len();
    }
}

fn column_names<'e>(event: &EventRef<'e>) -> impl Iterator<Item = &'e str> {
    let dimensions = event.dimensions.iter().map(|(name, _)| *name);
    dimensions.chain(event.metrics.iter().map(|(name, _)| *name))
}

fn check_names(event: &EventRef<'_>) -> Result<(), String> {
    let at_fault = |field: &str, error: NameError| format!("{field} {error}");
    check_table_name(event.namespace).map_err(|error| at_fault("namespace", error))?;
    check_table_name(event.table).map_err(|error| at_fault("table", error))?;
    let columns = event.dimensions.len() + event.metrics.len();
    if columns > EVENT_COLUMNS_MAX {
        return Err(too_many_columns());
    }
    for (place, name) in column_names(event).enumerate() {
        let kind = if place < event.dimensions.len() { "dimensions" } else { "metrics" };
        check_column_name(name).map_err(|error| format!("name {} in {kind} {error}", shown(name)))?;
        if column_names(event).take(place).any(|earlier| earlier == name) {
            return Err(named_twice(name));
        }
    }
    Ok(())
}

/// The fault of an event with too many columns; decoders stop collecting there.
pub(crate) fn too_many_columns() -> String {
    format!("event has more than {EVENT_COLUMNS_MAX} columns")
}

/// The fault of an event that has a name twice.
pub(crate) fn named_twice(name: &str) -> String {
    format!("{} is given twice", shown(name))
}

/// A name from outside as a message may show it: quoted, escaped, and not longer than a message should be.
pub(crate) fn shown(name: &str) -> String {
    match name.char_indices().find(|(at, _)| *at >= SHOWN_BYTES_MAX) {
        Some((at, _)) => format!("{:?}…", &name[..at]),
        None => format!("{name:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn times() -> TimeLimits {
        TimeLimits { now: NOW, max_age_us: Some(5_000), max_future_us: 100 }
    }

    fn event<'a>(dimensions: &'a [(&'a str, &'a str)], metrics: &'a [(&'a str, f64)]) -> EventRef<'a> {
        EventRef {
            namespace: "shop",
            table: "events",
            event_time: Some(NOW.0),
            event_id: Some(b"1"),
            dimensions,
            metrics,
        }
    }

    fn message(event: &EventRef<'_>) -> String {
        let mut checker = EventChecker::default();
        checker.check(event, 17, &times()).map_err(|reject| assert_eq!(reject.index, 17)).ok();
        checker.check(event, 17, &times()).map_or_else(|reject| reject.message, |()| "good".into())
    }

    /// Goal: each limit of the contract is held, to the unit, and named.
    #[test]
    fn limits_are_held_and_named() {
        let good = event(&[("a", "x")], &[("m", 1.0)]);
        assert_eq!(message(&good), "good");
        assert_eq!(message(&EventRef { namespace: "", ..good }), "namespace must not be empty");
        assert_eq!(message(&EventRef { table: "a.b", ..good }), "table must not hold '.'");
        assert_eq!(message(&EventRef { event_id: Some(&[b'x'; 256]), ..good }), "good");
        assert_eq!(
            message(&EventRef { event_id: Some(&[b'x'; 257]), ..good }),
            "event_id has 257 bytes, 1 to 256 are allowed"
        );
        assert_eq!(message(&EventRef { event_id: Some(b""), ..good }), "event_id has 0 bytes, 1 to 256 are allowed");
        assert_eq!(message(&event(&[("a\0", "x")], &[])), "name \"a\\0\" in dimensions must not hold '\\0'");
        assert_eq!(message(&event(&[("a", "x"), ("a", "x")], &[])), "\"a\" is given twice");
        assert_eq!(message(&event(&[("a", "x")], &[("a", 1.0)])), "\"a\" is given twice");
        assert_eq!(message(&event(&[], &[("revenue", f64::NAN)])), "metrics.revenue is not a number");
        assert_eq!(message(&event(&[], &[("revenue", f64::INFINITY)])), "metrics.revenue is not finite");
        let (long, longer) = ("x".repeat(8192), "x".repeat(8193));
        assert_eq!(message(&event(&[("a", &long)], &[])), "good");
        assert_eq!(message(&event(&[("a", &longer)], &[])), "dimensions.a has 8193 bytes, at most 8192 are allowed");
    }

    /// Goal: 64 columns pass, 65 do not, whatever their kinds.
    #[test]
    fn columns_are_counted() {
        let names: Vec<String> = (0..65).map(|n| format!("c{n}")).collect();
        let dimensions: Vec<_> = names[..40].iter().map(|name| (name.as_str(), "x")).collect();
        let metrics: Vec<_> = names[40..].iter().map(|name| (name.as_str(), 1.0)).collect();
        assert_eq!(message(&event(&dimensions, &metrics[1..])), "good");
        assert_eq!(message(&event(&dimensions, &metrics)), "event has more than 64 columns");
    }

    /// Goal: times are refused one microsecond beyond either limit, and at the ends of the range.
    #[test]
    fn times_are_held_to_the_microsecond() {
        let at = |time| message(&EventRef { event_time: Some(time), ..event(&[], &[]) });
        assert_eq!((at(NOW.0 + 100), at(NOW.0 - 5_000)), ("good".into(), "good".into()));
        assert!(at(NOW.0 + 101).contains("101 µs in the future"), "{}", at(NOW.0 + 101));
        assert!(at(NOW.0 - 5_001).contains("5001 µs old"));
        assert!(at(i64::MAX).contains("in the future") && at(i64::MIN).contains("old"));
    }

    /// Goal: no setting lets a time come near the ends of the range, where sums and differences are cut off.
    #[test]
    fn no_setting_lets_times_reach_the_ends() {
        for any in [i64::MAX, i64::MAX - 1] {
            let limits = TimeLimits { now: NOW, max_age_us: Some(any), max_future_us: any };
            for limits in [limits, TimeLimits { max_age_us: None, ..limits }] {
                let latest = NOW.0 + TimeLimits::FUTURE_US_MAX;
                let earliest = NOW.0 - TimeLimits::AGE_US_MAX;
                assert_eq!((limits.check(latest), limits.check(earliest)), (Ok(()), Ok(())));
                for time in [latest + 1, i64::MAX - 1, i64::MAX, earliest - 1, i64::MIN + 1, i64::MIN] {
                    assert!(limits.check(time).is_err(), "{time}");
                }
            }
        }
    }

    /// Goal: a remembered set of names never lets another one pass.
    #[test]
    fn remembered_names_are_compared_in_full() {
        let mut checker = EventChecker::default();
        let first = event(&[("ab", "x"), ("c", "x")], &[("m", 1.0)]);
        assert_eq!(checker.check(&first, 0, &times()), Ok(()));
        for bad in [
            event(&[("ab", "x"), ("c\0", "x")], &[("m", 1.0)]),
            event(&[("ab", "x"), ("\0", "x")], &[("m", 1.0)]),
            event(&[("ab", "x"), ("m", "x")], &[("m", 1.0)]),
            event(&[("a", "x"), ("a", "x")], &[("m", 1.0)]),
            event(&[("ab", "x")], &[("m", 1.0), ("m", 1.0)]),
            EventRef { table: "", ..first },
        ] {
            assert!(checker.check(&bad, 0, &times()).is_err(), "{bad:?}");
            assert_eq!(checker.check(&first, 0, &times()), Ok(()));
        }
    }
}
