//! The panels, and what clients saw of their answers.

use std::time::Duration;

use serde_json::{Value, json};

use crate::load::{HOUR_US, NAMESPACE, TABLE};

const SECOND_US: i64 = 1_000_000;
const MINUTE_US: i64 = 60 * SECOND_US;

/// A panel of the dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Panel {
    /// The last 15 minutes to the microsecond: no two questions are equal.
    Sliding,
    /// The last 15 minutes to the second: equal for all who ask within one, and rows of its end still come.
    SlidingBySecond,
    /// A part of the hour that is over.
    Fixed,
    /// From the beginning until whatever comes: one question whose rows become more.
    Open,
}

impl Panel {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Sliding, Self::SlidingBySecond, Self::Fixed, Self::Open];

    fn name(self) -> &'static str {
        match self {
            Self::Sliding => "last 15 min, to the µs",
            Self::SlidingBySecond => "last 15 min, to the second",
            Self::Fixed => "fixed 40 min",
            Self::Open => "all so far",
        }
    }

    /// What it asks at a time of a table whose rows begin at `begin`.
    pub(crate) fn question(self, begin: i64, now: i64) -> Value {
        let sums = json!([{"fn": "count"}, {"fn": "sum", "metric": "revenue"}, {"fn": "avg", "metric": "latency_ms"}]);
        let (start, end, more) = match self {
            Self::Sliding => (now - 15 * MINUTE_US, now, json!({"aggregates": sums, "group_by": ["region"]})),
            Self::SlidingBySecond => {
                let now = now - now % SECOND_US;
                let percentile = json!([{"fn": "p99", "metric": "latency_ms", "method": "sketch"}]);
                (now - 15 * MINUTE_US, now, json!({"aggregates": percentile, "group_by": ["region"]}))
            }
            Self::Fixed => {
                let of_region = json!({"aggregates": sums, "group_by": ["product"], "filters": {"region": "region_3"},
                    "order_by": [{"column": "sum_revenue", "desc": true}], "limit": 10});
                (begin + 5 * MINUTE_US, begin + 45 * MINUTE_US, of_region)
            }
            Self::Open => (begin, begin + 2 * HOUR_US, json!({"aggregates": sums, "interval_us": MINUTE_US})),
        };
        let mut question = json!({"namespace": NAMESPACE, "table": TABLE, "start_time": start, "end_time": end});
        for (name, value) in more.as_object().into_iter().flatten() {
            question[name] = value.clone();
        }
        question
    }
}

/// What was seen of the panels, in their order.
#[derive(Debug, Default)]
pub(crate) struct Seen([OfPanel; 4]);

#[derive(Debug, Default)]
struct OfPanel {
    times: Vec<Duration>,
    whole: usize,
    segments_kept: u64,
    segments: u64,
}

impl Seen {
    /// An answer came after so long.
    pub(crate) fn note(&mut self, panel: Panel, took: Duration, answer: &Value) {
        let of_panel = &mut self.0[panel as usize];
        let stats = &answer["stats"];
        let number = |name: &str| stats[name].as_u64().unwrap_or_default();
        of_panel.times.push(took);
        of_panel.whole += usize::from(stats["cached"] == true);
        of_panel.segments_kept += number("segments_cached");
        of_panel.segments += number("segments") + number("segments_cached");
    }

    /// What another client saw is added.
    pub(crate) fn add(&mut self, other: Self) {
        for (all, more) in self.0.iter_mut().zip(other.0) {
            all.times.extend(more.times);
            all.whole += more.whole;
            all.segments_kept += more.segments_kept;
            all.segments += more.segments;
        }
    }

    /// All questions.
    pub(crate) fn asked(&self) -> usize {
        self.0.iter().map(|of_panel| of_panel.times.len()).sum()
    }

    /// A panel's row of the table.
    pub(crate) fn row(&self, panel: Panel) -> String {
        let OfPanel { times, whole, segments_kept, segments } = &self.0[panel as usize];
        let mut times = times.clone();
        times.sort_unstable();
        let ms = |share: f64| {
            let at = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
            times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
        };
        let percent = |part: f64, of: f64| 100.0 * part / of.max(1.0);
        format!(
            "{} | {} | {:.2} | {:.2} | {:.0} % | {:.0} % |",
            panel.name(),
            times.len(),
            ms(0.5),
            ms(0.9),
            percent(*whole as f64, times.len() as f64),
            percent(*segments_kept as f64, *segments as f64),
        )
    }
}
