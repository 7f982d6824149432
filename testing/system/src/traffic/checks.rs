//! What is checked while the server is well and nobody sends: then every answer is known exactly.

use std::{
    collections::BTreeSet,
    ops::Range,
    time::{Duration, Instant},
};

use hyper::StatusCode;
use serde_json::Value;

use super::{
    asking::answer,
    event::{Lane, NAMESPACE, Table},
    question::Question,
    scene::Scene,
};
use crate::{http::Http, random::Random};

/// Of a range of numbers at most so many are asked for one by one.
const SINGLY_MAX: u64 = 20_000;
/// Random questions about each table.
const QUESTIONS: usize = 5;
/// How long what is durable may take until it is applied.
const SETTLES_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks at what is not yet as it has to be.
const BETWEEN: Duration = Duration::from_millis(100);

/// What ledgers say, all tables together.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    pub(crate) live: u64,
    pub(crate) duplicate: u64,
}

/// Checks everything that was sent since `since`, number by number, and the rest by its totals.
///
/// # Errors
/// What is not as promised.
pub(crate) async fn all(
    scene: &Scene,
    http: &Http,
    since: [u64; Lane::ALL.len()],
    every_table: bool,
    random: &mut Random,
) -> Result<Totals, String> {
    resolve(scene, http, random).await?;
    let mut totals = Totals::default();
    for table in tables(scene, every_table) {
        let sent = |lane: Lane| scene.oracle().sent(lane) * lane.batch_rows();
        let lanes = table.lanes();
        let before = lanes.iter().map(|(lane, numbers)| sent(*lane).min(numbers.end)).max().unwrap_or_default();
        exactly(scene, http, &Question::whole(table, scene.origin, before), random).await?;
        let news: Vec<Range<u64>> =
            lanes.iter().map(|(lane, _)| since[*lane as usize]..sent(*lane)).filter(|news| !news.is_empty()).collect();
        for news in news {
            let start = news.start.max(news.end.saturating_sub(SINGLY_MAX));
            exactly(scene, http, &Question::singly(table, scene.origin, &(start..news.end)), random).await?;
        }
        for _ in 0..QUESTIONS {
            let question = Question::random(table, scene.origin, before, random);
            exactly(scene, http, &question, random).await?;
        }
        let ledger = ledger(scene, http, table).await?;
        totals.live += ledger.live;
        totals.duplicate += ledger.duplicate;
    }
    Ok(totals)
}

/// The tables that there are: of those that came by themselves the newest, or every one.
fn tables(scene: &Scene, every: bool) -> Vec<Table> {
    let batches = scene.oracle().sent(Lane::Unary);
    let mut tables = vec![Table::Keyed, Table::Plain];
    if batches > 0 {
        let Table::Auto(newest) = Lane::Unary.table(batches - 1) else { unreachable!("its tables come by themselves") };
        let oldest = if every { 0 } else { newest.saturating_sub(2) };
        tables.extend((oldest..=newest).map(Table::Auto));
    }
    tables
}

/// An answer that must be exactly the oracle's; where replicas answer, as soon as they have all of it.
async fn exactly(scene: &Scene, http: &Http, question: &Question, random: &mut Random) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let found = answer(scene, http, question, random).await?;
        let (certain, possible) = {
            let oracle = scene.oracle();
            (oracle.certain(), oracle.possible())
        };
        let Err(wrong) = question.judge(&found, &certain, &possible) else { return Ok(()) };
        if began.elapsed() >= scene.conduct.agreed_within {
            let asked = question.json(&[], false);
            return Err(format!("at rest: {wrong}\n  asked   {asked}\n  receipt {}", found["receipt"]));
        }
        tokio::time::sleep(BETWEEN).await;
    }
}

/// Looks up what became of batches that were given up before the server last started: that is final.
async fn resolve(scene: &Scene, http: &Http, random: &mut Random) -> Result<(), String> {
    // Relaxed: whoever starts the server calls this.
    let life = scene.life.load(std::sync::atomic::Ordering::Relaxed);
    let open = scene.oracle().open_before(life);
    for (lane, batch) in open {
        let numbers = lane.numbers(batch);
        let question = Question::numbered(lane.table(batch), scene.origin, &numbers);
        let found = question.numbers_found(&answer(scene, http, &question, random).await?, lane)?;
        let found: BTreeSet<u64> = found.into_iter().collect();
        let absent: BTreeSet<u64> = numbers.filter(|number| !found.contains(number)).collect();
        scene.oracle().resolve(lane, batch, &absent);
    }
    Ok(())
}

/// The ledger of a table: it balances, and says of the table what the oracle says.
async fn ledger(scene: &Scene, http: &Http, table: Table) -> Result<Totals, String> {
    let url = format!("{}/{NAMESPACE}/{}", scene.addresses.ledger, table.name());
    let began = Instant::now();
    let ledger = loop {
        let reply = http.get(&url).await.ok_or("the ledger is not answered")?;
        if reply.status != StatusCode::OK {
            return Err(format!("the ledger of {}: {}", table.name(), reply.text()));
        }
        let ledger = reply.json();
        if ledger["balanced"] != Value::Bool(true) {
            return Err(format!("the ledger of {} does not balance: {ledger}", table.name()));
        }
        if ledger["in_flight"] == 0 {
            break ledger;
        }
        if began.elapsed() > SETTLES_WITHIN {
            return Err(format!("events of {} stay in flight: {ledger}", table.name()));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let term = |name: &str| ledger[name].as_u64().ok_or_else(|| format!("the ledger has no {name}: {ledger}"));
    let (acked, live, duplicate) = (term("acked")?, term("live")?, term("duplicate")?);
    let count = |known: &super::oracle::Known| {
        let of = |(lane, numbers): (Lane, Range<u64>)| {
            let numbers = numbers.start..known.before(lane).min(numbers.end);
            numbers.filter(|number| known.contains(lane, *number)).count() as u64
        };
        table.lanes().into_iter().map(of).sum::<u64>()
    };
    let (least, most) = {
        let oracle = scene.oracle();
        (count(&oracle.certain()), count(&oracle.possible()))
    };
    let others = ["evicted", "erased", "conflict"].map(term);
    let none_else = others.iter().all(|term| *term == Ok(0));
    if acked != live + duplicate || !(least..=most).contains(&live) || !none_else {
        return Err(format!("the ledger of {} says {ledger}, and {least} to {most} events are live", table.name()));
    }
    Ok(Totals { live, duplicate })
}

/// The first number of each lane that was not sent yet.
pub(crate) fn unsent(scene: &Scene) -> [u64; Lane::ALL.len()] {
    Lane::ALL.map(|lane| scene.oracle().sent(lane) * lane.batch_rows())
}
