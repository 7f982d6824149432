//! A plan's filters in terms of one segment's columns.

use std::ops::Range;

use engine::{CHUNK_ROWS, Codes, Metric, SegmentView};
use kernels::{Code, Selection};

use crate::{
    code_filter::CodeFilter,
    codes::by_width,
    plan::{Plan, Test},
    predicate::MetricTest,
    source::PlannedSource,
};

/// A filter that some rows of a segment may pass and some not.
pub(crate) enum SegmentFilter<'a> {
    Codes {
        codes: Codes<'a>,
        filter: &'a CodeFilter,
        /// By chunk, for the first of them: whether a row may pass.
        chunks: Vec<bool>,
    },
    Metric(Metric<'a>, &'a MetricTest),
    /// Decimals whose integers lie in a closed range, or are 0 where absent values pass.
    Digits {
        digits: Codes<'a>,
        least: u32,
        greatest: u32,
        absent: bool,
    },
}

/// Which rows of a segment pass a filter.
pub(crate) enum Passing<'a> {
    All,
    None,
    Some(SegmentFilter<'a>),
}

impl SegmentFilter<'_> {
    /// Whether no row of a chunk passes, without a look at them.
    pub(crate) fn spares(&self, chunk: usize) -> bool {
        matches!(self, Self::Codes { chunks, .. } if chunks.get(chunk) == Some(&false))
    }

    /// Takes the rows out of `selection`, which is of the rows `rows` of the segment, that do not pass. `scratch` is for values.
    pub(crate) fn narrow(&self, selection: &mut Selection, rows: Range<usize>, scratch: &mut [f64; CHUNK_ROWS]) {
        match self {
            Self::Codes { codes, filter, .. } => filter.narrow(selection, *codes, rows),
            Self::Metric(metric, test) => {
                let values = metric.read(rows, Some(selection), scratch);
                if test.is_range() {
                    kernels::and_range(selection, values, test.least, test.greatest, test.absent);
                } else {
                    kernels::and_metric(selection, values, |value| test.accepts(value));
                }
            }
            Self::Digits { digits, least, greatest, absent } => {
                by_width!(*digits, rows, |digits| and_digits(selection, digits, *least, *greatest, *absent));
            }
        }
    }
}

/// Keeps digits in a closed range, and 0 where `absent` is set.
fn and_digits<C: Code>(selection: &mut Selection, digits: &[C], least: u32, greatest: u32, absent: bool) {
    match C::narrow(least).map(|least| (least, C::narrow(greatest))) {
        Some((least, Some(greatest))) => kernels::and_between(selection, digits, least, greatest, absent),
        // No number of this width is greater.
        Some((least, None)) => kernels::and_between(selection, digits, least, C::truncate(u64::MAX), absent),
        None if absent => kernels::and_any_of(selection, digits, &[0]),
        None => selection.clear(),
    }
}

/// A range as a filter of a metric's rows.
fn range_filter<'a>(metric: Metric<'a>, test: &'a MetricTest) -> Passing<'a> {
    let Metric::Decimals { scale, digits } = metric else {
        return Passing::Some(SegmentFilter::Metric(metric, test));
    };
    match scale.digits_within(test.least, test.greatest) {
        Some((least, greatest)) => {
            Passing::Some(SegmentFilter::Digits { digits, least, greatest, absent: test.absent })
        }
        None if test.absent => Passing::Some(SegmentFilter::Digits { digits, least: 0, greatest: 0, absent: true }),
        None => Passing::None,
    }
}

/// The filters of a segment, without those that all its rows pass; `None` where no row can pass them all.
pub(crate) fn segment_filters<'a>(
    plan: &'a Plan,
    source: &'a PlannedSource,
    segment: &'a SegmentView,
) -> Option<Vec<SegmentFilter<'a>>> {
    let mut filters = Vec::with_capacity(plan.filters.len());
    for at in 0..plan.filters.len() {
        match passing(plan, source, segment, at) {
            Passing::All => {}
            Passing::None => return None,
            Passing::Some(filter) => filters.push(filter),
        }
    }
    Some(filters)
}

/// Which rows of a segment pass the plan's filter of that index.
pub(crate) fn passing<'a>(
    plan: &'a Plan,
    source: &'a PlannedSource,
    segment: &'a SegmentView,
    at: usize,
) -> Passing<'a> {
    let column = source.filter(at);
    match &plan.filters[at].test {
        Test::Dimension(test) => {
            let codes = column.and_then(|column| segment.codes(column).zip(segment.dictionary(column)));
            match codes.map(|(codes, dictionary)| (codes, source.codes(at, test, dictionary))) {
                None if test.accepts(None) => Passing::All,
                None | Some((_, CodeFilter::None)) => Passing::None,
                Some((_, CodeFilter::All)) => Passing::All,
                Some((codes, filter)) => {
                    let may_hold = column.filter(|_| !filter.few().is_empty());
                    let chunks: Vec<bool> =
                        may_hold.into_iter().flat_map(|column| segment.may_hold(column, filter.few())).collect();
                    if chunks.len() == segment.chunks() && !chunks.contains(&true) {
                        return Passing::None;
                    }
                    Passing::Some(SegmentFilter::Codes { codes, filter, chunks })
                }
            }
        }
        Test::Metric(test) => match column.and_then(|column| segment.metric(column)) {
            None if test.absent => Passing::All,
            None => Passing::None,
            Some(values) => {
                let range = column.and_then(|column| segment.metric_range(column));
                if !test.absent && range.is_some_and(|(min, max)| max < test.least || test.greatest < min) {
                    return Passing::None;
                }
                if test.is_range() {
                    range_filter(values, test)
                } else {
                    Passing::Some(SegmentFilter::Metric(values, test))
                }
            }
        },
    }
}
