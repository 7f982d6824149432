//! Which columns of a file become what: `--time`, `--id`, `--dimensions`, `--metrics`.

use types::{check_column_name, limits::EVENT_COLUMNS_MAX};

use super::{record::Slot, time::TimeForm};
use crate::{
    args::{Format, IngestArgs},
    failure::Failure,
};

/// A mapping, with the columns that it asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mapping {
    /// Columns that it asks for, by slot; no name twice.
    pub(crate) columns: Vec<String>,
    /// The event time; `None`: the time of receipt.
    pub(crate) time: Option<(Slot, TimeForm)>,
    /// The event id.
    pub(crate) id: Id,
    /// Dimensions, in the order given.
    pub(crate) dimensions: Vec<(String, Text)>,
    /// Metrics, in the order given.
    pub(crate) metrics: Vec<(String, Product)>,
}

/// Where an event's id comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Id {
    /// It has none of its own: the batch's identity counts.
    Batch,
    /// The source's name and the line.
    Line,
    /// A column.
    Column(Slot),
}

/// Where a dimension's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Text {
    /// A column.
    Column(Slot),
    /// The same for all.
    Constant(String),
}

/// A metric: the product of columns and a number. Absent where one of its columns is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Product {
    /// Columns that are multiplied.
    pub(crate) columns: Vec<Slot>,
    /// What they are multiplied with.
    pub(crate) factor: f64,
}

/// Fields of an access log, in the order of its lines.
pub(crate) const ACCESS_FIELDS: [&str; 11] =
    ["client_ip", "ident", "user", "time", "method", "path", "protocol", "status", "bytes", "referer", "user_agent"];

/// How an access log writes its time.
const ACCESS_TIME: &str = "%d/%b/%Y:%H:%M:%S %z";

impl Mapping {
    /// The mapping of a command line; `None` where the events are in TrueNow's own form.
    ///
    /// # Errors
    /// An option cannot be read, a name is wrong or used twice.
    pub(crate) fn from_args(args: &IngestArgs, format: Format) -> Result<Option<Self>, Failure> {
        let given = args.time.is_some() || args.id.is_some() || args.dimensions.is_some() || args.metrics.is_some();
        let access_log = matches!(format, Format::Combined | Format::Common);
        if format == Format::Ndjson && !given {
            return Ok(None);
        }
        let mut mapping =
            Self { columns: Vec::new(), time: None, id: Id::Batch, dimensions: Vec::new(), metrics: Vec::new() };
        mapping.read_time(args.time.as_deref().or(access_log.then_some("time")), access_log)?;
        mapping.id = match args.id.as_deref() {
            None => Id::Batch,
            Some("line") => Id::Line,
            Some(column) => Id::Column(mapping.slot(column)),
        };
        if access_log && args.dimensions.is_none() && args.metrics.is_none() {
            mapping.whole_access_log(format);
        }
        mapping.read_dimensions(args.dimensions.as_deref().unwrap_or_default())?;
        mapping.read_metrics(args.metrics.as_deref().unwrap_or_default())?;
        mapping.check()?;
        Ok(Some(mapping))
    }

    fn whole_access_log(&mut self, format: Format) {
        let fields = if format == Format::Common { &ACCESS_FIELDS[..9] } else { &ACCESS_FIELDS[..] };
        for &field in fields.iter().filter(|field| !matches!(**field, "time" | "bytes")) {
            let slot = self.slot(field);
            self.dimensions.push((field.to_owned(), Text::Column(slot)));
        }
        let bytes = self.slot("bytes");
        self.metrics.push(("bytes".to_owned(), Product { columns: vec![bytes], factor: 1.0 }));
        self.metrics.push(("requests".to_owned(), Product { columns: Vec::new(), factor: 1.0 }));
    }

    fn read_time(&mut self, given: Option<&str>, access_log: bool) -> Result<(), Failure> {
        if let Some(given) = given {
            let usual = if access_log { ACCESS_TIME } else { "rfc3339" };
            let (column, form) = given.split_once(':').unwrap_or((given, usual));
            self.time = Some((self.slot(column), TimeForm::parse(form)?));
        }
        Ok(())
    }

    fn read_dimensions(&mut self, list: &str) -> Result<(), Failure> {
        for (name, source) in entries(list)? {
            let value = match source.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
                Some(constant) => Text::Constant(constant.to_owned()),
                None => Text::Column(self.slot(source)),
            };
            self.dimensions.push((name.to_owned(), value));
        }
        Ok(())
    }

    fn read_metrics(&mut self, list: &str) -> Result<(), Failure> {
        for (name, source) in entries(list)? {
            let mut product = Product { columns: Vec::new(), factor: 1.0 };
            for term in source.split('*').map(str::trim) {
                match term.parse::<f64>() {
                    Ok(number) if number.is_finite() => product.factor *= number,
                    Ok(_) => return Err(Failure::new(format!("--metrics: {term} is no finite number"))),
                    Err(_) if term.is_empty() => {
                        return Err(Failure::new(format!("--metrics: {source:?} lacks a column beside its *")));
                    }
                    Err(_) => {
                        let slot = self.slot(term);
                        product.columns.push(slot);
                    }
                }
            }
            self.metrics.push((name.to_owned(), product));
        }
        Ok(())
    }

    fn slot(&mut self, column: &str) -> Slot {
        let known = self.columns.iter().position(|known| known == column);
        Slot(known.unwrap_or_else(|| {
            self.columns.push(column.to_owned());
            self.columns.len() - 1
        }))
    }

    fn check(&self) -> Result<(), Failure> {
        let names = || self.dimensions.iter().map(|(name, _)| name).chain(self.metrics.iter().map(|(name, _)| name));
        if names().next().is_none() {
            return Err(Failure::new("nothing of the file would be sent")
                .hint("name the columns to send with --dimensions and --metrics"));
        }
        if names().count() > EVENT_COLUMNS_MAX {
            return Err(Failure::new(format!("an event has at most {EVENT_COLUMNS_MAX} columns")));
        }
        for (at, name) in names().enumerate() {
            if let Err(error) = check_column_name(name) {
                return Err(Failure::new(format!("the column name {name:?} {error}"))
                    .hint("rename it: --dimensions NEW=COLUMN or --metrics NEW=COLUMN"));
            }
            if names().take(at).any(|before| before == name) {
                return Err(Failure::new(format!("{name:?} is named twice"))
                    .hint("a column is a dimension or a metric, once; rename one of them"));
            }
        }
        Ok(())
    }
}

/// Entries of a list `A,B=COL`: names and sources. Commas inside double quotes belong to the entry.
fn entries(list: &str) -> Result<Vec<(&str, &str)>, Failure> {
    let mut quoted = false;
    let parts = list.split(|c: char| {
        quoted ^= c == '"';
        c == ',' && !quoted
    });
    let mut entries = Vec::new();
    for part in parts.map(str::trim) {
        let (name, source) = part.split_once('=').unwrap_or((part, part));
        match (name.trim(), source.trim()) {
            ("", "") if list.is_empty() => {}
            ("", _) | (_, "") => {
                return Err(Failure::new(format!("{part:?} in {list:?} is no column"))
                    .hint("write A,B=COL: column A as it is, column COL under the name B"));
            }
            entry => entries.push(entry),
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn mapping(format: Format, flags: &[&str]) -> Result<Option<Mapping>, Failure> {
        let line = [&["truenow", "ingest", "f"], flags].concat();
        match Cli::parse_from(line).command {
            Command::Ingest(args) => Mapping::from_args(&args, format),
            other => panic!("{other:?}"),
        }
    }

    /// Goal: columns are asked for once, renamed, multiplied, and constants need no column.
    #[test]
    fn mappings_are_read() {
        let flags =
            ["--time", "at:%H:%M", "--id", "line", "--dimensions", "a,b=X,c=\"u,v\"", "--metrics", "q,r=q*p*2,n=1"];
        let mapping = mapping(Format::Csv, &flags).unwrap().unwrap();
        assert_eq!(mapping.columns, ["at", "a", "X", "q", "p"]);
        assert_eq!(mapping.time, Some((Slot(0), TimeForm::parse("%H:%M").unwrap())));
        assert_eq!(mapping.id, Id::Line);
        let text = |name: &str, value| (name.to_owned(), value);
        let constant = Text::Constant("u,v".to_owned());
        let dimensions = [text("a", Text::Column(Slot(1))), text("b", Text::Column(Slot(2))), text("c", constant)];
        assert_eq!(mapping.dimensions, dimensions);
        let product =
            |columns: &[usize], factor| Product { columns: columns.iter().map(|&at| Slot(at)).collect(), factor };
        let metrics = [
            ("q".to_owned(), product(&[3], 1.0)),
            ("r".to_owned(), product(&[3, 4], 2.0)),
            ("n".to_owned(), product(&[], 1.0)),
        ];
        assert_eq!(mapping.metrics, metrics);
    }

    /// Goal: own form needs no mapping, an access log has one of its own, everything else must be told.
    #[test]
    fn defaults_fit_the_format() {
        assert_eq!(mapping(Format::Ndjson, &[]).unwrap(), None);
        let log = mapping(Format::Common, &[]).unwrap().unwrap();
        assert_eq!((log.dimensions.len(), log.metrics.len()), (7, 2));
        assert_eq!(log.time.unwrap().1.read("17/May/2015:12:05:03 +0200"), Ok(types::Timestamp(1_431_857_103_000_000)));
        let log = mapping(Format::Combined, &[]).unwrap().unwrap();
        assert_eq!((log.dimensions.len(), log.metrics.len()), (9, 2));
        assert!(mapping(Format::Csv, &["--time", "t"]).is_err(), "nothing to send");
    }

    /// Goal: a mapping that cannot be meant is refused.
    #[test]
    fn contradictions_are_refused() {
        for flags in [
            ["--dimensions", "a,a"],
            ["--dimensions", "a,,b"],
            ["--dimensions", "a="],
            ["--dimensions", "a\u{7}"],
            ["--metrics", "a=b*"],
            ["--metrics", "a=inf"],
        ] {
            assert!(mapping(Format::Csv, &flags).is_err(), "{flags:?}");
        }
        assert!(mapping(Format::Csv, &["--dimensions", "a", "--metrics", "a"]).is_err(), "both kinds");
    }
}
