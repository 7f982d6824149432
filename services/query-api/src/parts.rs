//! An answer in parts of bounded size: whole rows, then all the rest.

use proto::v1::{QueryPart, QueryRows, QueryTail, query_part::Part};
use serde::de::IgnoredAny;
use types::ApiError;

use crate::answer::{Answered, unwritable};

/// Bytes of a part's list of rows, unless a single row is longer.
const PART_BYTES_MAX: usize = 64 << 10;

/// The parts, made one by one.
pub(crate) struct Parts {
    /// The list of all rows, as JSON text.
    rows: String,
    /// Where the next row begins in it, or its closing bracket stands.
    at: usize,
    /// Taken when it is sent.
    tail: Option<QueryTail>,
    bytes_max: usize,
}

impl Parts {
    /// # Errors
    /// The receipt cannot be written.
    pub(crate) fn new(answered: Answered) -> Result<Self, ApiError> {
        let tail = QueryTail {
            columns: answered.columns,
            receipt: serde_json::to_string(&answered.receipt).map_err(|error| unwritable(&error))?,
            stats: serde_json::to_string(&answered.stats).map_err(|error| unwritable(&error))?,
        };
        Ok(Self::of(answered.rows, tail, PART_BYTES_MAX))
    }

    fn of(rows: String, tail: QueryTail, bytes_max: usize) -> Self {
        Self { rows, at: "[".len(), tail: Some(tail), bytes_max }
    }

    /// The next rows as a list: as many as its bytes allow, at least one. `None`: no row is left.
    fn next_rows(&mut self) -> Option<String> {
        let begin = self.at;
        let mut end = begin + row_bytes(&self.rows[begin..])?;
        // Behind each row stands a comma or the list's end.
        let (mut next, brackets) = (end + 1, "[]".len());
        while let Some(bytes) = self.rows.get(next..).and_then(row_bytes) {
            if next + bytes - begin + brackets > self.bytes_max {
                break;
            }
            end = next + bytes;
            next = end + 1;
        }
        self.at = next;
        Some(format!("[{}]", &self.rows[begin..end]))
    }
}

impl Iterator for Parts {
    type Item = QueryPart;

    fn next(&mut self) -> Option<QueryPart> {
        let part = match self.next_rows() {
            Some(rows) => Part::Rows(QueryRows { rows }),
            None => Part::Tail(self.tail.take()?),
        };
        Some(QueryPart { part: Some(part) })
    }
}

/// Bytes of the row with which a text begins, if one does.
fn row_bytes(text: &str) -> Option<usize> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    Some(values.byte_offset())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The lists of rows, and the number of tails behind them.
    fn lists(rows: &str, bytes_max: usize) -> (Vec<String>, usize) {
        let (mut lists, mut tails) = (Vec::new(), 0);
        for part in Parts::of(rows.to_owned(), QueryTail::default(), bytes_max) {
            match part.part {
                Some(Part::Rows(part)) if tails == 0 => lists.push(part.rows),
                Some(Part::Tail(_)) => tails += 1,
                other => panic!("{other:?} after {tails} tails"),
            }
        }
        (lists, tails)
    }

    /// Goal: whatever stands in the rows and however small a part may be, the lists together are the rows, each within its
    /// bound or of one row, no two of which would have fitted into one, and one tail ends them.
    #[test]
    fn parts_are_the_rows() {
        let odd = json!([{"a": "},{\"]["}, {"a": "\\"}, {"top": [{"v": "é\u{1}", "n": 1}, {}]}, {}, {"a": null, "b": -1.5e-9}]);
        let many: Value = (0..300).map(|n| json!({"n": n, "text": "x".repeat(n % 7)})).collect();
        for rows in [json!([]), json!([{}]), odd, many] {
            let text = rows.to_string();
            for bytes_max in [0, 2, 20, 64, 1_000, 1 << 20] {
                let (lists, tails) = lists(&text, bytes_max);
                let parts: Vec<Vec<Value>> = lists.iter().map(|list| serde_json::from_str(list).unwrap()).collect();
                assert_eq!((Value::from(parts.concat()), tails), (rows.clone(), 1));
                for (list, part) in lists.iter().zip(&parts) {
                    assert!(part.len() == 1 || (!part.is_empty() && list.len() <= bytes_max), "{list} of {bytes_max}");
                }
                for (list, next) in lists.iter().zip(parts.iter().skip(1)) {
                    assert!(list.len() + ",".len() + next[0].to_string().len() > bytes_max, "{list} has room");
                }
            }
        }
    }
}
