//! `GET /openapi.json`: the service's HTTP interface as an OpenAPI 3.1 document.
//!
//! A service brings its paths and schemas; what all services have in common (health, liveness, metrics, errors, the
//! credential) is added here.

use axum::{Json, Router, routing::get};
use serde_json::{Value, json};

/// The errors of the contract that any request may get.
const ERRORS: [(&str, &str); 10] = [
    ("400", "Malformed or contradictory input, or a range behind what is covered."),
    ("401", "No credential, or a bad one."),
    ("404", "No such table, or another tenant's."),
    ("409", "It exists already, or cannot be changed."),
    ("413", "A request beyond a size limit."),
    ("415", "An encoding or media type that is not spoken."),
    ("429", "A limit; try again after the seconds in Retry-After."),
    ("500", "A defect of the server."),
    ("503", "The log, or a partition that the answer needs, is away."),
    ("504", "The time was up; field says which wait."),
];

/// The route of a service's document; `own` is an object with the service's `info.title`, `paths` and `components.schemas`.
///
/// # Panics
/// `own` is no such document: it is part of the program, and a test starts every service.
pub fn openapi(own: &str, version: &str) -> Router {
    let document = document(own, version).expect("the document is part of the program");
    Router::new().route("/openapi.json", get(move || std::future::ready(Json(document.clone()))))
}

fn document(own: &str, version: &str) -> Result<Value, serde_json::Error> {
    let mut document: Value = serde_json::from_str(own)?;
    document["openapi"] = "3.1.0".into();
    document["info"]["version"] = version.into();
    for operation in operations(&mut document["paths"]) {
        for (status, description) in ERRORS {
            let responses = &mut operation["responses"];
            if responses.get(status).is_none() {
                responses[status] = error_response(description);
            }
        }
    }
    for (path, summary, body) in [
        ("/health", "Whether the service serves; 503 unless it does.", "application/json"),
        ("/live", "Whether the process lives.", "application/json"),
        ("/metrics", "Figures for Prometheus.", "text/plain"),
        ("/openapi.json", "This document.", "application/json"),
    ] {
        let responses = json!({
            "200": {"description": summary, "content": {body: {}}},
            "503": {"description": "It does not serve.", "content": {body: {}}},
        });
        document["paths"][path]["get"] = json!({"summary": summary, "security": [], "responses": responses});
    }
    document["components"]["schemas"]["Error"] = json!({
        "type": "object",
        "required": ["error"],
        "properties": {"error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string", "description": "What was wrong and what would be right."},
                "field": {"type": "string", "description": "The innermost name at fault."},
            },
        }},
    });
    document["components"]["securitySchemes"]["key"] = json!({"type": "http", "scheme": "bearer"});
    // Without authentication configured no credential is asked for, and the services answer on loopback alone.
    document["security"] = json!([{"key": []}, {}]);
    Ok(document)
}

/// Every operation of every path.
fn operations(paths: &mut Value) -> impl Iterator<Item = &mut Value> {
    let paths = paths.as_object_mut().into_iter().flatten();
    paths.filter_map(|(_, path)| path.as_object_mut()).flatten().map(|(_, operation)| operation)
}

fn error_response(description: &str) -> Value {
    let schema = json!({"$ref": "#/components/schemas/Error"});
    json!({"description": description, "content": {"application/json": {"schema": schema}}})
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a document has what the service brings and what all have; what a service says of an error stands.
    #[test]
    fn documents_are_completed() {
        let own = r#"{"info":{"title":"T"},"paths":{"/v1/x":{"get":{"responses":{"400":{"description":"own"}}}}},
            "components":{"schemas":{"X":{}}}}"#;
        let document = document(own, "1.2.3").unwrap();
        assert_eq!((&document["info"]["title"], &document["info"]["version"]), (&json!("T"), &json!("1.2.3")));
        let responses = &document["paths"]["/v1/x"]["get"]["responses"];
        assert_eq!(responses["400"]["description"], "own");
        assert_eq!(responses.as_object().unwrap().len(), ERRORS.len());
        assert!(["/health", "/live", "/metrics"].iter().all(|path| document["paths"][path]["get"].is_object()));
        let schemas = document["components"]["schemas"].as_object().unwrap();
        assert!(schemas.contains_key("X") && schemas.contains_key("Error"));
    }
}
