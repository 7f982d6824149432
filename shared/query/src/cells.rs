//! Cells: what a scan keeps per group, and from which the aggregates come at the end.

use types::ColumnKind;

/// One state per group. Aggregates that need the same share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cell {
    /// Rows where a dimension is present.
    PresentDimension(String),
    /// Rows where a metric is present.
    PresentMetric(String),
    /// Sum and count of a metric's values.
    Sum(String),
    /// The least value of a metric.
    Min(String),
    /// The greatest value of a metric.
    Max(String),
    /// Count, mean and sum of squared deviations of a metric's values.
    Moments(String),
}

impl Cell {
    /// Its column and that one's kind.
    pub(crate) fn column(&self) -> (&str, ColumnKind) {
        match self {
            Self::PresentDimension(column) => (column, ColumnKind::Dimension),
            Self::PresentMetric(column)
            | Self::Sum(column)
            | Self::Min(column)
            | Self::Max(column)
            | Self::Moments(column) => (column, ColumnKind::Metric),
        }
    }

    /// A tag of its own and the column, for the plan's canonical form.
    pub(crate) fn canonical(&self) -> (u8, &str) {
        match self {
            Self::PresentDimension(column) => (0, column),
            Self::PresentMetric(column) => (1, column),
            Self::Sum(column) => (2, column),
            Self::Min(column) => (3, column),
            Self::Max(column) => (4, column),
            Self::Moments(column) => (5, column),
        }
    }
}
