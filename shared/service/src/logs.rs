//! Log lines: one JSON object each, with level, service, request id and tenant at its top. Texts of clients appear in
//! them only as JSON strings, so that none can forge a line.

use std::{fmt, io, panic};

use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span::Record,
};
use tracing_subscriber::{
    field::RecordFields,
    filter::Targets,
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For reading at a terminal.
    Text,
}

/// Somebody else has installed a subscriber for logs in this process.
#[derive(Debug, thiserror::Error)]
#[error("logs are set up already")]
pub struct LogsError;

/// Libraries whose own debug lines say nothing about TrueNow.
const QUIET: [&str; 5] = ["h2", "hyper", "hyper_util", "tonic", "sqlx"];

/// Sends logs of at least `level` to standard error, and panics of every thread along with them.
///
/// # Errors
/// Logs are set up already.
pub fn init_logs(format: LogFormat, level: LevelFilter) -> Result<(), LogsError> {
    let quiet = QUIET.map(|library| (library, level.min(LevelFilter::WARN)));
    let filter = Targets::new().with_default(level).with_targets(quiet);
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    match format {
        LogFormat::Json => registry.with(layer.fmt_fields(Members).event_format(JsonLine)).try_init(),
        LogFormat::Text => registry.with(layer).try_init(),
    }
    .map_err(|_| LogsError)?;
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("without a message");
        let thread = std::thread::current().name().map(str::to_owned);
        tracing::error!(place, thread, panic = message, "a thread panicked");
    }));
    Ok(())
}

/// One flat JSON object per event: the fields of the spans around it, from the outside in, then its own.
struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Map::new();
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            if let Some(fields) = extensions.get::<FormattedFields<N>>()
                && let Ok(Value::Object(fields)) = serde_json::from_str(&object_of(&fields.fields))
            {
                line.extend(fields);
            }
        }
        event.record(&mut Fields(&mut line));
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        // Last, so that no field of an event can stand in for them.
        line.insert("time".into(), time.into());
        line.insert("level".into(), event.metadata().level().as_str().into());
        line.insert("target".into(), event.metadata().target().into());
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// Fields of a span as members of a JSON object, each with a comma behind it: every request has a span, few have a line, so what
/// is kept of a span is written once and read only where a line is.
struct Members;

impl<'w> FormatFields<'w> for Members {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut members = MemberWriter { writer, written: Ok(()) };
        fields.record(&mut members);
        members.written
    }

    fn add_fields(&self, current: &'w mut FormattedFields<Self>, fields: &Record<'_>) -> fmt::Result {
        self.format_fields(current.as_writer(), fields)
    }
}

/// The object of these members. Of several with one name the last counts.
fn object_of(members: &str) -> String {
    format!("{{{}}}", members.strip_suffix(',').unwrap_or(members))
}

struct MemberWriter<'w> {
    writer: Writer<'w>,
    written: fmt::Result,
}

impl MemberWriter<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        let value = value.into();
        self.written = self.written.and_then(|()| write!(self.writer, "\"{}\":{value},", field.name()));
    }
}

impl Visit for MemberWriter<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().into(), value.into());
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        self.insert(field, text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Goal: a line is one flat JSON object with the fields of its spans, and no text can break or forge one.
    #[test]
    fn a_line_is_one_flat_object() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer().fmt_fields(Members).event_format(JsonLine);
        let subscriber = tracing_subscriber::registry().with(layer.with_writer(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let empty = tracing::field::Empty;
            let span =
                tracing::info_span!("request", service = "gate\"way\n", share = 0.5, open = true, tenant = empty);
            span.record("tenant", 7_u64);
            span.in_scope(|| tracing::warn!(table = "a\"}\n{\"level\":\"FORGED", level = "FORGED", "slow"));
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1);
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "WARN");
        assert_eq!(
            (&line["service"], &line["share"], &line["open"]),
            (&"gate\"way\n".into(), &0.5.into(), &true.into())
        );
        assert_eq!(line["tenant"], 7);
        assert_eq!(line["table"], "a\"}\n{\"level\":\"FORGED");
        assert_eq!(line["message"], "slow");
    }
}
