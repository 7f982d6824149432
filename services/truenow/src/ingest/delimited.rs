//! Comma and tab separated values with a header line. An empty field is absent.

use std::io::{self, BufRead};

use super::record::{Read, Record, Records, Slot};
use crate::failure::Failure;

/// Reads delimited rows.
pub(crate) struct Delimited {
    reader: csv::Reader<Box<dyn BufRead + Send>>,
    row: csv::ByteRecord,
    /// Position in the row of each slot.
    wanted: Vec<usize>,
    fields: usize,
}

/// How rows are delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delimiter {
    /// Commas, quotes as in RFC 4180.
    Comma,
    /// Tabs, no quotes.
    Tab,
}

impl Delimited {
    /// A reader that fills the slots of `columns`.
    ///
    /// # Errors
    /// The header cannot be read or lacks a column.
    pub(crate) fn new(
        reader: Box<dyn BufRead + Send>,
        delimiter: Delimiter,
        columns: &[String],
    ) -> Result<Self, Failure> {
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(if delimiter == Delimiter::Comma { b',' } else { b'\t' })
            .quoting(delimiter == Delimiter::Comma)
            .flexible(true)
            .from_reader(reader);
        let header = reader.headers().map_err(|error| Failure::new(format!("cannot read the header line: {error}")))?;
        let names: Vec<&str> = header.iter().map(|name| name.trim_start_matches('\u{feff}').trim()).collect();
        let position = |column: &String| {
            names.iter().position(|name| name == column).ok_or_else(|| {
                Failure::new(format!("the file has no column {column:?}"))
                    .hint(format!("its header line names {}", names.join(", ")))
            })
        };
        let wanted = columns.iter().map(position).collect::<Result<_, _>>()?;
        let fields = names.len();
        Ok(Self { reader, row: csv::ByteRecord::new(), wanted, fields })
    }
}

impl Records for Delimited {
    fn next(&mut self, record: &mut Record) -> io::Result<Read> {
        if !self.reader.read_byte_record(&mut self.row).map_err(io::Error::other)? {
            return Ok(Read::End);
        }
        record.begin(self.wanted.len(), self.row.position().map_or(0, csv::Position::line));
        // Empty fields beyond the header are the ends of rows that were padded.
        if self.row.iter().skip(self.fields).any(|field| !field.is_empty()) {
            return Ok(Read::Bad(format!("{} fields, but the header line has {}", self.row.len(), self.fields)));
        }
        for (slot, &at) in self.wanted.iter().enumerate() {
            // A row may be shorter than the header: what is not there is absent.
            let field = self.row.get(at).unwrap_or_default();
            match std::str::from_utf8(field) {
                Ok("") => {}
                Ok(text) => record.set(Slot(slot), text),
                Err(_) => return Ok(Read::Bad("the line is not UTF-8".to_owned())),
            }
        }
        Ok(Read::Record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Cells = Vec<Option<String>>;

    fn rows(text: &str, delimiter: Delimiter, columns: &[&str]) -> Vec<(u64, Result<Cells, String>)> {
        let columns: Vec<String> = columns.iter().map(|&column| column.to_owned()).collect();
        let mut reader = Delimited::new(Box::new(io::Cursor::new(text.to_owned())), delimiter, &columns).unwrap();
        let (mut record, mut rows) = (Record::default(), Vec::new());
        loop {
            let row = match reader.next(&mut record).unwrap() {
                Read::End => return rows,
                Read::Bad(why) => Err(why),
                Read::Record => Ok((0..columns.len()).map(|at| record.get(Slot(at)).map(str::to_owned)).collect()),
            };
            rows.push((record.line, row));
        }
    }

    /// Goal: columns are found by name, quotes are undone, empty and missing fields are absent, lines are those of the file.
    #[test]
    fn rows_follow_the_header() {
        let text = "\u{feff}a,b,c\n1,\"x,\"\"y\"\"\nz\",3\n4,,6\n7\n1,2,3,4\n8,9,,,\n";
        let cell = |text: &str| Some(text.to_owned());
        let found = rows(text, Delimiter::Comma, &["c", "a", "b"]);
        assert_eq!(found[0], (2, Ok(vec![cell("3"), cell("1"), cell("x,\"y\"\nz")])));
        assert_eq!(found[1], (4, Ok(vec![cell("6"), cell("4"), None])));
        assert_eq!(found[2], (5, Ok(vec![None, cell("7"), None])));
        assert!(found[3].1.is_err(), "more fields than names");
        assert_eq!(found[4], (7, Ok(vec![None, cell("8"), cell("9")])));
    }

    /// Goal: in tab separated values a quote is a character like any other.
    #[test]
    fn tabs_know_no_quotes() {
        let found = rows("a\tb\n\"x\ty\n", Delimiter::Tab, &["a", "b"]);
        assert_eq!(found, [(2, Ok(vec![Some("\"x".to_owned()), Some("y".to_owned())]))]);
    }

    /// Goal: a column that is not there is named, together with those that are.
    #[test]
    fn unknown_columns_are_refused() {
        let reader = Box::new(io::Cursor::new("a,b\n"));
        let failure = Delimited::new(reader, Delimiter::Comma, &["z".to_owned()]).err().unwrap().to_string();
        assert!(failure.contains("\"z\"") && failure.contains("a, b"), "{failure}");
    }
}
