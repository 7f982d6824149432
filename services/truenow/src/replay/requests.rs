//! Blocks of the log to blocks that replay them. Reads and sends nothing.

use std::ops::Range;

use codec::{BlockError, BodyBuilder, BodyView, EventRef, PushError, is_absent};
use proto::v1::LogBlock;
use truenow_client::IdentifiedBlock;
use types::Timestamp;

/// Share of a request's bytes that a block takes: what surrounds it in the message comes on top.
const REQUEST_SHARE: usize = 2;
/// Rows between two looks at how many bytes a new block has.
const SIZE_CHECK_ROWS: usize = 64;

/// What the receiving server takes in one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes.
    pub(crate) bytes_max: usize,
    /// Rows.
    pub(crate) rows_max: usize,
}

impl Limits {
    /// Nothing is sent.
    pub(crate) const NONE: Self = Self { bytes_max: usize::MAX, rows_max: usize::MAX };
}

/// Why a record of the log cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CutError {
    /// Its body is damaged, or of a version to come.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// Rows that were in a block do not make one.
    #[error("its rows do not make a block: {0}")]
    Rows(#[from] PushError),
}

/// Cuts blocks to the events that are wanted and to what a request may hold.
#[derive(Debug)]
pub(crate) struct Cutter {
    origin: String,
    times: Range<i64>,
    limits: Limits,
}

impl Cutter {
    /// A cutter for the events in `times`; `origin` names the table's life that they are of.
    pub(crate) fn new(origin: String, times: Range<i64>, limits: Limits) -> Self {
        Self { origin, times, limits }
    }

    /// The blocks that replay a block: none where no event of it is wanted, itself where all are and fit.
    ///
    /// # Errors
    /// It is no block.
    pub(crate) fn cut(&self, block: LogBlock) -> Result<Vec<IdentifiedBlock>, CutError> {
        let (producer_id, sequence) = self.identity(&block);
        let view = BodyView::parse(&block.body)?;
        let (min, max) = view.times().min_max();
        let all = self.times.contains(&min) && self.times.contains(&max);
        if all && view.rows() <= self.limits.rows_max && block.body.len() <= self.limits.bytes_max / REQUEST_SHARE {
            let rows = view.rows() as u64;
            return Ok(vec![IdentifiedBlock { body: block.body, rows, producer_id, sequence }]);
        }
        let bodies = self.bodies(&view)?;
        let identified = bodies.into_iter().map(|body| IdentifiedBlock {
            rows: u64::from(body.rows),
            body: body.bytes,
            producer_id: producer_id.clone(),
            sequence,
        });
        Ok(identified.collect())
    }

    /// Producer and sequence of the batch that replays a block: those of its own batch under another name, else its place.
    fn identity(&self, block: &LogBlock) -> (String, u64) {
        let origin = &self.origin;
        if block.batch_producer.is_empty() {
            return (format!("{origin}/{}", block.partition), block.offset);
        }
        let producer: String = block.batch_producer.iter().map(|byte| format!("{byte:02x}")).collect();
        (format!("{origin}:{producer}"), block.batch_sequence)
    }

    /// The events that are wanted, each with the index that it had in its batch.
    fn bodies(&self, view: &BodyView<'_>) -> Result<Vec<codec::Body>, CutError> {
        let (mut bodies, mut builder) = (Vec::new(), BodyBuilder::default());
        let times = view.times();
        for row in (0..view.rows()).filter(|row| self.times.contains(&times.get(*row))) {
            let index = view.batch_indexes().map_or(row as u32, |indexes| indexes.get(row));
            let push =
                |builder: &mut BodyBuilder| with_event(view, row, |event| builder.push(event, Timestamp(0), index));
            match push(&mut builder) {
                Err(PushError::Full) => {
                    bodies.extend(builder.finish(true));
                    push(&mut builder)?;
                }
                pushed => pushed?,
            }
            if self.is_full(&builder) {
                bodies.extend(builder.finish(true));
            }
        }
        bodies.extend(builder.finish(true));
        Ok(bodies)
    }

    fn is_full(&self, builder: &BodyBuilder) -> bool {
        builder.rows() >= self.limits.rows_max
            || builder.rows().is_multiple_of(SIZE_CHECK_ROWS)
                && builder.bytes() >= self.limits.bytes_max / REQUEST_SHARE / REQUEST_SHARE
    }
}

/// Shows a row as an event; a block names no table.
fn with_event<T>(view: &BodyView<'_>, row: usize, see: impl FnOnce(&EventRef<'_>) -> T) -> T {
    let dimensions = view.dimensions().iter();
    let dimensions: Vec<_> = dimensions.filter_map(|column| Some((column.name(), column.value(row)?))).collect();
    let metrics = view.metrics().iter().map(|column| (column.name(), column.values().get(row)));
    let metrics: Vec<_> = metrics.filter(|(_, value)| !is_absent(*value)).collect();
    see(&EventRef {
        namespace: "",
        table: "",
        event_time: Some(view.times().get(row)),
        event_id: view.ids().and_then(|ids| ids.get(row)),
        dimensions: &dimensions,
        metrics: &metrics,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    /// A block of one row per time; every second row has an id.
    fn block(times: &[i64], batch: bool, indexes: bool) -> LogBlock {
        let mut builder = BodyBuilder::default();
        for (n, time) in times.iter().enumerate() {
            let (id, value) = (format!("id{n}"), format!("v{n}"));
            let event = EventRef {
                namespace: "",
                table: "",
                event_time: Some(*time),
                event_id: (n % 2 == 0).then_some(id.as_bytes()),
                dimensions: &[("d", &value)],
                metrics: &[("m", n as f64)],
            };
            builder.push(&event, Timestamp(0), 7 * n as u32).unwrap();
        }
        LogBlock {
            partition: 3,
            offset: 42,
            append_time_us: 0,
            batch_producer: if batch { Bytes::from_static(&[0xab; 16]) } else { Bytes::new() },
            batch_sequence: if batch { 9 } else { 0 },
            body: builder.finish(indexes).unwrap().bytes,
        }
    }

    /// Index, id and value of every row, in order.
    fn rows(bodies: &[Bytes]) -> Vec<(u32, i64, Option<Vec<u8>>, String)> {
        let mut rows = Vec::new();
        for body in bodies {
            let view = BodyView::parse(body).unwrap();
            for row in 0..view.rows() {
                let index = view.batch_indexes().map_or(row as u32, |indexes| indexes.get(row));
                let id = view.ids().and_then(|ids| ids.get(row)).map(<[u8]>::to_vec);
                let value = with_event(&view, row, |event| format!("{:?}{:?}", event.dimensions, event.metrics));
                rows.push((index, view.times().get(row), id, value));
            }
        }
        rows
    }

    proptest! {
        /// Goal: what is cut from a block are its events in the range, each once, in order, with index, id and values as they
        /// were, in blocks within the limits and under one identity.
        #[test]
        fn events_keep_their_identity(
            times in prop::collection::vec(0_i64..20, 1..60),
            from in 0_i64..20,
            length in 1_i64..21,
            rows_max in 1_usize..70,
            batch: bool,
            indexes: bool,
        ) {
            let source = block(&times, batch, indexes);
            let limits = Limits { bytes_max: usize::MAX, rows_max };
            let cutter = Cutter::new("replay:5.1".into(), from..from + length, limits);
            let cut = cutter.cut(source.clone()).unwrap();
            let identity = if batch {
                (format!("replay:5.1:{}", "ab".repeat(16)), 9)
            } else {
                ("replay:5.1/3".to_owned(), 42)
            };
            for block in &cut {
                prop_assert_eq!((&block.producer_id, block.sequence), (&identity.0, identity.1));
                prop_assert!((1..=rows_max as u64).contains(&block.rows));
            }
            let bodies: Vec<_> = cut.iter().map(|block| block.body.clone()).collect();
            let mut expected = rows(std::slice::from_ref(&source.body));
            expected.retain(|(_, time, ..)| (from..from + length).contains(time));
            prop_assert_eq!(rows(&bodies), expected);
        }
    }

    /// Goal: a block of which everything is wanted goes on as the same memory; one that is too long for a request is cut.
    #[test]
    fn whole_blocks_are_not_copied() {
        let source = block(&[5; 1_000], true, false);
        let bytes = source.body.len();
        let cut = |bytes_max| {
            let limits = Limits { bytes_max, rows_max: 100_000 };
            Cutter::new(String::new(), 0..10, limits).cut(source.clone()).unwrap()
        };
        let whole = cut(2 * bytes);
        assert_eq!((whole.len(), whole[0].body.as_ptr()), (1, source.body.as_ptr()));
        let parts = cut(bytes);
        assert!(parts.len() > 1 && parts.iter().all(|part| part.body.len() < bytes), "{}", parts.len());
        assert_eq!(parts.iter().map(|part| part.rows).sum::<u64>(), 1_000);
    }
}
