//! What a measurement found: one model for what is printed, kept as JSON and shown on a page. Every figure of it was measured by
//! the program that made it; only goals are written by hand.

use std::io::{self, Write as _};

use serde::{Deserialize, Serialize};

/// A part of a run: one question about speed and its answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Its short name, as the command line has it.
    pub name: String,
    /// Its heading.
    pub title: String,
    /// How it was measured.
    pub method: String,
    /// `/proc/loadavg` before and after it.
    pub load: [String; 2],
    /// The share of all cores' time that others took in the second before it.
    pub others: f64,
    /// How long it took, s.
    pub seconds: f64,
    /// Whether it was of a quick run, with fewer rows and seconds than figures need.
    pub quick: bool,
    /// What was to be reached, and what was.
    pub goals: Vec<Goal>,
    /// Its figures.
    pub tables: Vec<Table>,
    /// The same as graphs.
    pub charts: Vec<Chart>,
    /// What was left out, or went wrong.
    pub notes: Vec<String>,
}

/// Something to be reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// What.
    pub what: String,
    /// How much, in words.
    pub wanted: String,
    /// What was measured, in words.
    pub found: String,
    /// Whether it is enough.
    pub met: bool,
}

/// Figures in rows and columns.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Heading; empty: none.
    pub title: String,
    /// Names of the columns, with their units.
    pub columns: Vec<String>,
    /// As many texts as there are columns in each.
    pub rows: Vec<Vec<String>>,
}

/// How a graph is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A line through the points of each series; positions are numbers.
    Lines,
    /// The same, positions on a logarithmic scale.
    LinesLogX,
    /// Bars side by side, one per series, in a group per label.
    Bars,
    /// The same, lengths on a logarithmic scale.
    BarsLogY,
}

/// A graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    /// Name of its file, without `.svg`.
    pub name: String,
    /// Heading.
    pub title: String,
    /// How it is drawn.
    pub kind: Kind,
    /// What positions are.
    pub x: String,
    /// What heights are.
    pub y: String,
    /// Of bars: the name of each group; the points' positions are their places here.
    pub labels: Vec<String>,
    /// The lines, or the bars of one colour.
    pub series: Vec<Series>,
}

/// Points that belong together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// What they are.
    pub name: String,
    /// Position and height.
    pub points: Vec<(f64, f64)>,
}

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(title: &str, columns: &[&str]) -> Self {
        Self {
            title: title.to_owned(),
            columns: columns.iter().map(|&name| name.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// The table in Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let row = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut text = row(&self.columns) + &format!("|{}\n", "---|".repeat(self.columns.len()));
        self.rows.iter().for_each(|cells| text += &row(cells));
        text
    }
}

impl Part {
    /// The part as people read it in a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("## {}\n{}\n", self.title, self.method);
        for table in &self.tables {
            if !table.title.is_empty() {
                text += &format!("{}\n", table.title);
            }
            text += &table.markdown();
        }
        for goal in &self.goals {
            let verdict = if goal.met { "holds" } else { "MISSED" };
            text += &format!("{verdict}: {}: {} wanted, {} found\n", goal.what, goal.wanted, goal.found);
        }
        self.notes.iter().for_each(|note| text += &format!("NOTE: {note}\n"));
        text
    }
}

/// A number with three digits that count.
#[must_use]
pub fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A rate in thousands or millions.
#[must_use]
pub fn rate(per_second: f64) -> String {
    match per_second {
        many if many >= 1e6 => format!("{} M", short(many / 1e6)),
        some if some >= 1e3 => format!("{} k", short(some / 1e3)),
        few => short(few),
    }
}

/// Prints a line. Nobody reading is no failure of a measurement.
pub fn line(text: &str) {
    let _unread = writeln!(io::stdout(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: numbers are shown with the digits that a measurement has.
    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.0123, 1.234, 12.34, 123.4, 1_234_567.0].map(short);
        assert_eq!(shown, ["0", "0.012", "1.23", "12.3", "123", "1234567"]);
        assert_eq!([12.0, 4_560.0, 5_123_000.0].map(rate), ["12.0", "4.56 k", "5.12 M"]);
    }

    /// Goal: a table is Markdown with as many cells in the line below the head as it has columns.
    #[test]
    fn tables_are_markdown() {
        let mut table = Table::new("", &["a", "b"]);
        table.rows.push(vec!["1".to_owned(), "2".to_owned()]);
        assert_eq!(table.markdown(), "| a | b |\n|---|---|\n| 1 | 2 |\n");
    }
}
