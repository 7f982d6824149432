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
    /// Rows where a dimension has one value.
    Frequency { column: String, value: String },
    /// The distinct values of a dimension.
    Distinct(String),
    /// Counts of a dimension's values. `disjoint`: none of them stands in more than one partition.
    Top { column: String, disjoint: bool },
    /// What percentiles of a metric come from.
    Quantiles { column: String, method: QuantileMethod },
    /// A t-digest of a metric.
    Digest(String),
}

/// How percentiles with a guarantee are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QuantileMethod {
    /// Exact where at most so many rows lie in the plan's range, else by bins.
    Auto { rows_max: u64 },
    /// Exact: from all values where at most so many rows lie in the plan's range, else by a selection.
    Exact { rows_max: u64 },
    /// By bins.
    Sketch,
}

impl QuantileMethod {
    /// Rows in the plan's range, up to which all values are kept.
    pub(crate) const fn rows_max(self) -> u64 {
        match self {
            Self::Auto { rows_max } | Self::Exact { rows_max } => rows_max,
            Self::Sketch => 0,
        }
    }
}

impl Cell {
    /// Its column and that one's kind.
    pub(crate) fn column(&self) -> (&str, ColumnKind) {
        match self {
            Self::PresentDimension(column)
            | Self::Frequency { column, .. }
            | Self::Distinct(column)
            | Self::Top { column, .. } => (column, ColumnKind::Dimension),
            Self::PresentMetric(column)
            | Self::Sum(column)
            | Self::Min(column)
            | Self::Max(column)
            | Self::Moments(column)
            | Self::Quantiles { column, .. }
            | Self::Digest(column) => (column, ColumnKind::Metric),
        }
    }

    /// Whether its state is a number or a few per group.
    pub(crate) fn is_plain(&self) -> bool {
        match self {
            Self::PresentDimension(_) | Self::PresentMetric(_) | Self::Frequency { .. } => true,
            Self::Sum(_) | Self::Min(_) | Self::Max(_) | Self::Moments(_) => true,
            Self::Distinct(_) | Self::Top { .. } | Self::Quantiles { .. } | Self::Digest(_) => false,
        }
    }

    /// Whether it reads its metric as doubles, whatever form this lies in.
    pub(crate) fn reads_doubles(&self) -> bool {
        match self {
            Self::Moments(_) | Self::Quantiles { .. } | Self::Digest(_) => true,
            Self::PresentMetric(_) | Self::Sum(_) | Self::Min(_) | Self::Max(_) => false,
            Self::PresentDimension(_) | Self::Frequency { .. } | Self::Distinct(_) | Self::Top { .. } => false,
        }
    }

    /// Whether its state is a count of rows.
    pub(crate) fn counts(&self) -> bool {
        matches!(self, Self::PresentDimension(_) | Self::PresentMetric(_) | Self::Frequency { .. })
    }

    /// Whether its state holds codes, so that these have to mean the same wherever states are merged.
    pub(crate) fn keeps_codes(&self) -> bool {
        matches!(self, Self::Distinct(_) | Self::Top { .. })
    }

    /// Whether none of the values that its state names stands in another partition too.
    pub(crate) fn disjoint(&self) -> bool {
        matches!(self, Self::Top { disjoint: true, .. })
    }

    /// A tag of its own, the column and the value that it asks for, for the plan's canonical form.
    pub(crate) fn canonical(&self) -> (u8, &str, &str) {
        let tag = match self {
            Self::PresentDimension(_) => 0,
            Self::PresentMetric(_) => 1,
            Self::Sum(_) => 2,
            Self::Min(_) => 3,
            Self::Max(_) => 4,
            Self::Moments(_) => 5,
            Self::Frequency { .. } => 6,
            Self::Distinct(_) => 7,
            Self::Top { disjoint, .. } => 8 + u8::from(*disjoint),
            Self::Quantiles { method: QuantileMethod::Auto { .. }, .. } => 10,
            Self::Quantiles { method: QuantileMethod::Exact { .. }, .. } => 11,
            Self::Quantiles { method: QuantileMethod::Sketch, .. } => 12,
            Self::Digest(_) => 13,
        };
        let value = if let Self::Frequency { value, .. } = self { value } else { "" };
        (tag, self.column().0, value)
    }
}
