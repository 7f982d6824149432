//! The command line as clap reads it. Every flag is documented here and nowhere else.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::addresses::Addresses;

/// TrueNow, an in-memory analytics database whose answers say what they cover.
#[derive(Debug, Parser)]
#[command(name = "truenow", version, about, max_term_width = 110)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run services in this process until SIGTERM or Ctrl-C.
    Serve(ServeArgs),
    /// Send the events of a file.
    Ingest(IngestArgs),
    /// Ask a question and show its answer with its receipt.
    Query(QueryArgs),
    /// Show rate, freshness and latency each second until Ctrl-C.
    Tail(TailArgs),
    /// Send a table's events, as the log has them, to another table.
    Replay(ReplayArgs),
    /// Check that every acked event is in one place: the ledgers of the tables.
    Verify(VerifyArgs),
    /// Generate load and measure what the server makes of it.
    Bench(BenchArgs),
}

/// `truenow serve`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ServeArgs {
    /// Configuration file; without it ./truenow.toml if there is one.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Directory of the log, the metadata and the dead letters; made if it does not exist [default: ./data].
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Services to run, by name, separated by commas [default: all].
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub(crate) services: Option<Vec<String>>,
    /// Added to every port, so that several servers can run on one machine.
    #[arg(long, value_name = "N")]
    pub(crate) port_offset: Option<u16>,
}

const INGEST_HELP: &str = "\
FORMATS
  ndjson    one JSON object a line. Without --time, --id, --dimensions and --metrics the lines are events in
            TrueNow's own form and go as they are. Otherwise objects of any shape: a nested field is named by
            its path (geo.country), a missing or null field is absent, booleans and numbers are taken as their text.
  csv, tsv  a header line, then rows (csv: quotes as in RFC 4180; tsv: no quotes). An empty field is absent.
  combined  access log lines as Apache and nginx write them, common the same without the last two fields:
            client_ip, ident, user, time, method, path, protocol, status, bytes, referer, user_agent; `-` is absent.
            Unless said otherwise: --time time as these logs write it, all others as dimensions but --metrics bytes,requests=1.
  A name ending in .gz or .zst is unpacked on the way. Without --format the rest of the name decides
  (.ndjson .jsonl .json, .csv, .tsv .tab, .log for combined).

MAPPING
  --time at:ms                      integers since 1970: s (with decimals, if any), ms, us
  --time at  or  --time at:rfc3339  2026-01-31T12:00:00.5Z; without a zone (also 2026-01-31 12:00:00) it is UTC
  --time 'at:%d/%m/%Y %H:%M'        strptime's letters; without %z it is UTC
  --dimensions country,user=CustomerID,site=\"eu\"         as they are, renamed, or one text for all
  --metrics bytes,income=Quantity*UnitPrice,requests=1   as they are, renamed, products, or one number for all

COUNTING ONCE
  With --id each event has an id of its own: `--id COLUMN` its value, `--id line` the name of the source and the
  line's number. Without it, the identity is that of the batch: the file (path, size, time of change), the options,
  the batch's number. Either way the same unchanged file sent again with the same options within the
  table's dedup_window_us counts once. Standard input without --id
  is new each time.";

/// `truenow ingest`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = INGEST_HELP)]
pub(crate) struct IngestArgs {
    /// File to read; `-` is standard input.
    pub(crate) file: PathBuf,
    /// Namespace of the table.
    #[arg(long, value_name = "N")]
    pub(crate) namespace: Option<String>,
    /// Table to send to; it is created if it does not exist.
    #[arg(long, value_name = "T")]
    pub(crate) table: Option<String>,
    /// Form of the file [default: by its name].
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
    /// Column of the event time and how it is written; see MAPPING under --help.
    #[arg(long, value_name = "COLUMN[:s|ms|us|rfc3339|FORMAT]")]
    pub(crate) time: Option<String>,
    /// Column of the event id, or `line` for the source's name and line number.
    #[arg(long, value_name = "COLUMN|line")]
    pub(crate) id: Option<String>,
    /// Columns to send as dimensions.
    #[arg(long, value_name = "A,B=COL")]
    pub(crate) dimensions: Option<String>,
    /// Columns to send as metrics.
    #[arg(long, value_name = "X,Y=COL*COL")]
    pub(crate) metrics: Option<String>,
    /// Name of the source in the ids of `--id line` [default: the file's name without directory, .gz and .zst].
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    /// Move all times by one constant so that the last event is now; for demos. Reads the file twice.
    #[arg(long, requires = "time")]
    pub(crate) shift_to_now: bool,
    /// After the last ack, wait until queries see all events.
    #[arg(long, conflicts_with = "print")]
    pub(crate) wait: bool,
    /// Print the events in TrueNow's form instead of sending them.
    #[arg(long)]
    pub(crate) print: bool,
    /// Events per batch.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) batch: u32,
    /// Where the services are.
    #[command(flatten)]
    pub(crate) addresses: Addresses,
}

/// Forms of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON object a line.
    Ndjson,
    /// Comma separated values with a header.
    Csv,
    /// Tab separated values with a header.
    Tsv,
    /// Access log with referer and user agent.
    Combined,
    /// Access log.
    Common,
}

/// `truenow query`.
#[derive(Debug, Clone, Args)]
pub(crate) struct QueryArgs {
    /// The question as JSON, as `POST /v1/query` takes it; `@FILE` reads it from a file, `-` or nothing from stdin.
    pub(crate) query: Option<String>,
    /// Ask about the time from so long ago until now: 90s, 15m, 6h, 7d. Fills start_time and end_time.
    #[arg(long, value_name = "DURATION")]
    pub(crate) last: Option<String>,
    /// Print the answer as it came, also on a terminal.
    #[arg(long, conflicts_with = "table")]
    pub(crate) json: bool,
    /// Print the answer as a table, also when stdout is no terminal.
    #[arg(long)]
    pub(crate) table: bool,
    /// Where the services are.
    #[command(flatten)]
    pub(crate) addresses: Addresses,
}

/// `truenow tail`.
#[derive(Debug, Clone, Args)]
pub(crate) struct TailArgs {
    /// Namespace of the table whose watermark is shown.
    #[arg(long, value_name = "N", requires = "table")]
    pub(crate) namespace: Option<String>,
    /// Table whose watermark is shown.
    #[arg(long, value_name = "T", requires = "namespace")]
    pub(crate) table: Option<String>,
    /// Stop after so many lines [default: at Ctrl-C].
    #[arg(long, value_name = "N")]
    pub(crate) lines: Option<u64>,
    /// Where the services are.
    #[command(flatten)]
    pub(crate) addresses: Addresses,
}

const REPLAY_HELP: &str = "\
The log has what the checkpoints still need, and its newest `event_log.retention_bytes_min` in any case; what it let go of
before is not replayed, and is told. Times are event times, half-open: µs since the epoch, or 2026-01-31T12:00:00Z. Events keep their identity (their id, else their batch
and its place, else their place in the log): what was a duplicate is one again, and the same replay once more within
the target's dedup_window_us changes nothing. Create the target first where it is to have partitions, rollups or windows
of its own; else it is created as by its first event.";

/// `truenow replay`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = REPLAY_HELP)]
pub(crate) struct ReplayArgs {
    /// Namespace of the table to read.
    #[arg(long, value_name = "N")]
    pub(crate) namespace: String,
    /// Table to read.
    #[arg(long, value_name = "T")]
    pub(crate) table: String,
    /// Table to send to: TABLE of the same namespace, or NAMESPACE.TABLE.
    #[arg(long, value_name = "TABLE")]
    pub(crate) into: String,
    /// Only events from this time on.
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Only events before this time.
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<String>,
    /// Count the events instead of sending them.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Where the services are.
    #[command(flatten)]
    pub(crate) addresses: Addresses,
}

/// `truenow verify`.
#[derive(Debug, Clone, Args)]
pub(crate) struct VerifyArgs {
    /// Only the tables of this namespace.
    #[arg(long, value_name = "N")]
    pub(crate) namespace: Option<String>,
    /// Only this table of the namespace.
    #[arg(long, value_name = "T", requires = "namespace")]
    pub(crate) table: Option<String>,
    /// Where the services are.
    #[command(flatten)]
    pub(crate) addresses: Addresses,
}

/// `truenow bench`.
#[derive(Debug, Clone, Args)]
pub(crate) struct BenchArgs {
    /// Way in: columnar blocks, a stream of rows, single calls of rows (gRPC), or NDJSON (HTTP).
    #[arg(long, value_enum, default_value_t = Mode::Columns)]
    pub(crate) mode: Mode,
    /// How long to send, s.
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub(crate) seconds: u32,
    /// Connections, each with its own task.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub(crate) connections: u32,
    /// Batches under way per connection.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) window: u32,
    /// Events per batch.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) batch: u32,
    /// Events per second to offer, all connections together; latency then counts from when a batch was due
    /// [default: as fast as acks come].
    #[arg(long, value_name = "R")]
    pub(crate) rate: Option<u64>,
    /// Send each batch when it is due, whatever became of those before, and do not send again what is refused. At most
    /// `--connections` times `--window` batches are under way; what is due beyond that is counted and not sent.
    #[arg(long, requires = "rate")]
    pub(crate) open_loop: bool,
    /// Give each event a 16-byte id of its own.
    #[arg(long)]
    pub(crate) ids: bool,
    /// Percent of events that repeat, id and all, the event at their place `--back` batches before. Times of events then
    /// come from their numbers and not from the clock.
    #[arg(long, value_name = "P", requires_all = ["ids", "back"], value_parser = clap::value_parser!(u8).range(..=100))]
    pub(crate) duplicates: Option<u8>,
    /// How far back duplicates reach, in batches; rounded up to a multiple of the batches that are prepared.
    #[arg(long, value_name = "N", requires = "duplicates", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) back: Option<u64>,
    /// Table to send to, created if it does not exist [default: a new one].
    #[arg(long, value_name = "T")]
    pub(crate) table: Option<String>,
    /// Number of the first batch: where an earlier run on the same table ended, its `batches`.
    #[arg(long, value_name = "N", requires = "table", default_value_t = 0)]
    pub(crate) first: u64,
    /// Start a server of its own, on free ports and a directory that is removed afterwards.
    #[arg(long)]
    pub(crate) serve: bool,
    /// Where the directory of `--serve` is made [default: the system's directory for temporary files].
    #[arg(long, value_name = "DIR", requires = "serve")]
    pub(crate) serve_dir: Option<PathBuf>,
    /// Threads of the load generator.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) threads: u32,
    /// Print the report as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Where the services are.
    #[command(flatten)]
    pub(crate) addresses: Addresses,
}

/// Ways in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// `IngestColumns`.
    Columns,
    /// `IngestStream`.
    Rows,
    /// `POST /v1/events` with NDJSON.
    Ndjson,
    /// `IngestBatch`.
    Unary,
}

impl Mode {
    /// Its name on the command line and in reports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Columns => "columns",
            Self::Rows => "rows",
            Self::Ndjson => "ndjson",
            Self::Unary => "unary",
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    /// Goal: the command line is free of contradictions.
    #[test]
    fn command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
