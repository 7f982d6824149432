//! Whoever asks while all else goes on: any question at any time, and no answer may be wrong.

use std::{sync::Arc, time::Duration};

use hyper::StatusCode;
use serde_json::{Value, json};

use super::{
    event::{Lane, NAMESPACE, Table},
    oracle::Known,
    question::Question,
    scene::Scene,
};
use crate::{
    http::{Http, Reply},
    random::Random,
};

/// How long a question may wait for its tokens to be covered, ms.
const TIMEOUT_MS: u64 = 20_000;

/// How a question ended.
enum Answer {
    Complete(Value),
    Partial,
    Refused(String),
    NoTable,
}

/// Asks until the run is over.
pub(crate) async fn run(scene: Arc<Scene>, mut random: Random) {
    let http = Http::new();
    while !scene.is_over() {
        tokio::time::sleep(Duration::from_millis(random.within(1..40))).await;
        if let Err(wrong) = ask(&scene, &http, &mut random).await {
            scene.violate(wrong);
        }
    }
}

/// Asks one question, and holds the answer against what was acked before and what is sent after.
async fn ask(scene: &Scene, http: &Http, random: &mut Random) -> Result<(), String> {
    let sent = |lane: Lane| scene.oracle().sent(lane) * lane.batch_rows();
    let newest = Lane::Unary.table(scene.oracle().sent(Lane::Unary).max(1) - 1);
    let table = *random.choose(&[Table::Keyed, Table::Plain, newest]);
    let before = table.lanes().iter().map(|(lane, _)| sent(*lane)).max().unwrap_or_default();
    let question = Question::random(table, scene.origin, before, random);
    let (mut certain, mut tokens) = (scene.settled_before_start(), Vec::new());
    if random.chance(50) {
        for shown in scene.shown(table).into_iter().filter(|_| random.chance(70)) {
            certain = certain.later(&shown.covers);
            tokens.extend(shown.tokens);
        }
    }
    let partial = random.chance(10);
    let answer = match exchange(scene, http, &question, &tokens, partial, random).await? {
        Answer::Complete(answer) => answer,
        Answer::Partial if partial => {
            scene.count(|counts| &counts.partial);
            return Ok(());
        }
        Answer::Partial => return Err(format!("an incomplete answer to {}", question.json(&tokens, partial))),
        Answer::NoTable if certain_of(table, &certain) => {
            return Err(format!("there is no table {}, or not its columns, and events of it were acked", table.name()));
        }
        // Who cannot ask whether there is such a table says so by its name.
        Answer::Refused(why) if why.contains(&format!("table {NAMESPACE}.")) && !certain_of(table, &certain) => {
            scene.count(|counts| &counts.early);
            return Ok(());
        }
        Answer::NoTable => {
            scene.count(|counts| &counts.early);
            return Ok(());
        }
        Answer::Refused(why) => {
            scene.refuse(why);
            return Ok(());
        }
    };
    scene.count(|counts| &counts.answered);
    if !tokens.is_empty() {
        scene.count(|counts| &counts.with_tokens);
    }
    let possible = scene.oracle().possible();
    let judged = question.judge(&answer, &certain, &possible);
    judged.map_err(|wrong| {
        format!("{wrong}\n  asked   {}\n  receipt {}", question.json(&tokens, partial), answer["receipt"])
    })
}

/// Whether some event of a table is certain to be there.
fn certain_of(table: Table, certain: &Known) -> bool {
    table.lanes().iter().any(|(lane, numbers)| certain.before(*lane) > numbers.start)
}

async fn exchange(
    scene: &Scene,
    http: &Http,
    question: &Question,
    tokens: &[String],
    partial: bool,
    random: &mut Random,
) -> Result<Answer, String> {
    let mut body = question.json(tokens, partial);
    body["timeout_ms"] = json!(TIMEOUT_MS);
    let Some(reply) = first_reply(scene, http, &body, random).await else {
        return Ok(Answer::Refused("no answer".to_owned()));
    };
    match reply.status {
        StatusCode::OK => {
            let json = reply.json();
            match json["receipt"]["complete"].as_bool() {
                Some(true) => Ok(Answer::Complete(json)),
                Some(false) => Ok(Answer::Partial),
                None => Err(format!("an answer without a receipt: {json}")),
            }
        }
        StatusCode::NOT_FOUND => Ok(Answer::NoTable),
        // A table that comes with its first events is there before its columns are.
        StatusCode::BAD_REQUEST if reply.text().contains("unknown column") => Ok(Answer::NoTable),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Ok(Answer::Refused(reply.text()))
        }
        _ => Err(format!("{}\n  asked   {body}", reply.text())),
    }
}

/// Asks any query API, and then the others where it gives no answer at all, as a client does.
async fn first_reply(scene: &Scene, http: &Http, body: &Value, random: &mut Random) -> Option<Reply> {
    let all = &scene.addresses.query;
    let first = random.within(0..all.len() as u64) as usize;
    for tried in 0..all.len() {
        if let Some(reply) = http.post(&all[(first + tried) % all.len()], body).await {
            if tried > 0 {
                scene.count(|counts| &counts.asked_again);
            }
            return Some(reply);
        }
    }
    None
}

/// Asks a question of a server that is well and left alone, which has to answer.
///
/// # Errors
/// It does not, or not completely.
pub(crate) async fn answer(
    scene: &Scene,
    http: &Http,
    question: &Question,
    random: &mut Random,
) -> Result<Value, String> {
    let tokens: Vec<String> = scene.shown(question.table).into_iter().flat_map(|shown| shown.tokens).collect();
    match exchange(scene, http, question, &tokens, false, random).await? {
        Answer::Complete(answer) => Ok(answer),
        Answer::Refused(why) => {
            Err(format!("a server left alone refuses: {why}\n  asked   {}", question.json(&tokens, false)))
        }
        Answer::Partial | Answer::NoTable => {
            Err(format!("a server left alone does not answer {}", question.json(&tokens, false)))
        }
    }
}
