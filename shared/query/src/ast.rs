//! A query as it was asked: checked in shape, not yet against any table.

use std::time::Duration;

use types::{Interval, TableName, TimeRange, limits};

/// Filtered columns of one query, at most.
pub(crate) const FILTERS_MAX: usize = 64;
/// Values in all filters of one query, at most.
pub(crate) const FILTER_VALUES_MAX: usize = 10_000;
/// Aggregates of one query, at most.
pub(crate) const AGGREGATES_MAX: usize = 64;
/// Columns that one query may group by, at most.
pub(crate) const GROUP_COLUMNS_MAX: usize = 16;
/// Entries of `order_by`, at most: as many as a row can have columns, the time bucket's included.
pub(crate) const ORDER_COLUMNS_MAX: usize = 1 + GROUP_COLUMNS_MAX + AGGREGATES_MAX;
/// Tables of one query, at most.
pub(crate) const TABLES_MAX: usize = 64;
/// Tokens in `after`, at most.
pub(crate) const TOKENS_MAX: usize = 256;
/// `k` of a `top`, at most.
pub(crate) const TOP_MAX: u64 = 1_000;

/// Memory of a query's intermediate results where nothing else is configured, bytes.
const BYTES_DEFAULT: usize = 512 << 20;

/// When percentiles are exact, and how, and what travels. Numbers of rows and groups, never of load: an answer depends on
/// the plan and the rows alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValueLimits {
    /// Rows in a query's range up to which a percentile is exact where the query does not say.
    pub auto_rows_max: u64,
    /// Rows in a query's range up to which all values travel for an exact percentile, 16 bytes each; of more rows, the values
    /// that a round of a selection may bring.
    pub values_max: u64,
    /// Groups that a partition hands on where an answer wants those that lead by a count, if it wants no more than these. Where
    /// they do not settle who leads, all groups are asked for.
    pub leading_max: usize,
}

impl Default for ValueLimits {
    fn default() -> Self {
        Self { auto_rows_max: 1 << 17, values_max: 1 << 21, leading_max: 1 << 12 }
    }
}

/// What is configured about queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryLimits {
    /// Rows returned where the query does not say.
    pub rows_default: usize,
    /// Rows that a query may ask for.
    pub rows_max: usize,
    /// Groups that a query may make.
    pub groups_max: usize,
    /// Memory that the intermediate results of a query may take on a node, bytes.
    pub bytes_max: usize,
    /// When percentiles are exact, and how.
    pub values: ValueLimits,
    /// Time of a query that does not say.
    pub timeout_default: Duration,
    /// Time that a query may ask for.
    pub timeout_max: Duration,
}

impl Default for QueryLimits {
    /// The contract's defaults.
    fn default() -> Self {
        Self {
            rows_default: limits::QUERY_LIMIT_DEFAULT,
            rows_max: limits::QUERY_LIMIT_MAX,
            groups_max: limits::QUERY_GROUPS_DEFAULT,
            bytes_max: BYTES_DEFAULT,
            values: ValueLimits::default(),
            timeout_default: Duration::from_millis(limits::QUERY_TIMEOUT_MS_DEFAULT),
            timeout_max: Duration::from_millis(limits::QUERY_TIMEOUT_MS_MAX),
        }
    }
}

/// A query as it was asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Its tables, each once, in the order asked; never empty.
    pub tables: Vec<TableName>,
    /// Whether they came as a list, which is what brings the pseudo-column `table`.
    pub several: bool,
    /// Event times that it asks about.
    pub range: TimeRange,
    /// What rows must satisfy, all of it.
    pub filters: Vec<Filter>,
    /// Columns to group by, each once.
    pub group_by: Vec<String>,
    /// Width of time buckets.
    pub interval: Option<Interval>,
    /// What to compute; never empty.
    pub aggregates: Vec<Aggregate>,
    /// Order of the rows, before the canonical one.
    pub order_by: Vec<OrderBy>,
    /// Rows to return at most.
    pub limit: usize,
    /// Groups that it may make at most.
    pub groups_max: usize,
    /// Memory that its intermediate results may take on a node, bytes.
    pub bytes_max: usize,
    /// When percentiles are exact, and how.
    pub values: ValueLimits,
    /// Tokens that the answer must cover, as given; the service checks them.
    pub after: Vec<String>,
    /// How long it may take, the wait for `after` included.
    pub timeout: Duration,
    /// Whether an incomplete answer is better than none.
    pub allow_partial: bool,
}

/// One aggregate asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// What to compute.
    pub function: Function,
    /// Of which column.
    pub over: Over,
    /// The name of its output, checked or by the contract's default.
    pub name: String,
}

/// What an aggregate is computed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Over {
    /// Rows.
    Rows,
    /// A metric.
    Metric(String),
    /// A dimension.
    Dimension(String),
}

/// The functions of the contract.
#[derive(Debug, Clone, PartialEq)]
pub enum Function {
    /// Rows, or rows where a column is present.
    Count,
    /// Sum of a metric.
    Sum,
    /// Mean of a metric.
    Avg,
    /// Least value of a metric.
    Min,
    /// Greatest value of a metric.
    Max,
    /// Variance of the population.
    Variance,
    /// Standard deviation of the population.
    Stddev,
    /// A percentile by nearest rank.
    Percentile {
        /// Which: 0 to 1.
        q: f64,
        /// How.
        method: Method,
    },
    /// Distinct values of a dimension.
    Distinct,
    /// Most frequent values of a dimension.
    Top {
        /// How many.
        k: u64,
    },
    /// How often one value of a dimension occurs.
    Frequency {
        /// The value.
        value: String,
    },
}

/// How a percentile is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Exact where the plan allows, else a sketch.
    Auto,
    /// Exact or an error.
    Exact,
    /// A sketch with a guaranteed relative error.
    Sketch,
    /// A t-digest, without a bound.
    TDigest,
}

/// One key of the order of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderBy {
    /// An output's name.
    pub column: String,
    /// Greatest first.
    pub descending: bool,
}

/// All conditions on one column.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// The column.
    pub column: String,
    /// What its value must satisfy, all of it.
    pub conditions: Vec<Condition>,
}

/// One condition on a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// Equals one of these.
    In(Vec<Scalar>),
    /// Is absent or equals none of these.
    NotIn(Vec<Scalar>),
    /// Compares so with this.
    Compare(Comparison, Scalar),
    /// Begins with this.
    Prefix(String),
    /// Is present (true) or absent (false).
    Exists(bool),
}

/// An order comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Greater.
    Gt,
    /// Greater or equal.
    Gte,
    /// Less.
    Lt,
    /// Less or equal.
    Lte,
}

/// A value in a filter, before its column's kind is known.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// A string: only a dimension compares with it.
    Text(String),
    /// A number: a dimension compares with its text.
    Number {
        /// Its value.
        value: f64,
        /// Its text; `None` where what was written is not known any more (beyond the integers that `f64` tells apart).
        text: Option<String>,
    },
    /// A boolean: only a dimension compares with it, by its text.
    Bool(bool),
}
