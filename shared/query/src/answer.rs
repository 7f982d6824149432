//! An answer as JSON: `rows` and `columns` of the contract. The service puts the receipt beside them.

use std::cmp::Ordering;

use sketch::{Bound, BoundKind};
use types::{ApiError, Interval};

use crate::{
    allowance::Allowance, finish::OutputColumn, groups::Groups, partial::ScanStats, plan::Plan, planner::TIME,
    top::Leaders, values::Values,
};

/// The answer to a query, without its receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The list of rows, as JSON text.
    pub rows: String,
    /// How many rows there are.
    pub row_count: usize,
    /// The list of descriptions of the aggregates, as JSON text: `name`, `exact`, the `bound` of what is not exact, and
    /// `"overflow":true` where some value was too large for a number, so that its cell is null.
    pub columns: String,
    /// Whether the limit left rows out.
    pub truncated: bool,
    /// What the scan looked at.
    pub stats: ScanStats,
}

/// One value of an output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Cell {
    Null,
    Integer(u64),
    Float(f64),
    /// The list of that index; no order is asked by one.
    List(u32),
}

impl Cell {
    /// Ascending, null first. The cells of one output are of one kind.
    pub(crate) fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => a.total_cmp(b),
            (Self::Null, Self::Null) | (Self::List(_), _) | (_, Self::List(_)) => Ordering::Equal,
            (Self::Null, _) => Ordering::Less,
            (_, Self::Null) => Ordering::Greater,
            (Self::Integer(_), Self::Float(_)) => Ordering::Less,
            (Self::Float(_), Self::Integer(_)) => Ordering::Greater,
        }
    }
}

/// The groups of an answer, in order.
pub(crate) struct Rows<'a> {
    pub(crate) values: &'a [Values],
    pub(crate) groups: &'a Groups,
    pub(crate) outputs: &'a [OutputColumn],
    pub(crate) kept: &'a [u32],
}

impl Answer {
    pub(crate) fn new(
        plan: &Plan,
        rows: &Rows<'_>,
        truncated: bool,
        stats: ScanStats,
        allowance: &mut Allowance<'_>,
    ) -> Result<Self, ApiError> {
        let columns = columns(plan, rows.outputs);
        let (row_count, rows) = (rows.kept.len(), write_rows(plan, rows, allowance)?);
        Ok(Self { rows, row_count, columns, truncated, stats })
    }
}

fn columns(plan: &Plan, outputs: &[OutputColumn]) -> String {
    let mut out = Writer::default();
    out.list(plan.outputs.iter().zip(outputs), |out, (output, column)| {
        out.raw("{\"name\":");
        out.text(&output.name);
        out.raw(if column.overflow || column.bound.is_some() { ",\"exact\":false" } else { ",\"exact\":true" });
        if let Some(bound) = column.bound {
            out.bound(bound);
        }
        out.raw(if column.overflow { ",\"overflow\":true}" } else { "}" });
    });
    out.finish()
}

/// Rows whose length says how long all will be, about.
const MEASURED_ROWS: usize = 1 << 10;
/// And this part of it more.
const MARGIN: usize = 16;
/// Bytes of text that are asked for ahead, at most.
const RESERVED_BYTES_MAX: usize = 64 << 20;

fn write_rows(plan: &Plan, rows: &Rows<'_>, allowance: &mut Allowance<'_>) -> Result<String, ApiError> {
    // Every row has the same keys: they are written once, each with what stands before it.
    let names = plan.interval.map(|_| TIME).into_iter();
    let names = names.chain(plan.groups.iter().map(|group| group.name()));
    let names = names.chain(plan.outputs.iter().map(|output| output.name.as_str()));
    let keys: Vec<String> = names
        .enumerate()
        .map(|(at, name)| {
            let mut out = Writer::default();
            out.raw(if at == 0 { "{" } else { "," });
            out.text(name);
            out.raw(":");
            out.finish()
        })
        .collect();
    let (of_groups, of_outputs) = keys.split_at(keys.len() - rows.outputs.len());
    let (of_time, of_groups) = of_groups.split_at(of_groups.len() - rows.values.len());
    let quoted = rows.values.iter().zip(of_groups).map(|(values, key)| Quoted::new(key, values, rows.kept.len()));
    let quoted: Vec<Option<Quoted>> = quoted.collect();
    let held = quoted.iter().flatten().map(|quoted| quoted.text.0.len() + size_of_val(&*quoted.ends)).sum();
    if held > 0 {
        allowance.take(1, held)?;
    }
    let mut out = Writer::default();
    out.raw("[");
    for (at, &group) in rows.kept.iter().enumerate() {
        if at > 0 {
            out.raw(",");
        }
        let (group, begin) = (group as usize, out.0.len());
        if let (Some(interval), [key]) = (plan.interval, of_time) {
            out.raw(key);
            out.integer(start_of(interval, rows.groups.buckets[group]));
        }
        let columns = rows.groups.keys.iter().zip(rows.values).zip(of_groups);
        for (((column, values), key), quoted) in columns.zip(&quoted) {
            match quoted {
                Some(quoted) => out.0.extend_from_slice(quoted.get(column[group])),
                None => {
                    out.raw(key);
                    out.value(values.get(column[group]));
                }
            }
        }
        for (output, key) in rows.outputs.iter().zip(of_outputs) {
            out.raw(key);
            match output.cells[group] {
                Cell::List(at) => out.leaders(&output.lists[at as usize]),
                cell => out.cell(cell),
            }
        }
        out.raw("}");
        allowance.step(out.0.len() - begin)?;
        if at + 1 == MEASURED_ROWS {
            // As long as these are the others, or nearly: so the text is not copied again and again as it grows.
            // Longer ones, which may be refused before they are whole, grow by copying.
            let like_these = (out.0.len() / MEASURED_ROWS).saturating_mul(rows.kept.len() - MEASURED_ROWS);
            out.0.reserve(like_these.saturating_add(like_these / MARGIN).min(RESERVED_BYTES_MAX));
        }
    }
    out.raw("]");
    Ok(out.finish())
}

/// The first time of a bucket, held at the start of the range of times.
fn start_of(interval: Interval, bucket: i64) -> i64 {
    bucket.saturating_mul(interval.micros())
}

/// The strings of a group column as JSON, by number, each behind its key, where most of them stand in more than a row.
struct Quoted {
    text: Writer,
    ends: Vec<usize>,
}

impl Quoted {
    fn new(key: &str, values: &Values, rows: usize) -> Option<Self> {
        const ROWS_PER_VALUE: usize = 4;
        if rows < values.numbers() * ROWS_PER_VALUE {
            return None;
        }
        let (mut text, mut ends) = (Writer::default(), Vec::with_capacity(values.numbers()));
        for number in 0..values.numbers() as u32 {
            text.raw(key);
            text.value(values.get(number));
            ends.push(text.0.len());
        }
        Some(Self { text, ends })
    }

    fn get(&self, number: u32) -> &[u8] {
        let number = number as usize;
        let begin = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text.0[begin..self.ends[number]]
    }
}

/// Writes JSON.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn finish(self) -> String {
        String::from_utf8(self.0).expect("JSON is written from strings")
    }

    fn raw(&mut self, json: &str) {
        self.0.extend_from_slice(json.as_bytes());
    }

    fn text(&mut self, text: &str) {
        serde_json::to_writer(&mut self.0, text).expect("a string is JSON, and memory takes all writes");
    }

    fn value(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.text(value),
            None => self.raw("null"),
        }
    }

    fn integer(&mut self, number: i64) {
        serde_json::to_writer(&mut self.0, &number).expect("an integer is JSON, and memory takes all writes");
    }

    fn cell(&mut self, cell: Cell) {
        match cell {
            Cell::Null => self.raw("null"),
            Cell::List(_) => unreachable!("lists are written by whoever has them"),
            Cell::Integer(number) => {
                serde_json::to_writer(&mut self.0, &number).expect("an integer is JSON, and memory takes all writes");
            }
            Cell::Float(number) => {
                debug_assert!(number.is_finite(), "an answer holds neither NaN nor Infinity");
                serde_json::to_writer(&mut self.0, &number).expect("a number is JSON, and memory takes all writes");
            }
        }
    }

    fn leaders(&mut self, leaders: &Leaders) {
        self.list(leaders.iter(), |out, (value, count)| {
            out.raw("{\"value\":");
            out.text(value);
            out.raw(",\"count\":");
            out.cell(Cell::Integer(*count));
            out.raw("}");
        });
    }

    fn bound(&mut self, bound: Bound) {
        let kind = match bound.kind {
            BoundKind::Relative => "relative",
            BoundKind::Absolute => "absolute",
            // There is no figure where nothing is guaranteed.
            BoundKind::None => return self.raw(",\"bound\":{\"kind\":\"none\",\"value\":null,\"confidence\":null}"),
        };
        self.raw(&format!(",\"bound\":{{\"kind\":\"{kind}\",\"value\":"));
        self.cell(Cell::Float(bound.value));
        self.raw(",\"confidence\":");
        self.cell(Cell::Float(bound.confidence));
        self.raw("}");
    }

    fn list<T>(&mut self, items: impl Iterator<Item = T>, mut each: impl FnMut(&mut Self, T)) {
        self.raw("[");
        for (at, item) in items.enumerate() {
            if at > 0 {
                self.raw(",");
            }
            each(self, item);
        }
        self.raw("]");
    }
}
