//! From a record to an event, as the mapping says.

use codec::EventRef;
use types::limits::{EVENT_COLUMNS_MAX, EVENT_ID_BYTES_MAX};

use super::{
    mapping::{Id, Mapping, Product, Text},
    record::Record,
};

/// Makes events of records.
#[derive(Debug)]
pub(crate) struct EventMaker {
    mapping: Mapping,
    namespace: String,
    table: String,
    /// Name of the source in ids by line.
    source: String,
    /// Added to each event time, µs.
    shift_us: i64,
    id: String,
}

impl EventMaker {
    /// A maker of events of one table.
    pub(crate) fn new(mapping: Mapping, namespace: &str, table: &str, source: &str, shift_us: i64) -> Self {
        let (namespace, table, source) = (namespace.to_owned(), table.to_owned(), source.to_owned());
        Self { mapping, namespace, table, source, shift_us, id: String::new() }
    }

    /// Gives the event of a record to `take`.
    ///
    /// # Errors
    /// Why the record makes no event: a time or a number that is none, no id.
    pub(crate) async fn make<T>(
        &mut self,
        record: &Record,
        take: impl AsyncFnOnce(&EventRef<'_>) -> T,
    ) -> Result<T, String> {
        let event_time = event_time(&self.mapping, record)?;
        let event_id = match self.mapping.id {
            Id::Batch => None,
            Id::Line => {
                self.id.clear();
                self.id.push_str(&self.source);
                self.id.push(':');
                self.id.push_str(&record.line.to_string());
                Some(self.id.as_str())
            }
            Id::Column(slot) => Some(record.get(slot).ok_or("the column of the event id is empty")?),
        };
        if event_id.is_some_and(|id| id.len() > EVENT_ID_BYTES_MAX) {
            return Err(format!("the event id is longer than {EVENT_ID_BYTES_MAX} bytes"));
        }
        // Arrays on the stack, because vectors that live on could not borrow from one record after the other.
        let mut dimensions = [("", ""); EVENT_COLUMNS_MAX];
        let mut dimensions_len = 0;
        for (name, value) in &self.mapping.dimensions {
            let text = match value {
                Text::Column(slot) => record.get(*slot),
                Text::Constant(text) => Some(text.as_str()),
            };
            if let Some(text) = text {
                dimensions[dimensions_len] = (name.as_str(), text);
                dimensions_len += 1;
            }
        }
        let mut metrics = [("", 0.0); EVENT_COLUMNS_MAX];
        let mut metrics_len = 0;
        for (name, value) in &self.mapping.metrics {
            if let Some(number) = product(&self.mapping, value, record)? {
                metrics[metrics_len] = (name.as_str(), number);
                metrics_len += 1;
            }
        }
        let event = EventRef {
            namespace: &self.namespace,
            table: &self.table,
            event_time: event_time.map(|time| time.saturating_add(self.shift_us)),
            event_id: event_id.map(str::as_bytes),
            dimensions: &dimensions[..dimensions_len],
            metrics: &metrics[..metrics_len],
        };
        Ok(take(&event).await)
    }
}

/// The time of a record, µs; `None` where the mapping has none.
///
/// # Errors
/// Why it has none that can be read.
pub(crate) fn event_time(mapping: &Mapping, record: &Record) -> Result<Option<i64>, String> {
    let Some((slot, form)) = &mapping.time else { return Ok(None) };
    let column = &mapping.columns[slot.0];
    let text = record.get(*slot).ok_or_else(|| format!("the column of the time, {column}, is empty"))?;
    form.read(text).map(|time| Some(time.0)).map_err(|why| format!("{column}: {why}"))
}

fn product(mapping: &Mapping, product: &Product, record: &Record) -> Result<Option<f64>, String> {
    let mut value = product.factor;
    for &slot in &product.columns {
        let Some(text) = record.get(slot) else { return Ok(None) };
        let number: f64 = match text.trim().parse() {
            Ok(number) => number,
            Err(_) => return Err(format!("{}: {text:?} is no number", mapping.columns[slot.0])),
        };
        value *= number;
    }
    match value.is_finite() {
        // Adding zero turns -0 into 0.
        true => Ok(Some(value + 0.0)),
        false => Err(format!("{} is not finite", mapping.columns[product.columns[0].0])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::{record::Slot, time::TimeForm};

    fn maker() -> EventMaker {
        let mapping = Mapping {
            columns: ["at", "d", "q", "p"].map(str::to_owned).to_vec(),
            time: Some((Slot(0), TimeForm::parse("s").unwrap())),
            id: Id::Line,
            dimensions: vec![
                ("d".to_owned(), Text::Column(Slot(1))),
                ("c".to_owned(), Text::Constant("eu".to_owned())),
            ],
            metrics: vec![
                ("r".to_owned(), Product { columns: vec![Slot(2), Slot(3)], factor: 2.0 }),
                ("n".to_owned(), Product { columns: Vec::new(), factor: 1.0 }),
            ],
        };
        EventMaker::new(mapping, "ns", "t", "f.csv", 5)
    }

    fn record(cells: [Option<&str>; 4]) -> Record {
        let mut record = Record::default();
        record.begin(4, 7);
        for (at, cell) in cells.iter().enumerate() {
            if let Some(text) = cell {
                record.set(Slot(at), text);
            }
        }
        record
    }

    /// Goal: a record becomes the event that the mapping describes, and what is absent stays absent.
    #[tokio::test]
    async fn records_become_events() {
        let full = record([Some("1.5"), Some("x"), Some("-3"), Some("2.5")]);
        maker()
            .make(&full, async |event| {
                assert_eq!(event.event_time, Some(1_500_005));
                assert_eq!(event.event_id, Some(&b"f.csv:7"[..]));
                assert_eq!(event.dimensions, [("d", "x"), ("c", "eu")]);
                assert_eq!(event.metrics, [("r", -15.0), ("n", 1.0)]);
            })
            .await
            .unwrap();
        let sparse = record([Some("1"), None, None, Some("2.5")]);
        maker()
            .make(&sparse, async |event| {
                assert_eq!(event.dimensions, [("c", "eu")]);
                assert_eq!(event.metrics, [("n", 1.0)]);
            })
            .await
            .unwrap();
    }

    /// Goal: a record that makes no event says which column is at fault.
    #[tokio::test]
    async fn faults_are_named() {
        for (cells, column) in [
            ([None, None, None, None], "at"),
            ([Some("x"), None, None, None], "at"),
            ([Some("1"), None, Some("many"), Some("1")], "q"),
            ([Some("1"), None, Some("1"), Some("NaN")], "q"),
            ([Some("1"), None, Some("1e308"), Some("1e308")], "q"),
        ] {
            let why = maker().make(&record(cells), async |_| ()).await.unwrap_err();
            assert!(why.contains(column), "{cells:?}: {why}");
        }
    }
}
