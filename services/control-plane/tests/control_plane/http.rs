//! The contract of `/v1/tables` and `/v1/cluster` on a started service.

use std::{net::SocketAddr, sync::Arc, sync::atomic::Ordering::SeqCst, time::Duration};

use crate::support::{Bench, FakeHotTier, LOG_PARTITIONS, request, settings};
use control_plane::{Config, Deps};
use serde_json::{Value, json};
use service::{Authenticator, Host, HttpLimits, Metrics, Running};

struct Server {
    running: Running,
    hot_tier: Arc<FakeHotTier>,
    bench: Bench,
}

impl Server {
    async fn start() -> Self {
        let bench = Bench::new(settings()).await;
        let hot_tier = Arc::new(FakeHotTier::default());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let host =
            Host { limits: HttpLimits::default(), authenticator: Authenticator::Open, metrics: Metrics::install() };
        let config = Config { http: any, grpc: any, body_timeout: Duration::from_secs(5) };
        let deps = Deps { control_plane: bench.plane.clone(), hot_tier: hot_tier.clone() };
        let running = control_plane::start(&host, &config, deps).await.unwrap();
        Self { running, hot_tier, bench }
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        request(self.running.http_address(), method, path, &body).await
    }

    /// The code and field of the error that a creation from this body gets.
    async fn refused(&self, body: &Value) -> (u16, String, Value) {
        let (status, answer) = self.ask("POST", "/v1/tables", body).await;
        let error = &answer["error"];
        (status, error["code"].as_str().unwrap_or_default().to_owned(), error["field"].clone())
    }
}

/// Goal: the example of the contract is taken, comes back in full with what is added to it, and is listed.
#[tokio::test]
async fn the_example_of_the_contract() {
    let server = Server::start().await;
    let body = json!({"namespace":"shop","table":"events","partitions":4,"partition_by":"user_id",
        "dimensions":["region","event_type","product","user_id"],
        "metrics":["revenue","latency_ms","quantity"],
        "hot_window_us":3_600_000_000_i64, "max_age_us":null, "max_future_us":60_000_000, "dedup_window_us":600_000_000,
        "rollups":[{"interval_us":1_000_000,"group_by":["region","event_type"],"distinct":["user_id"],
                    "percentiles":["latency_ms"],"top":["product"],"keep_us":604_800_000_000_i64}]});
    let (status, created) = server.ask("POST", "/v1/tables", &body).await;
    assert_eq!(status, 201, "{created}");
    for (field, value) in body.as_object().unwrap() {
        assert_eq!(&created[field], value, "{field}");
    }
    assert_eq!((&created["generation"], &created["schema_version"]), (&json!(1), &json!(1)));
    assert!(created["partition_seed"].as_u64().unwrap() < 1 << 53);
    assert_eq!(created["partition_ids"].as_array().unwrap().len(), 4);
    assert_eq!(created["lateness_us"], json!(0));
    assert_eq!(server.ask("GET", "/v1/tables/shop/events", &Value::Null).await, (200, created.clone()));
    assert_eq!(server.ask("GET", "/v1/tables", &Value::Null).await, (200, json!({"tables":[created]})));
    let (status, again) = server.ask("POST", "/v1/tables", &body).await;
    assert_eq!((status, &again["error"]["code"]), (409, &json!("ALREADY_EXISTS")));
}

/// Goal: namespace and table suffice; all else has the contract's defaults, and columns of rollups appear.
#[tokio::test]
async fn only_names_are_required() {
    let server = Server::start().await;
    let (status, table) = server.ask("POST", "/v1/tables", &json!({"namespace":"größe","table":"a"})).await;
    assert_eq!(status, 201);
    let expected = [
        ("partitions", json!(LOG_PARTITIONS)),
        ("partition_by", Value::Null),
        ("dimensions", json!([])),
        ("metrics", json!([])),
        ("hot_window_us", Value::Null),
        ("max_age_us", Value::Null),
        ("max_future_us", json!(60_000_000)),
        ("dedup_window_us", json!(600_000_000)),
        ("rollups", json!([])),
    ];
    for (field, value) in expected {
        assert_eq!(table[field], value, "{field}");
    }
    let (status, _) = server.ask("GET", "/v1/tables/gr%C3%B6%C3%9Fe/a", &Value::Null).await;
    assert_eq!(status, 200);
    let rollup = json!({"interval_us":1,"group_by":["r"],"percentiles":["m"]});
    let body = json!({"namespace":"n","table":"b","partition_by":"k","rollups":[rollup]});
    let (_, table) = server.ask("POST", "/v1/tables", &body).await;
    assert_eq!((&table["dimensions"], &table["metrics"]), (&json!(["k", "r"]), &json!(["m"])));
    let full = json!([{"interval_us":1,"group_by":["r"],"distinct":[],"percentiles":["m"],"top":[],"keep_us":null}]);
    assert_eq!(table["rollups"], full);
}

/// Goal: what is wrong is refused by the innermost name at fault, and creates nothing.
#[tokio::test]
async fn wrong_bodies_are_refused_by_name() {
    let server = Server::start().await;
    let cases = [
        (json!({"table":"t"}), "namespace"),
        (json!({"namespace":"n"}), "table"),
        (json!({"namespace":"n","table":7}), "table"),
        (json!({"namespace":"n","table":"a b"}), "table"),
        (json!({"namespace":"n","table":"t","colour":1}), "colour"),
        (json!({"namespace":"n","table":"t","partitions":9}), "partitions"),
        (json!({"namespace":"n","table":"t","partitions":0}), "partitions"),
        (json!({"namespace":"n","table":"t","partitions":-1}), "partitions"),
        (json!({"namespace":"n","table":"t","partitions":1.5}), "partitions"),
        (json!({"namespace":"n","table":"t","metrics":"a"}), "metrics"),
        (json!({"namespace":"n","table":"t","metrics":[1]}), "metrics"),
        (json!({"namespace":"n","table":"t","metrics":["a"],"dimensions":["a"]}), "a"),
        (json!({"namespace":"n","table":"t","metrics":["a\u{0}"]}), "a\u{0}"),
        (json!({"namespace":"n","table":"t","max_future_us":null}), "max_future_us"),
        (json!({"namespace":"n","table":"t","hot_window_us":0}), "hot_window_us"),
        (json!({"namespace":"n","table":"t","rollups":[{"group_by":[]}]}), "interval_us"),
        (json!({"namespace":"n","table":"t","rollups":[{"interval_us":1,"by":[]}]}), "by"),
        (json!({"namespace":"n","table":"t","rollups":[7]}), "rollups"),
        (json!({"namespace":"n","table":"t","json_schema":"{}"}), "json_schema"),
        (json!({"namespace":"n","table":"t","json_schema":true}), "json_schema"),
        (json!({"namespace":"n","table":"t","json_schema":{"type":"text"}}), "json_schema"),
        (json!({"namespace":"n","table":"t","json_schema":{"description":"x".repeat(65_536)}}), "json_schema"),
    ];
    for (body, field) in cases {
        assert_eq!(server.refused(&body).await, (400, "INVALID_ARGUMENT".into(), json!(field)), "{body}");
    }
    let twice = r#"{"namespace":"n","table":"t","table":"u"}"#;
    let (status, answer) = request(server.running.http_address(), "POST", "/v1/tables", twice).await;
    assert_eq!((status, &answer["error"]["field"]), (400, &json!("table")));
    for broken in ["", "[]", "{", "{\"namespace\":\"\\ud800\"}", &"[".repeat(100_000)] {
        let (status, answer) = request(server.running.http_address(), "POST", "/v1/tables", broken).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!("INVALID_ARGUMENT")));
    }
    assert_eq!(server.ask("GET", "/v1/tables", &Value::Null).await, (200, json!({"tables":[]})));
}

/// Goal: a change adds columns and changes settings, null included; what never changes is refused by name, but may be sent back
/// as it was read; an old version is noticed.
#[tokio::test]
async fn patches() {
    let server = Server::start().await;
    let create = json!({"namespace":"n","table":"t","hot_window_us":5,"dimensions":["a"]});
    let (_, read) = server.ask("POST", "/v1/tables", &create).await;
    let path = "/v1/tables/n/t";
    let patch = json!({"metrics":["m"],"hot_window_us":null,"lateness_us":3,"rollups":[{"interval_us":9,"top":["b"]}]});
    let (status, changed) = server.ask("PATCH", path, &patch).await;
    assert_eq!(status, 200, "{changed}");
    assert_eq!((&changed["schema_version"], &changed["hot_window_us"]), (&json!(2), &Value::Null));
    assert_eq!((&changed["dimensions"], &changed["metrics"]), (&json!(["a", "b"]), &json!(["m"])));
    assert_eq!((&changed["lateness_us"], &changed["rollups"][0]["top"]), (&json!(3), &json!(["b"])));
    assert_eq!(server.ask("PATCH", path, &changed).await, (200, changed.clone()), "sent back as it is");
    for (field, value) in [
        ("partitions", json!(1)),
        ("partition_by", json!("a")),
        ("namespace", json!("m")),
        ("partition_seed", json!(1)),
        ("schema_version", read["schema_version"].clone()),
    ] {
        let (status, answer) = server.ask("PATCH", path, &json!({ field: value })).await;
        let error = &answer["error"];
        assert_eq!((status, &error["code"], &error["field"]), (409, &json!("FAILED_PRECONDITION"), &json!(field)));
    }
    for (body, field) in [(json!({"colour":1}), "colour"), (json!({"metrics":["a"]}), "a")] {
        let (status, answer) = server.ask("PATCH", path, &body).await;
        assert_eq!((status, &answer["error"]["field"]), (400, &json!(field)));
    }
    assert_eq!(server.ask("PATCH", "/v1/tables/n/u", &json!({})).await.0, 404);
}

/// Goal: a table's JSON Schema is shown as it was given, changed and taken away by a patch, and one that cannot be is refused
/// with the reason and leaves the table as it was.
#[tokio::test]
async fn json_schemas() {
    let server = Server::start().await;
    let path = "/v1/tables/n/t";
    let schema = json!({"required":["event_id"],"properties":{"metrics":{"properties":{"m":{"minimum":0.5}}}}});
    let create = json!({"namespace":"n","table":"t","json_schema":schema});
    let (status, created) = server.ask("POST", "/v1/tables", &create).await;
    assert_eq!((status, &created["json_schema"]), (201, &schema), "{created}");
    assert_eq!(server.ask("PATCH", path, &created).await, (200, created.clone()), "sent back as it is");
    for (wrong, why) in [
        (json!({"type":"text"}), "json_schema at /type: "),
        (json!({"$ref":"https://example.com/x"}), "references are JSON pointers"),
        (json!({"properties":{"a":{"$ref":"#"}}}), "refers to itself"),
    ] {
        let (status, answer) = server.ask("PATCH", path, &json!({ "json_schema": wrong })).await;
        let error = &answer["error"];
        assert_eq!((status, &error["field"]), (400, &json!("json_schema")), "{answer}");
        assert!(error["message"].as_str().unwrap().contains(why), "{answer}");
    }
    let twice = r#"{"json_schema":{"properties":{"a":{"type":"string","type":"number"}}}}"#;
    let (status, answer) = request(server.running.http_address(), "PATCH", path, twice).await;
    assert_eq!((status, &answer["error"]["field"]), (400, &json!("json_schema")), "{answer}");
    assert_eq!(server.ask("GET", path, &Value::Null).await.1, created);
    let (_, changed) = server.ask("PATCH", path, &json!({"lateness_us":1})).await;
    assert_eq!((&changed["json_schema"], &changed["schema_version"]), (&schema, &json!(2)));
    let (_, changed) = server.ask("PATCH", path, &json!({"json_schema":{}})).await;
    assert_eq!((&changed["json_schema"], &changed["schema_version"]), (&json!({}), &json!(3)));
    let (_, changed) = server.ask("PATCH", path, &json!({"json_schema":null})).await;
    assert_eq!((&changed["json_schema"], &changed["schema_version"]), (&Value::Null, &json!(4)));
}

/// Goal: a deleted table is gone, and comes back under its name as a new life.
#[tokio::test]
async fn deletion() {
    let server = Server::start().await;
    let create = json!({"namespace":"n","table":"t"});
    let (_, first) = server.ask("POST", "/v1/tables", &create).await;
    assert_eq!(server.ask("DELETE", "/v1/tables/n/t", &Value::Null).await, (204, Value::Null));
    for method in ["GET", "DELETE"] {
        let (status, answer) = server.ask(method, "/v1/tables/n/t", &Value::Null).await;
        assert_eq!((status, &answer["error"]["code"]), (404, &json!("NOT_FOUND")));
    }
    let (status, second) = server.ask("POST", "/v1/tables", &create).await;
    assert_eq!((status, &second["generation"]), (201, &json!(2)));
    assert_eq!(second["table_id"], first["table_id"]);
}

/// Goal: the cluster shows its node with health and load, and the placement map with its version.
#[tokio::test]
async fn the_cluster() {
    let server = Server::start().await;
    let (status, cluster) = server.ask("GET", "/v1/cluster", &Value::Null).await;
    assert_eq!(status, 200);
    let node = &cluster["nodes"][0];
    assert_eq!((&node["node"], &node["health"]), (&json!(1), &json!("healthy")));
    assert_eq!(node["load"], json!({"rows":800,"bytes":8_000}));
    assert_eq!(cluster["placement"]["version"], json!(1));
    assert_eq!(cluster["placement"]["partitions"][7], json!({"partition":7,"replicas":[1]}));
    server.hot_tier.is_away.store(true, SeqCst);
    let (_, cluster) = server.ask("GET", "/v1/cluster", &Value::Null).await;
    let node = &cluster["nodes"][0];
    assert_eq!((&node["health"], &node["load"]), (&json!("unreachable"), &Value::Null));
}

/// Goal: a log that is away is a 503 with a time to try again, nothing half-made is shown, and the service ends in order.
#[tokio::test]
async fn a_log_that_is_away() {
    let server = Server::start().await;
    server.bench.log.set_away(true);
    let (status, code, _) = server.refused(&json!({"namespace":"n","table":"t"})).await;
    assert_eq!((status, code.as_str()), (503, "UNAVAILABLE"));
    assert_eq!(server.ask("GET", "/v1/tables", &Value::Null).await, (200, json!({"tables":[]})));
    assert_eq!(server.ask("GET", "/health", &Value::Null).await.0, 200);
    assert_eq!(server.running.shutdown().await.connections_cut, 0);
}
