//! A plan's columns in one segment, and what of them a chunk needs.

use std::ops::Range;

use engine::{CHUNK_ROWS, Codes, ColumnIndex, Metric, SegmentView, Times};
use kernels::{Selection, Values};

use crate::{accumulator::CellColumn, cells::Cell, codes::by_width, plan::Plan, source::PlannedSource};

/// Rows of which one is taken where most lines of the cache that hold metrics are not looked at.
const SPARSE_SHARE: usize = 8;

/// The columns of a segment that the plan needs.
pub(crate) struct SegmentColumns<'a> {
    pub(crate) times: Times<'a>,
    pub(crate) codes: Vec<Option<Codes<'a>>>,
    cells: Vec<CellSource<'a>>,
    /// Each once, however many cells want it.
    metrics: Vec<CellMetric<'a>>,
}

/// A metric that cells want.
struct CellMetric<'a> {
    column: ColumnIndex,
    metric: Metric<'a>,
    /// Whether one of them reads doubles: then all do, for they are there.
    as_doubles: bool,
}

/// Where a cell's column in a chunk comes from.
enum CellSource<'a> {
    /// From the segment.
    Segment(CellColumn<'a>),
    /// From the metric of that index, which is read chunk by chunk.
    Metric(usize),
}

impl<'a> SegmentColumns<'a> {
    pub(crate) fn new(plan: &Plan, source: &PlannedSource, segment: &'a SegmentView) -> Self {
        let mut metrics: Vec<CellMetric<'a>> = Vec::new();
        let cells = plan.cells.iter().enumerate().map(|(at, cell)| {
            let column = source.cell(at);
            let found = match cell {
                Cell::PresentDimension(_) | Cell::Distinct(_) | Cell::Top { .. } => {
                    column.and_then(|column| segment.codes(column)).map(CellColumn::Codes)
                }
                Cell::Frequency { value, .. } => column.and_then(|column| {
                    let code = segment.dictionary(column)?.find(value)?;
                    Some(CellColumn::Equal(segment.codes(column)?, code))
                }),
                _ => {
                    let found = column.and_then(|column| Some((column, segment.metric(column)?)));
                    let Some((column, metric)) = found else { return CellSource::Segment(CellColumn::Absent) };
                    let known = metrics.iter().position(|known| known.column == column);
                    let known = known.unwrap_or_else(|| {
                        metrics.push(CellMetric { column, metric, as_doubles: false });
                        metrics.len() - 1
                    });
                    metrics[known].as_doubles |= cell.reads_doubles();
                    return CellSource::Metric(known);
                }
            };
            CellSource::Segment(found.unwrap_or(CellColumn::Absent))
        });
        let cells = cells.collect();
        let codes = (0..plan.groups.len()).map(|at| source.group(at).and_then(|column| segment.codes(column)));
        Self { times: segment.times(), codes: codes.collect(), cells, metrics }
    }

    /// How many metrics there are.
    pub(crate) fn metrics(&self) -> usize {
        self.metrics.len()
    }

    /// The cells' columns in a chunk. `scratch` has room for each metric.
    pub(crate) fn cells<'c>(
        &'c self,
        rows: &Range<usize>,
        selection: Option<&Selection>,
        scratch: &'c mut [Box<[f64; CHUNK_ROWS]>],
    ) -> Vec<CellColumn<'c>> {
        let read = self.metrics.iter().zip(scratch);
        let read = read.map(|(of, scratch)| match of.as_doubles {
            true => Values::Doubles(of.metric.read(rows.clone(), selection, scratch)),
            false => of.metric.values(rows.clone()),
        });
        let values: Vec<Values<'_>> = read.collect();
        let cells = self.cells.iter().map(|cell| match cell {
            CellSource::Segment(column) => *column,
            CellSource::Metric(at) => CellColumn::Values(values[*at]),
        });
        cells.collect()
    }

    /// Starts to load what the cells need of listed rows of a chunk, which are so few that each is a miss of its own. Their keys
    /// are read meanwhile.
    pub(crate) fn prefetch_listed(&self, chunk: &Range<usize>, listed: &[u16]) {
        if listed.len() * SPARSE_SHARE <= chunk.len() {
            self.each_cell_column(chunk, |column| match column {
                Items::Codes(codes) => by_width!(codes, .., |codes| kernels::prefetch_listed(codes, listed)),
                Items::Values(values) => kernels::prefetch_listed(values, listed),
            });
        }
    }

    /// Calls `take` for what each cell needs of some rows, in the form in which the segment has it.
    fn each_cell_column(&self, rows: &Range<usize>, mut take: impl FnMut(Items<'_>)) {
        for cell in &self.cells {
            if let CellSource::Segment(CellColumn::Codes(codes) | CellColumn::Equal(codes, _)) = cell {
                take(Items::Codes(codes.slice(rows.clone())));
            }
        }
        for CellMetric { metric, .. } in &self.metrics {
            match metric {
                Metric::Doubles(values) => take(Items::Values(&values[rows.clone()])),
                Metric::Decimals { digits, .. } => take(Items::Codes(digits.slice(rows.clone()))),
            }
        }
    }
}

/// Some rows of a column.
enum Items<'a> {
    Codes(Codes<'a>),
    Values(&'a [f64]),
}
