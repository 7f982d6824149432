//! Results that are merged as they come.

use query::{Finishing, Partial};

use super::*;

/// Finds one partition after the other, each as the gate lets it.
pub(super) async fn one_by_one(
    fake: &Fake,
    request: &ScanRequest,
    found: &mpsc::Sender<PartitionScan>,
    gate: &Semaphore,
    groups: usize,
) -> Result<Vec<(PartitionId, Unavailable)>, ApiError> {
    for &partition in &request.partitions {
        gate.acquire().await.unwrap().forget();
        let partial = Some(result_of(&request.plan, partition, groups));
        let scan = PartitionScan { partial, ..fake.scan_of(&request.plan, partition, &[]) };
        found.send(scan).await.map_err(|_| ApiError::internal("nobody takes it"))?;
    }
    Ok(Vec::new())
}

/// A result of one row in each of so many buckets of time, in the form in which it travels.
pub(super) fn result_of(plan: &Plan, partition: PartitionId, groups: usize) -> Partial {
    let mut bytes = vec![1, partition.0 as u8, 0, 0, 0, 0, 0, 0];
    let mut left = groups;
    while left >= 0x80 {
        bytes.push(left as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
    bytes.extend([0; 8]);
    bytes.push(4);
    bytes.extend((0..groups as u32).flat_map(u32::to_le_bytes));
    bytes.push(1);
    bytes.extend(std::iter::repeat_n(1, groups));
    Partial::from_bytes(plan, &bytes).unwrap()
}

/// Goal: where results may be merged as they come, whatever came of a partition comes once, also where a node fails.
#[tokio::test(start_paused = true)]
async fn results_come_one_by_one() {
    let world = World::replicated();
    let plan = plan_of(r#"{"namespace":"shop","table":"events","start_time":0,"end_time":1000,"interval_us":10}"#);
    let place = Arc::new(Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap());
    let left = false.into();
    let cancel = Cancel::new(&left, &|| false);
    for (error, from) in [(None, [0, 1]), (Some(ErrorCode::Unavailable), [1, 1])] {
        world.fakes[0].set(Manner { error, ..Manner::default() });
        let fan_out = FanOut { plan: Arc::clone(&plan), ..world.fan_out() };
        let early = EarlyMerge::new(Arc::clone(&plan), fan_out.deadline, &place);
        let gathered = fan_out.run(&world.fleet, &world.placement, Some(Arc::clone(&early))).await.unwrap();
        assert!(nodes(&gathered) == from && !gathered.is_unchanged() && gathered.unavailable.is_empty());
        let partials: Vec<_> = gathered.scans.into_iter().map(|scan| scan.partial.unwrap()).collect();
        assert_eq!(partials.iter().map(|partial| partial.partition().0).collect::<Vec<_>>(), [0, 1]);
        Finishing::after(&plan, early.take().unwrap(), partials, &cancel).unwrap();
    }
}

/// Goal: what came is merged while the rest is awaited, so that all together may be more than is held at a time; what has to wait for
/// a partition before it is held within the bound of the plan, beyond which the query ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_is_merged_while_others_are_awaited() {
    const GROUPS: usize = 40_000;
    let json = r#"{"namespace":"shop","table":"events","start_time":0,"end_time":1000000,"interval_us":1}"#;
    let bytes = result_of(&plan_of(json), PartitionId(0), GROUPS).bytes();
    let plan = plan_within(json, &QueryLimits { bytes_max: bytes * 5 / 2, ..QueryLimits::default() });
    let place = Arc::new(Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap());
    let gates = [0, 0].map(|permits| Arc::new(Semaphore::new(permits)));
    let start = |replicas: &[&[u64]]| {
        let world = World::new(2, replicas);
        for (fake, gate) in world.fakes.iter().zip(&gates) {
            fake.set(Manner { one_by_one: Some((Arc::clone(gate), GROUPS)), ..Manner::default() });
        }
        let fan_out = FanOut { plan: Arc::clone(&plan), ..world.fan_out() };
        let early = EarlyMerge::new(Arc::clone(&plan), fan_out.deadline, &place);
        let merging = Arc::clone(&early);
        let run = tokio::spawn(async move { fan_out.run(&world.fleet, &world.placement, Some(merging)).await });
        (early, run)
    };

    let (early, run) = start(&[&[0], &[1], &[0], &[1], &[0], &[1]]);
    for partition in 0..5 {
        gates[partition % 2].add_permits(1);
        while early.take().unwrap().is_empty() {
            assert!(!run.is_finished(), "it waits for more");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    gates[1].add_permits(1);
    let gathered = run.await.unwrap().unwrap();
    assert_eq!((gathered.scans.len(), gathered.unavailable.len()), (6, 0));
    assert!((0..5).all(|partition| gathered.merged.contains(&PartitionId(partition))), "{:?}", gathered.merged);

    // Each node has one more that never comes: who ends the query waits for nobody.
    let (_early, run) = start(&[&[0], &[1], &[1], &[1], &[1]]);
    gates[1].add_permits(2);
    while gates[1].available_permits() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!run.is_finished(), "two may wait for the first");
    gates[1].add_permits(1);
    assert_eq!(run.await.unwrap().unwrap_err().code, ErrorCode::TooLarge);
}
