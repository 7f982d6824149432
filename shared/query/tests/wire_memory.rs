//! What decoding takes in memory. Alone in its process, so that nothing else moves the figure.

mod world;

use std::sync::atomic::AtomicBool;

use peak_alloc::PeakAlloc;
use query::{BYTES_PER_BYTE, Cancel, Partial, Plan};
use questions::{Tables, random_query};
use world::{Random, Shape, World, tiny};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// For what a decoder has beside its lists: a plan's parts, the sketches of a few groups.
const FIXED_BYTES: usize = 64 << 10;

/// The most memory that `decode` takes beside what is there.
fn taken<T>(decode: impl FnOnce() -> T) -> usize {
    ALLOCATED.reset_peak_usage();
    let before = ALLOCATED.current_usage();
    drop(decode());
    ALLOCATED.peak_usage() - before
}

/// Goal: whatever lengths damaged bytes claim, reading them takes a small multiple of their own size.
#[test]
fn lengths_are_not_believed() {
    let shape = Shape { rows: 2_000, limits: tiny(), span_us: 3_000, in_order: false, users: 500 };
    let (world, mut random) = (World::new(3, shape), Random(4));
    let (left, mut read) = (AtomicBool::new(false), 0);
    let cancel = Cancel::new(&left, &|| false);
    for _ in 0..60 {
        let plan = world.plan(&random_query(&mut random, &world.rows, shape.span_us, Tables::Any).to_string()).unwrap();
        let of_plan = plan.to_bytes();
        for reader in &world.readers {
            let tasks = world.tasks(&plan).into_iter().filter(|task| task.partition() == reader.partition());
            let results = tasks.map(|task| query::run(&plan, &task, &cancel).unwrap()).collect();
            let partial = query::merge(&plan, reader.partition(), results, &cancel).unwrap().into_bytes(&plan);
            for _ in 0..40 {
                let (mut of_plan, mut partial) = (of_plan.clone(), partial.clone());
                for bytes in [&mut of_plan, &mut partial] {
                    // Most lengths stand before all else.
                    let at = random.below(bytes.len().min(200));
                    bytes[at] = random.pick(&[0xff, 0x7f, 1, 2, 8]);
                }
                let bytes = taken(|| Plan::from_bytes(&of_plan));
                assert!(bytes <= FIXED_BYTES + of_plan.len() * BYTES_PER_BYTE, "{bytes} of {}", of_plan.len());
                let mut good = false;
                let bytes = taken(|| Partial::from_bytes(&plan, &partial).inspect(|_| good = true));
                assert!(bytes <= FIXED_BYTES + partial.len() * BYTES_PER_BYTE, "{bytes} of {}", partial.len());
                read += usize::from(good);
            }
        }
    }
    assert!(read > 100, "some of them are results all the same: {read}");
}
