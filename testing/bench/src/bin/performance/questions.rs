//! Questions: ten fixed ones, and any number of random ones of the same and other shapes.

use serde_json::{Value, json};

use std::sync::LazyLock;

use bench::workload::{Random, Workload};

use crate::fill::{NAMESPACE, SECOND_US, SPAN_US, TABLE};

static WORKLOAD: LazyLock<Workload> = LazyLock::new(Workload::default);

/// A question over `from..to`, with the fields of `more`.
fn ask((from, to): (i64, i64), more: &Value) -> Value {
    let mut question = json!({"namespace": NAMESPACE, "table": TABLE, "start_time": from, "end_time": to});
    for (name, value) in more.as_object().into_iter().flatten() {
        question[name] = value.clone();
    }
    question
}

/// The ten questions of `queries`, over rows that begin at `begin`.
pub(crate) fn ten(begin: i64) -> Vec<(&'static str, Value)> {
    let whole = (begin, begin + SPAN_US);
    let sum = json!({"fn": "sum", "metric": "revenue"});
    let percentile = |q: &str| json!({"fn": q, "metric": "latency_ms", "method": "sketch"});
    let minute = (begin + 240 * SECOND_US, begin + 300 * SECOND_US);
    vec![
        ("Q1", ask(minute, &json!({}))),
        ("Q2", ask(whole, &json!({"aggregates": [sum], "group_by": ["region"]}))),
        (
            "Q3",
            ask(
                whole,
                &json!({"aggregates": [sum], "group_by": ["product"], "limit": 10,
                "filters": {"region": "region_2", "event_type": "event_type_1"},
                "order_by": [{"column": "sum_revenue", "desc": true}]}),
            ),
        ),
        (
            "Q4",
            ask(
                whole,
                &json!({"aggregates": [percentile("p50"), percentile("p95"), percentile("p99")], "group_by": ["region"]}),
            ),
        ),
        (
            "Q5",
            ask(
                whole,
                &json!({"aggregates": [{"fn": "distinct", "dimension": "user_id"}], "group_by": ["event_type"]}),
            ),
        ),
        ("Q6", ask(whole, &json!({"aggregates": [{"fn": "count"}, sum], "interval_us": SECOND_US}))),
        ("Q7", ask(whole, &json!({"aggregates": [{"fn": "top", "dimension": "user_id", "k": 20}]}))),
        ("Q8", ask(whole, &json!({"filters": {"user_id": "user_id_12345"}}))),
        (
            "Q9",
            ask(
                whole,
                &json!({"aggregates": [sum], "group_by": ["region", "event_type", "product"], "limit": 1_000_000}),
            ),
        ),
        ("Q10", ask((whole.1 - 5 * SECOND_US, whole.1), &json!({"group_by": ["tenant"]}))),
    ]
}

/// Counts, sums and a percentile by region of `from..to`: what is held against the same of other rows.
pub(crate) fn window(from: i64, to: i64) -> Value {
    let sums = json!([{"fn": "count"}, {"fn": "sum", "metric": "revenue"}, {"fn": "avg", "metric": "latency_ms"}]);
    ask((from, to), &json!({"aggregates": sums, "group_by": ["region"]}))
}

/// Shapes of random questions, as often as they stand here.
pub(crate) const SHAPES: [&str; 10] = [
    "count of a range",
    "count of a range",
    "sums by region and type",
    "sums of a tenant by second",
    "top products of a region",
    "percentiles by type",
    "distinct users by region",
    "one user",
    "last seconds by tenant",
    "top users of a product",
];

/// A random question over rows that begin at `begin`, and the place of its shape in [`SHAPES`]. Ranges begin and end at any
/// microsecond, so that hardly two are equal.
pub(crate) fn random(random: &mut Random, begin: i64) -> (usize, Value) {
    let shape = random.below(SHAPES.len() as u64) as usize;
    // From a second to all: as many short ones as long ones.
    let length = (SECOND_US as f64 * (SPAN_US as f64 / SECOND_US as f64).powf(random.unit())) as i64;
    let from = begin + random.below((SPAN_US - length).unsigned_abs() + 1) as i64;
    let metric = ["revenue", "latency_ms", "quantity"][random.below(3) as usize];
    // What is asked about often is what comes often.
    let value = |random: &mut Random, name: &str, at: usize| format!("{name}_{}", WORKLOAD.dimensions[at].draw(random));
    let more = match SHAPES[shape] {
        "sums by region and type" => {
            json!({"aggregates": [{"fn": "sum", "metric": metric}], "group_by": ["region", "event_type"]})
        }
        "sums of a tenant by second" => json!({
            "aggregates": [{"fn": "count"}, {"fn": "sum", "metric": metric}], "interval_us": SECOND_US,
            "filters": {"tenant": value(random, "tenant", 4)}}),
        "top products of a region" => json!({
            "aggregates": [{"fn": "sum", "metric": "revenue"}], "group_by": ["product"], "limit": 10,
            "filters": {"region": value(random, "region", 0)},
            "order_by": [{"column": "sum_revenue", "desc": true}]}),
        "percentiles by type" => json!({
            "aggregates": [{"fn": "p50", "metric": metric, "method": "sketch"}, {"fn": "p99", "metric": metric, "method": "sketch"}],
            "group_by": ["event_type"]}),
        "distinct users by region" => json!({
            "aggregates": [{"fn": "distinct", "dimension": "user_id"}], "group_by": ["region"],
            "filters": {"event_type": value(random, "event_type", 1)}}),
        "one user" => json!({"filters": {"user_id": value(random, "user_id", 3)}}),
        "last seconds by tenant" => {
            let end = begin + SPAN_US - random.below(1_000_000) as i64;
            return (shape, ask((end - 5 * SECOND_US, end), &json!({"group_by": ["tenant"]})));
        }
        "top users of a product" => json!({
            "aggregates": [{"fn": "top", "dimension": "user_id", "k": 10}],
            "filters": {"product": value(random, "product", 2)}}),
        _ => json!({}),
    };
    (shape, ask((from, from + length), &more))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: random questions are the same for the same seed, of all shapes, within the rows, and hardly ever equal.
    #[test]
    fn questions_are_random_and_repeatable() {
        let begin = 1_000_000_000_000;
        let (mut first, mut second) = (Random(7), Random(7));
        let mut seen = std::collections::HashSet::new();
        let mut shapes = [0; SHAPES.len()];
        for _ in 0..1_000 {
            let (shape, question) = random(&mut first, begin);
            assert_eq!((shape, question.clone()), random(&mut second, begin));
            let at = |name: &str| question[name].as_i64().unwrap();
            assert!(
                begin <= at("start_time") && at("start_time") < at("end_time") && at("end_time") <= begin + SPAN_US
            );
            seen.insert(question.to_string());
            shapes[shape] += 1;
        }
        assert!(seen.len() > 990 && shapes.iter().all(|&count| count > 50), "{} {shapes:?}", seen.len());
    }
}
