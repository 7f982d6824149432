//! The queries: as they are asked, what peers call them, and what is true of them.

use serde_json::{Value, json};

use crate::{
    load::{NAMESPACE, TABLE, Workload},
    oracle::{self, Expected},
};

/// When the workload begins, µs.
pub(crate) const BEGIN: i64 = 1_760_000_000_000_000;
const SECOND: i64 = 1_000_000;

/// A query.
pub(crate) struct Query {
    pub(crate) name: &'static str,
    /// What a peer's runner calls the like: whichever is the fastest counts.
    pub(crate) peers: &'static [&'static str],
    /// The body of `POST /v1/query`.
    pub(crate) question: Value,
    /// The rows of its answer.
    pub(crate) exact: fn(&Workload) -> Vec<Expected>,
}

/// All of them.
pub(crate) fn all() -> Vec<Query> {
    let mut all = counts();
    all.extend(groups());
    all.extend(sketches());
    all
}

/// A question over the seconds `from..to` of the workload, with the fields of `more`.
fn ask(from: i64, to: i64, more: &Value) -> Value {
    let mut question = json!({
        "namespace": NAMESPACE, "table": TABLE, "limit": 1_000_000,
        "start_time": BEGIN + from * SECOND, "end_time": BEGIN + to * SECOND,
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        question[name] = value.clone();
    }
    question
}

/// Over all of it.
fn whole(more: &Value) -> Value {
    ask(0, 3_600, more)
}

fn counts() -> Vec<Query> {
    vec![
        Query {
            name: "Q1",
            peers: &["Q1"],
            question: ask(240, 300, &json!({})),
            exact: |data| oracle::count(data, |row| (240..300).contains(&oracle::second(data, row))),
        },
        Query {
            name: "Q8",
            peers: &["Q8"],
            question: whole(&json!({"filters": {"user_id": "user_0012345"}})),
            exact: |data| oracle::count(data, |row| data.users[row] == 12_345),
        },
        Query {
            name: "Q10",
            peers: &["Q10"],
            question: ask(595, 3_600, &json!({"group_by": ["tenant_name"]})),
            exact: |data| {
                oracle::counts(data, 256, |row| {
                    (oracle::second(data, row) >= 595).then_some(usize::from(data.tenants[row]))
                })
                .into_iter()
                .map(|(tenant, count)| Expected::count(&[&format!("tenant_{tenant:03}")], count))
                .collect()
            },
        },
    ]
}

fn groups() -> Vec<Query> {
    let sum = json!({"fn": "sum", "metric": "revenue"});
    vec![
        Query {
            name: "Q2",
            peers: &["Q2"],
            question: whole(&json!({"aggregates": [sum], "group_by": ["region"]})),
            exact: oracle::revenue_by_region,
        },
        Query {
            name: "Q3",
            peers: &["Q3"],
            question: whole(&json!({
                "aggregates": [sum], "group_by": ["product"], "limit": 10,
                "filters": {"region": "eu-west", "event_type": "click"},
                "order_by": [{"column": "sum_revenue", "desc": true}],
            })),
            exact: oracle::top_products,
        },
        Query {
            name: "Q6",
            peers: &["Q6"],
            question: whole(&json!({"aggregates": [{"fn": "count"}, sum], "interval_us": SECOND})),
            exact: oracle::per_second,
        },
        Query {
            name: "Q9",
            peers: &["Q9"],
            question: whole(&json!({"aggregates": [sum], "group_by": ["region", "event_type", "product"]})),
            exact: oracle::revenue_of_all,
        },
        Query {
            name: "Q7 by group",
            peers: &["Q7", "Q7t"],
            question: whole(&json!({
                "aggregates": [{"fn": "count"}], "group_by": ["user_id"], "limit": 20,
                "order_by": [{"column": "count", "desc": true}],
            })),
            exact: oracle::top_users,
        },
    ]
}

fn sketches() -> Vec<Query> {
    let percentiles = |method: &str| {
        let of = |q: &str| json!({"fn": q, "metric": "latency_ms", "method": method});
        whole(&json!({"aggregates": [of("p50"), of("p95"), of("p99")], "group_by": ["region"]}))
    };
    vec![
        Query {
            name: "Q4",
            peers: &["Q4a", "Q4r"],
            question: percentiles("sketch"),
            exact: |data| oracle::percentiles(data, 1.0 / 129.0),
        },
        Query {
            name: "Q4 exact",
            peers: &["Q4e"],
            question: percentiles("exact"),
            exact: |data| oracle::percentiles(data, 0.0),
        },
        Query {
            name: "Q5",
            peers: &["Q5a", "Q5u"],
            question: whole(&json!({
                "aggregates": [{"fn": "distinct", "dimension": "user_id"}], "group_by": ["event_type"],
            })),
            exact: oracle::distinct_users,
        },
        Query {
            name: "Q7",
            peers: &["Q7", "Q7t"],
            question: whole(&json!({"aggregates": [{"fn": "top", "dimension": "user_id", "k": 20}]})),
            exact: oracle::top_users,
        },
    ]
}
