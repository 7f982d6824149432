//! A plan's filters in terms of one segment's columns.

use std::ops::Range;

use engine::{Codes, SegmentView};
use kernels::Selection;

use crate::{
    code_filter::CodeFilter,
    plan::{Plan, Test},
    predicate::MetricTest,
    source::PlannedSource,
};

/// A filter that some rows of a segment may pass and some not.
pub(crate) enum SegmentFilter<'a> {
    Codes(Codes<'a>, &'a CodeFilter),
    Metric(&'a [f64], &'a MetricTest),
}

/// Which rows of a segment pass a filter.
pub(crate) enum Passing<'a> {
    All,
    None,
    Some(SegmentFilter<'a>),
}

impl SegmentFilter<'_> {
    /// Takes the rows out of `selection`, which is of the rows `rows` of the segment, that do not pass.
    pub(crate) fn narrow(&self, selection: &mut Selection, rows: Range<usize>) {
        match self {
            Self::Codes(codes, filter) => filter.narrow(selection, *codes, rows),
            Self::Metric(values, test) if test.is_range() => {
                kernels::and_range(selection, &values[rows], test.least, test.greatest, test.absent);
            }
            Self::Metric(values, test) => kernels::and_metric(selection, &values[rows], |value| test.accepts(value)),
        }
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
                Some((codes, filter)) => Passing::Some(SegmentFilter::Codes(codes, filter)),
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
                Passing::Some(SegmentFilter::Metric(values, test))
            }
        },
    }
}
