//! The one row form: what JSON, protobuf and files become before they become columns.

use types::ErrorCode;

/// One event, borrowed from its input or from its decoder. Its type checks nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EventRef<'a> {
    /// The namespace of its table.
    pub namespace: &'a str,
    /// Its table.
    pub table: &'a str,
    /// µs since the Unix epoch; `None`: the time of receipt.
    pub event_time: Option<i64>,
    /// Its identity, where it has one of its own.
    pub event_id: Option<&'a [u8]>,
    /// Name and value of each dimension that it has.
    pub dimensions: &'a [(&'a str, &'a str)],
    /// Name and value of each metric that it has.
    pub metrics: &'a [(&'a str, f64)],
}

/// Why an event of a request was refused; the others of the request are not affected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The event's index in its request.
    pub index: u32,
    /// The code, almost always [`ErrorCode::InvalidArgument`].
    pub code: ErrorCode,
    /// What was wrong, the field at fault named: `metrics.revenue is not a number`.
    pub message: String,
}
