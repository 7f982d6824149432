//! `truenow query`: a question to the query API, its answer as a table with the receipt, or as it came.

mod last;
mod show;

use std::{
    io::{self, IsTerminal as _, Read as _},
    time::{Duration, SystemTime},
};

use hyper::StatusCode;
use serde_json::Value;
use types::Timestamp;

use crate::{
    args::QueryArgs,
    failure::Failure,
    http::Http,
    outcome::{Outcome, answer, runtime},
};

/// Asks, and shows what came.
///
/// # Errors
/// The question is no JSON, nobody answers, or the question is refused.
pub(crate) fn run(args: &QueryArgs) -> Result<Outcome, Failure> {
    let mut query = read_query(args.query.as_deref())?;
    if let Some(last) = &args.last {
        last::fill(&mut query, last, now())?;
    }
    let (asked, reply) = runtime(1)?.block_on(async {
        let http = Http::new(&args.addresses)?;
        let asked = query.to_string();
        let reply = http.post_json(&format!("{}/v1/query", args.addresses.query_api()), asked.clone()).await?;
        Ok::<_, Failure>((asked, reply))
    })?;
    if reply.status != StatusCode::OK {
        return Err(reply.refusal().hint(format!("the question was {asked}")));
    }
    if args.table || (!args.json && io::stdout().is_terminal()) {
        answer(&show::as_table(&query, &reply.json()))?;
    } else {
        answer(&format!("{}\n", String::from_utf8_lossy(&reply.body)))?;
    }
    Ok(Outcome::Well)
}

/// The question, from the argument, a file or stdin.
fn read_query(given: Option<&str>) -> Result<Value, Failure> {
    let text = match given {
        None | Some("-") => {
            let mut text = String::new();
            io::stdin()
                .read_to_string(&mut text)
                .map_err(|error| Failure::new(format!("cannot read the question from stdin: {error}")))?;
            text
        }
        Some(given) => match given.strip_prefix('@') {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| Failure::new(format!("cannot read the question from {path}: {error}")))?,
            None => given.to_owned(),
        },
    };
    let query: Value = serde_json::from_str(&text).map_err(|error| {
        Failure::new(format!("the question is no JSON: {error}"))
            .hint(r#"for example: truenow query '{"namespace":"shop","table":"events"}' --last 15m"#)
    })?;
    if query.is_object() { Ok(query) } else { Err(Failure::new("the question must be a JSON object")) }
}

fn now() -> Timestamp {
    Timestamp::from_epoch(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO))
}
