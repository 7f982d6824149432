//! What came of an ingest: accepted, rejected with lines and reasons, rate. Progress while it runs.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{WINDOW, send_lines::Sent};
use crate::{outcome::note, table_text::thousands};

/// So many rejected events are shown with line and reason.
const SHOWN_MAX: usize = 10;
/// Where stderr is no terminal, a line about progress comes this often.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// An event that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rejected {
    /// Its line in the file.
    line: u64,
    /// Why.
    why: String,
}

/// Counts of one ingest.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Events appended.
    pub(crate) accepted: u64,
    /// Events refused, here or by the server.
    pub(crate) rejected: u64,
    /// Bytes of the file.
    pub(crate) bytes: u64,
    /// The durability that the server named last.
    pub(crate) durability: String,
    /// What a query presents, all of it, to see all of this; the newest last.
    pub(crate) tokens: Vec<String>,
    first: Vec<Rejected>,
    reasons: BTreeMap<String, u64>,
}

impl Tally {
    /// Counts what came of a batch.
    pub(crate) fn count(&mut self, sent: Sent) {
        self.accepted += sent.accepted;
        if !sent.durability.is_empty() {
            self.durability = sent.durability;
        }
        self.keep_token(sent.token);
        sent.rejected.into_iter().for_each(|(line, why)| self.reject(line, why));
    }

    /// Keeps the tokens of the last [`WINDOW`] replies. A token covers what its gateway had acked for the table before it.
    /// Of so many replies after another one, at least one is to a batch that was sent when that one was acked already: its
    /// token covers both.
    fn keep_token(&mut self, token: Option<String>) {
        let Some(token) = token else { return };
        self.tokens.push(token);
        if self.tokens.len() > WINDOW {
            self.tokens.remove(0);
        }
    }

    /// Counts an event that was not taken.
    pub(crate) fn reject(&mut self, line: u64, why: String) {
        self.rejected += 1;
        // Reasons are counted without their quoted values, so that a million bad numbers are one line.
        *self.reasons.entry(without_quoted(&why)).or_default() += 1;
        self.first.push(Rejected { line, why });
        self.first.sort_by_key(|rejected| rejected.line);
        self.first.truncate(SHOWN_MAX);
    }

    /// The summary, line by line.
    pub(crate) fn lines(&self, took: Duration) -> Vec<String> {
        let seconds = took.as_secs_f64().max(1e-6);
        let rate = (self.accepted as f64 / seconds) as u64;
        let mut lines = vec![format!(
            "accepted {} events ({}) in {seconds:.2} s: {} events/s, {:.1} MB/s read; rejected {}",
            thousands(self.accepted),
            if self.durability.is_empty() { "none sent" } else { &self.durability },
            thousands(rate),
            self.bytes as f64 / seconds / 1e6,
            thousands(self.rejected),
        )];
        for rejected in &self.first {
            lines.push(format!("  line {}: {}", rejected.line, rejected.why));
        }
        if self.rejected > self.first.len() as u64 {
            lines.push(format!("  … {} more; by reason:", thousands(self.rejected - self.first.len() as u64)));
            let mut reasons: Vec<_> = self.reasons.iter().collect();
            reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            for (reason, count) in reasons.into_iter().take(SHOWN_MAX) {
                lines.push(format!("  {} × {reason}", thousands(*count)));
            }
        }
        lines
    }
}

fn without_quoted(text: &str) -> String {
    let mut quoted = false;
    text.chars()
        .filter_map(|c| match (c, quoted) {
            ('"', _) => {
                quoted = !quoted;
                quoted.then_some('…')
            }
            (_, true) => None,
            (c, false) => Some(c),
        })
        .collect()
}

/// Shows how far an ingest is: a bar on a terminal, else a line now and then.
pub(crate) struct Progress {
    bar: ProgressBar,
    read: Arc<AtomicU64>,
    size: Option<u64>,
    /// What there is so much of, for lines.
    of: &'static str,
    began: Instant,
    shown: Instant,
}

impl Progress {
    /// Progress through a source of `size` bytes, of which `read` counts those read.
    pub(crate) fn new(size: Option<u64>, read: Arc<AtomicU64>, now: Instant) -> Self {
        let template = match size {
            Some(_) => "{wide_bar} {percent}% {bytes_per_sec} {msg} eta {eta}",
            None => "{spinner} {bytes} {msg}",
        };
        Self::with_template(template, size, "the file", read, now)
    }

    /// Progress through so many records of the log, of which `read` counts those read.
    pub(crate) fn of_records(records: u64, read: Arc<AtomicU64>, now: Instant) -> Self {
        Self::with_template("{wide_bar} {percent}% {msg} eta {eta}", Some(records), "the log", read, now)
    }

    fn with_template(template: &str, size: Option<u64>, of: &'static str, read: Arc<AtomicU64>, now: Instant) -> Self {
        let bar = size.map_or_else(ProgressBar::no_length, ProgressBar::new);
        bar.set_draw_target(ProgressDrawTarget::stderr());
        bar.set_style(ProgressStyle::with_template(template).expect("the templates above are well formed"));
        Self { bar, read, size, of, began: now, shown: now }
    }

    /// Shows the state, if it is time to.
    pub(crate) fn show(&mut self, accepted: u64, now: Instant) {
        let read = self.read.load(Relaxed);
        let seconds = now.duration_since(self.began).as_secs_f64().max(1e-6);
        let rate = thousands((accepted as f64 / seconds) as u64);
        if !self.bar.is_hidden() {
            self.bar.set_message(format!("{} events, {rate}/s", thousands(accepted)));
            self.bar.set_position(read);
        } else if now.duration_since(self.shown) >= LINE_EVERY {
            self.shown = now;
            let part =
                self.size.map_or(String::new(), |size| format!("{}% of {}, ", read * 100 / size.max(1), self.of));
            note(&format!("{part}{} events accepted, {rate}/s", thousands(accepted)));
        }
    }

    /// Clears the bar, so that the summary stands alone.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the tokens of as many replies are kept as batches were under way; a reply without one drives out none.
    #[test]
    fn tokens_of_a_window_are_kept() {
        let mut tally = Tally::default();
        for n in 0..10 {
            tally.count(Sent { token: Some(n.to_string()), ..Sent::default() });
            tally.count(Sent::default());
        }
        assert_eq!(tally.tokens, ["6", "7", "8", "9"]);
    }

    /// Goal: the first rejects by line are shown whichever came first, the rest are counted by reason.
    #[test]
    fn rejects_are_summed_up() {
        let mut tally =
            Tally { accepted: 1_500, bytes: 3_000_000, durability: "synced".to_owned(), ..Tally::default() };
        for line in (1..=30).rev() {
            tally.reject(line, format!("q: \"x{line}\" is no number"));
        }
        let lines = tally.lines(Duration::from_secs(1));
        assert_eq!(lines[0], "accepted 1,500 events (synced) in 1.00 s: 1,500 events/s, 3.0 MB/s read; rejected 30");
        assert_eq!(lines[1], "  line 1: q: \"x1\" is no number");
        assert_eq!(lines[10], "  line 10: q: \"x10\" is no number");
        assert_eq!(lines[11], "  … 20 more; by reason:");
        assert_eq!(lines[12], "  30 × q: … is no number");
    }
}
