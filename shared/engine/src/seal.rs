//! Sealing: what is computed of a segment that gets no more rows, and giving back what it did not use.

use crate::{
    MemoryBudget,
    columns::Width,
    pool::Pool,
    segment::{Segment, SegmentLayout, SegmentWriter, Stored},
    sync::Arc,
    view::Sealed,
};

/// A sealed segment is copied to its size if more than this share of its rows is unused.
const UNUSED_SHARE: usize = 4;

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
    let mut metric_ranges = Vec::with_capacity(segment.layout().columns.len());
    let mut used = Vec::with_capacity(segment.layout().columns.len());
    for stored in &segment.layout().columns {
        let range = range_of(segment, stored, rows);
        used.push(range.is_some() || has_codes(segment, stored, rows));
        metric_ranges.push(range);
    }
    let sealed = Sealed {
        rows,
        last_offset: segment.origin(rows - 1).0,
        time_max: segment.zone().max,
        metric_ranges: metric_ranges.into_boxed_slice(),
    };
    let unused = segment.layout().capacity - rows;
    if unused * UNUSED_SHARE <= segment.layout().capacity {
        return SealedSegment { segment: Arc::clone(segment), sealed, replaced: None };
    }
    let copy = shrink(segment, rows, &used, pool, budget);
    SealedSegment { segment: copy, sealed, replaced: Some(Arc::clone(segment)) }
}

/// The same rows with no room for more and without columns that have no value. Its id stays: the content is the same.
fn shrink(segment: &Segment, rows: usize, used: &[bool], pool: &mut Pool, budget: &Arc<MemoryBudget>) -> Arc<Segment> {
    let columns = segment.layout().columns.iter().zip(used);
    let columns = columns.map(|(stored, used)| if *used { stored.clone() } else { Stored::Absent }).collect();
    let layout = SegmentLayout::new(rows, columns);
    let slab = pool.slab(layout.words);
    let mut writer = SegmentWriter::new(Segment::new(segment.id(), layout, slab, budget));
    writer.copy(segment, rows);
    Arc::clone(writer.shared())
}

fn range_of(segment: &Segment, stored: &Stored, rows: usize) -> Option<(f64, f64)> {
    let Stored::Values { word } = stored else { return None };
    // SAFETY: the writer's own row count.
    let values = unsafe { segment.items::<f64>(*word, rows) };
    // `min` and `max` pass over NaN, which stands for absent.
    let fold = |(min, max): (f64, f64), value: &f64| (min.min(*value), max.max(*value));
    let (min, max) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), fold);
    (min <= max).then_some((min, max))
}

fn has_codes(segment: &Segment, stored: &Stored, rows: usize) -> bool {
    let Stored::Codes { width, word, .. } = stored else { return false };
    match width {
        // SAFETY: the writer's own row count.
        Width::One => unsafe { segment.items::<u8>(*word, rows) }.iter().any(|code| *code != 0),
        // SAFETY: as above.
        Width::Two => unsafe { segment.items::<u16>(*word, rows) }.iter().any(|code| *code != 0),
        // SAFETY: as above.
        Width::Four => unsafe { segment.items::<u32>(*word, rows) }.iter().any(|code| *code != 0),
    }
}
