//! Plans and partial results as bytes: what travelled is what was sent, and bytes of anybody else do no harm.

mod world;

use std::{cell::RefCell, sync::atomic::AtomicBool};

use proptest::prelude::*;
use query::{Cancel, Finishing, Partial, PartialsMerge, Plan, ValueLimits, WireError};
use questions::{Tables, random_query};
use types::{Interval, Rollup, TableSettings};
use world::{Random, Shape, World, conclude_by, tiny};

const SPAN_US: i64 = 3_000;

fn limits(random: &mut Random) -> ValueLimits {
    ValueLimits {
        auto_rows_max: random.pick(&[0, 500, 1 << 17]),
        values_max: random.pick(&[0, 30, 1 << 21]),
        leading_max: random.pick(&[1, 3, 20, 1 << 12]),
    }
}

/// A world whose older rows may have left, with rollups that answer for them or none.
fn random_world(seed: u64, rows: usize, users: usize) -> World {
    let mut random = Random(seed);
    let mut world = World::new(seed, Shape { rows, limits: tiny(), span_us: SPAN_US, in_order: false, users });
    world.limits.values = limits(&mut random);
    if random.chance(50) {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let rollup = Rollup {
            interval: Interval::from_micros(100).unwrap(),
            group_by: names(&["region"]),
            distinct: names(&["user"]),
            percentiles: names(&["value", "latency"]),
            top: names(&["user", "flag"]),
            keep_us: None,
        };
        world.configure(&TableSettings { rollups: vec![rollup], ..TableSettings::default() });
        world.housekeep();
    }
    world
}

/// A plan and a partition's result of it after their way through bytes, which the same things have again afterwards.
fn travel(plan: &Plan, partial: Partial) -> Partial {
    let sent = plan.to_bytes();
    let arrived = Plan::from_bytes(&sent).unwrap();
    assert_eq!((&arrived, arrived.to_bytes()), (plan, sent));
    assert_eq!(arrived.fingerprint(), plan.fingerprint());
    let sent = partial.into_bytes(plan);
    let again = Partial::from_bytes(&arrived, &sent).unwrap().into_bytes(&arrived);
    assert_eq!(again, sent);
    Partial::from_bytes(&arrived, &sent).unwrap()
}

/// All plans of an answer, and the results of its partitions, as bytes.
fn sent(world: &World, plan: &Plan) -> Vec<(Plan, Vec<u8>)> {
    let (left, sent) = (AtomicBool::new(false), RefCell::new(Vec::new()));
    let cancel = Cancel::new(&left, &|| false);
    let scan = |plan: &Plan| world.tasks(plan).iter().map(|task| query::run(plan, task, &cancel)).collect();
    let keep = |plan: &Plan, partial: Partial| {
        sent.borrow_mut().push((plan.clone(), partial.clone().into_bytes(plan)));
        partial
    };
    conclude_by(plan, scan, keep).unwrap();
    sent.into_inner()
}

/// The results of the first scan of a plan, by partition.
fn first_results(world: &World, plan: &Plan) -> Vec<Partial> {
    let left = AtomicBool::new(false);
    let cancel = Cancel::new(&left, &|| false);
    let of_partition = |reader: &engine::Reader| {
        let tasks = world.tasks(plan).into_iter().filter(|task| task.partition() == reader.partition());
        let found = tasks.map(|task| query::run(plan, &task, &cancel).unwrap()).collect();
        query::merge(plan, reader.partition(), found, &cancel).unwrap()
    };
    world.readers.iter().map(of_partition).collect()
}

/// Changes some bytes, cuts some off, or takes some out.
fn damage(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + random.below(3) {
        if bytes.is_empty() {
            break;
        }
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => drop(bytes.remove(at)),
            2 => bytes[at] = random.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            3 => bytes[at] ^= 1 << random.below(8),
            4 => bytes.insert(at, random.next() as u8),
            _ => bytes[at] = random.next() as u8,
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Goal: an answer of partial results that travelled, each by a plan that travelled, is the same to the byte as one of
    /// those that did not, whatever is asked, by rows and by rollups, in as many rounds as it takes.
    #[test]
    fn a_way_through_bytes_changes_no_byte(seed: u64, rows in 1_usize..1_500, users in 1_usize..1_500) {
        let world = random_world(seed, rows, users);
        let mut random = Random(seed ^ 1);
        for _ in 0..20 {
            let json = random_query(&mut random, &world.rows, SPAN_US, Tables::Any).to_string();
            let plan = world.plan(&json).unwrap();
            let left = AtomicBool::new(false);
            let cancel = Cancel::new(&left, &|| false);
            let scan = |plan: &Plan| world.tasks(plan).iter().map(|task| query::run(plan, task, &cancel)).collect();
            prop_assert_eq!(conclude_by(&plan, scan, travel).unwrap(), world.answer(&json).unwrap(), "{}", json);
        }
    }

    /// Goal: partitions that are merged one by one, some before others are there, give the answer of all at once, to the byte.
    #[test]
    fn the_order_of_arrival_changes_no_byte(seed: u64, rows in 1_usize..1_500, users in 1_usize..1_500) {
        let world = random_world(seed, rows, users);
        let mut random = Random(seed ^ 3);
        let left = AtomicBool::new(false);
        let cancel = Cancel::new(&left, &|| false);
        for _ in 0..20 {
            let json = random_query(&mut random, &world.rows, SPAN_US, Tables::Any).to_string();
            let plan = world.plan(&json).unwrap();
            let partials: Vec<Partial> = first_results(&world, &plan);
            let early = random.below(partials.len() + 1);
            let mut merged = PartialsMerge::new(&plan);
            for partial in &partials[..early] {
                merged.absorb(&plan, partial, &cancel).unwrap();
            }
            let mut rest = partials[early..].to_vec();
            rest.reverse();
            let mut one = Finishing::after(&plan, merged, rest, &cancel).unwrap();
            let mut all = Finishing::new(&plan, partials, &cancel).unwrap();
            let rounds = (one.next_round(&plan, &cancel).unwrap(), all.next_round(&plan, &cancel).unwrap());
            prop_assert_eq!(&rounds.0, &rounds.1, "{}", &json);
            if rounds.0.is_none() {
                prop_assert_eq!(one.answer(&plan, &cancel).unwrap(), all.answer(&plan, &cancel).unwrap(), "{}", json);
            }
        }
    }

    /// Goal: damaged bytes are refused, or are another result that can be merged and answered: nothing panics, at the first
    /// step or at a later one.
    #[test]
    fn damaged_bytes_do_no_harm(seed: u64, rows in 1_usize..600) {
        let world = random_world(seed, rows, 1_100);
        let mut random = Random(seed ^ 2);
        let left = AtomicBool::new(false);
        let json = random_query(&mut random, &world.rows, SPAN_US, Tables::Any).to_string();
        let cancel = Cancel::new(&left, &|| false);
        let asked = world.plan(&json).unwrap();
        for (plan, partial) in sent(&world, &asked) {
            let bytes = plan.to_bytes();
            for _ in 0..60 {
                if let Ok(other) = Plan::from_bytes(&damage(&bytes, &mut random)) {
                    for task in world.tasks(&other) {
                        // It may be refused for its groups or its memory.
                        let _ = query::run(&other, &task, &cancel);
                    }
                }
                let Ok(other) = Partial::from_bytes(&plan, &damage(&partial, &mut random)) else { continue };
                let good = Partial::from_bytes(&plan, &partial).unwrap();
                if plan == asked {
                    let end = Finishing::new(&plan, vec![good, other], &cancel);
                    let answer = end.and_then(|mut end| {
                        end.next_round(&plan, &cancel)?;
                        end.answer(&plan, &cancel)
                    });
                    drop(answer);
                }
            }
        }
    }
}

/// Goal: a rank that no question asks for is refused.
#[test]
fn ranks_that_nobody_asks_for_are_refused() {
    let world = random_world(7, 100, 10);
    let asked = r#"{"namespace":"shop","table":"events","start_time":0,"end_time":99,"group_by":["region"],"limit":1,"aggregates":[{"fn":"top","dimension":"user","k":7}]}"#;
    let bytes = world.plan(asked).unwrap().to_bytes();
    let at = bytes.windows(3).position(|window| window == b"\x0a\x00\x07").expect("the output is there") + 2;
    for k in [&b"\x00"[..], b"\xe9\x07"] {
        let refused = Plan::from_bytes(&[&bytes[..at], k, &bytes[at + 1..]].concat());
        assert_eq!(refused, Err(WireError::Invalid("an output does not come from its cell")));
    }
    assert!(Plan::from_bytes(&[&bytes[..at], b"\xe8\x07", &bytes[at + 1..]].concat()).is_ok());
}

/// Goal: what a later version says is refused by what is not known, and bytes of no version as what they are.
#[test]
fn later_versions_are_refused_by_name() {
    let world = random_world(7, 100, 10);
    let asked = r#"{"namespace":"shop","table":"events","start_time":0,"end_time":99,"aggregates":[{"fn":"sum","metric":"value"}]}"#;
    let plan = world.plan(asked).unwrap();
    let bytes = plan.to_bytes();
    let with = |from: &[u8], to: &[u8]| {
        let at = bytes.windows(from.len()).position(|window| window == from).expect("the bytes are there");
        [&bytes[..at], to, &bytes[at + from.len()..]].concat()
    };
    let later = Plan::from_bytes(&[&[2], &bytes[1..]].concat()).unwrap_err();
    assert_eq!(later.to_string(), "it is of version 2, and this process reads up to 1");
    // The only cell: its tag, the length of its column's name and the name.
    let unknown = Plan::from_bytes(&with(b"\x02\x05value", b"\x63\x05value")).unwrap_err();
    assert_eq!(unknown.to_string(), "an aggregate of kind 99 is not known to this version");
    assert_eq!(
        Plan::from_bytes(&with(b"\x02\x05value", b"\x03\x05value")).unwrap_err().to_string(),
        "an output does not come from its cell"
    );
    assert!(matches!(Plan::from_bytes(&[&[0], &bytes[1..]].concat()), Err(WireError::Invalid(_))));
    assert_eq!(Plan::from_bytes(&[]), Err(WireError::Truncated));
    assert_eq!(Plan::from_bytes(&[&bytes[..], &[0]].concat()), Err(WireError::Trailing(1)));
    let (_, partial) = sent(&world, &plan).pop().unwrap();
    let later = Partial::from_bytes(&plan, &[&[9], &partial[1..]].concat()).unwrap_err();
    assert_eq!(later.to_string(), "it is of version 9, and this process reads up to 1");
}
