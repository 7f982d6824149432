//! Sealing: what is computed of a segment that gets no more rows, and giving back what it did not use.
//!
//! 1. A sealed segment's columns take their smallest lossless form (docs/decisions/0028): times are offsets from the least
//!    of them, metrics that are decimal numbers are integers, columns without a value are not there at all. Which form it is
//!    follows from the segment's rows alone, so it is the same on every replica and after every restart.
//! 2. Rows, their order and the segment's id stay: a copy has the same content. Readers of the one that is replaced keep it.

use kernels::{EXPONENTS, Integers, Selection};

use crate::{
    MemoryBudget,
    columns::Width,
    pool::Pool,
    segment::{CHUNK_ROWS, Segment, SegmentLayout, SegmentWriter, Stored, StoredTimes},
    sync::Arc,
    view::Sealed,
};

/// A sealed segment is copied if that saves at least this share of its bytes.
const SAVED_SHARE: usize = 8;
/// Values that are looked at before all of a column are.
const SAMPLES: usize = 16;

/// A segment that gets no more rows.
pub(crate) struct SealedSegment {
    pub(crate) segment: Arc<Segment>,
    pub(crate) sealed: Sealed,
    /// The segment that `segment` takes the place of, with the same rows.
    pub(crate) replaced: Option<Arc<Segment>>,
}

/// Seals a segment that has rows.
pub(crate) fn seal(writer: &SegmentWriter, pool: &mut Pool, budget: &Arc<MemoryBudget>) -> SealedSegment {
    let (segment, rows) = (writer.shared(), writer.rows());
    let smallest = segment.layout().columns.iter().map(|stored| smallest_form(segment, stored, rows));
    let (columns, metric_ranges): (Vec<Stored>, Vec<Option<(f64, f64)>>) = smallest.unzip();
    let zone = segment.zone();
    let sealed = Sealed {
        rows,
        runs: segment.runs_len(),
        last_offset: segment.origin(rows - 1).0,
        time_max: zone.max,
        metric_ranges: metric_ranges.into_boxed_slice(),
    };
    let layout = SegmentLayout::new(rows, StoredTimes::smallest(zone), columns.into_boxed_slice());
    let (bytes, smallest) = (segment.layout().items_bytes(), layout.items_bytes());
    if smallest > bytes - bytes / SAVED_SHARE {
        return SealedSegment { segment: Arc::clone(segment), sealed, replaced: None };
    }
    let slab = pool.slab(layout.words);
    let mut copy = SegmentWriter::new(Segment::new(segment.id(), layout, slab, budget));
    copy.copy(segment, rows);
    SealedSegment { segment: Arc::clone(copy.shared()), sealed, replaced: Some(Arc::clone(segment)) }
}

/// How a sealed segment would hold a column, and the least and the greatest value of a metric.
fn smallest_form(segment: &Segment, stored: &Stored, rows: usize) -> (Stored, Option<(f64, f64)>) {
    match stored {
        Stored::Values { word } => {
            // SAFETY: the writer's own row count.
            let values = unsafe { segment.items::<f64>(*word, rows) };
            if let Some((scale, greatest)) = decimals(values) {
                let width = Width::for_codes(greatest as usize);
                let range = (scale.value(1), scale.value(greatest));
                return (Stored::Decimals { width, scale, word: 0 }, Some(range));
            }
            let range = range_of(values);
            (if range.is_some() { stored.clone() } else { Stored::Absent }, range)
        }
        _ if has_codes(segment, stored, rows) => (stored.clone(), None),
        _ => (Stored::Absent, None),
    }
}

/// The scale by which all values are integers, and the greatest digits; `None` where there is none, or no value.
fn decimals(values: &[f64]) -> Option<(kernels::Scale, u32)> {
    let samples = values.iter().step_by((values.len() / SAMPLES).max(1)).filter(|value| !value.is_nan());
    let mut exponent = samples.into_iter().try_fold(0, |at, value| kernels::exponent_of(*value, at))?;
    loop {
        let mut all = Integers::NONE;
        let other = values.chunks(CHUNK_ROWS).find(|values| {
            let found = kernels::integers(values, EXPONENTS[exponent]);
            all = all.and(found.unwrap_or(Integers::NONE));
            found.is_none()
        });
        let Some(others) = other else { return all.scale(EXPONENTS[exponent]) };
        // A value has more digits than those before it: all begins anew with as many as that one has.
        let more = |value: &&f64| kernels::integers(&[**value], EXPONENTS[exponent]).is_none();
        exponent = kernels::exponent_of(*others.iter().find(more)?, exponent + 1)?;
    }
}

fn range_of(values: &[f64]) -> Option<(f64, f64)> {
    let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
    for values in values.chunks(CHUNK_ROWS) {
        let all = Selection::all(values.len());
        (min, max) = (min.min(kernels::least(values.into(), &all)), max.max(kernels::greatest(values.into(), &all)));
    }
    (min <= max).then_some((min, max))
}

fn has_codes(segment: &Segment, stored: &Stored, rows: usize) -> bool {
    let Stored::Codes { width, word, .. } = stored else { return false };
    // SAFETY: the writer's own row count.
    let codes = unsafe { segment.codes(*width, *word, rows) };
    (0..rows).any(|row| codes.get(row) != 0)
}
