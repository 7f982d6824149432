//! Raw events against a sorted list of rows.

mod world;

use std::{collections::BTreeMap, sync::atomic::AtomicBool};

use engine::Limits;
use proptest::prelude::*;
use query::{Cancel, EventPlace, FoundEvents, Plan, RawEvent, Source};
use world::{Random, Row, Shape, World, tiny};

/// An event or a row: its time and columns.
type Plain = (i64, BTreeMap<String, String>, BTreeMap<String, u64>);

fn plain_event(event: &RawEvent) -> Plain {
    let dimensions = event.dimensions.iter().map(|(name, value)| (name.to_string(), value.clone()));
    let metrics = event.metrics.iter().map(|(name, value)| (name.to_string(), value.to_bits()));
    (event.place.time.0, dimensions.collect(), metrics.collect())
}

fn plain_row(row: &Row) -> Plain {
    let dimensions = row.dimensions.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    let metrics = row.metrics.iter().map(|(name, value)| ((*name).to_owned(), value.to_bits()));
    (row.time, dimensions.collect(), metrics.collect())
}

/// What each partition finds, in whichever order.
fn select(world: &World, plan: &Plan, after: Option<EventPlace>, limit: usize) -> Vec<FoundEvents> {
    let left = AtomicBool::new(false);
    let cancel = Cancel::new(&left, &|| false);
    let sources = world.readers.iter().filter_map(|reader| {
        let snapshot = reader.snapshot(plan.tables()[0].key)?;
        Some(Source { table: 0, partition: reader.partition(), snapshot })
    });
    sources.map(|source| query::select_events(plan, source, after, limit, &cancel).unwrap()).collect()
}

/// All pages of a plan, each of `limit` events and `bytes_max` at most.
fn pages(world: &World, plan: &Plan, limit: usize, bytes_max: usize) -> Vec<Vec<RawEvent>> {
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        // One more than the page takes tells whether there are more.
        let found = select(world, plan, after, limit + 1);
        let left = AtomicBool::new(false);
        let (page, more) = query::first_events(&found, limit, bytes_max, &Cancel::new(&left, &|| false)).unwrap();
        let last = page.last().map(|event| event.place);
        assert!(last > after || !more, "each page goes on");
        after = last;
        pages.push(page);
        if !more {
            return pages;
        }
    }
}

/// Few rows, or so many of all times side by side that later ones are let go before all are found.
fn shape(many: bool, in_order: bool) -> Shape {
    let rows = if many { 40_000 } else { 700 };
    let slot_width_us = if many { 5_000 } else { tiny().slot_width_us };
    let limits = Limits { segment_rows_max: 256, slot_width_us, ..tiny() };
    Shape { rows, limits, span_us: 3_000, in_order, users: 30 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Goal: the pages of any question are all rows that it asks for, each once, in the order of time, partition, offset and
    /// row, with all of their columns; no page is longer than asked for and none but the last is empty.
    #[test]
    fn pages_match_oracle(seed: u64, in_order: bool, many: bool, limit in 1_usize..300, bytes_max in 1_usize..40_000) {
        let world = World::new(seed, shape(many, in_order));
        let (limit, bytes_max) = if many { (limit + 200, bytes_max * 20) } else { (limit, bytes_max) };
        let mut random = Random(seed);
        let start = random.below(2_000) as i64;
        let end = start + 1 + random.below(2_000) as i64;
        let filters = random.pick(&[
            "{}",
            r#"{"region":["r1","r2","r3"]}"#,
            r#"{"value":{"gte":0},"user":{"exists":true}}"#,
            r#"{"flag":{"ne":"true"},"latency":{"lt":20}}"#,
            r#"{"unseen":1}"#,
        ]);
        let question = format!(
            r#"{{"namespace":"shop","table":"events","start_time":{start},"end_time":{end},"filters":{filters}}}"#
        );
        let plan = world.plan(&question).unwrap();
        let pages = pages(&world, &plan, limit, bytes_max);
        prop_assert!(pages.iter().all(|page| page.len() <= limit));
        prop_assert!(pages.iter().rev().skip(1).all(|page| !page.is_empty()));
        let events: Vec<&RawEvent> = pages.iter().flatten().collect();
        prop_assert!(events.is_sorted_by(|a, b| a.place < b.place));
        let mut got: Vec<Plain> = events.into_iter().map(plain_event).collect();
        let asked: serde_json::Value = serde_json::from_str(&question).unwrap();
        let rows = questions::model::groups(&world.rows, &asked).into_values().flatten();
        let mut expected: Vec<Plain> = rows.map(plain_row).collect();
        got.sort();
        expected.sort();
        prop_assert_eq!(got, expected);
    }
}
