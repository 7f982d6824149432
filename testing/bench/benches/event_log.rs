//! The embedded log: durable appends of blocks of 1,000 rows (62 KB), with the CPU time per event.
//!
//! Several callers append at once and wait for their acks, as gateways do; the log shares syncs among them. Reported
//! beside criterion's figure: events and bytes per second, and CPU time of the whole process per event (user and
//! system), which is what remains of a run on a shared machine.

use std::{sync::Arc, time::Instant};

use codec::{BlockHeader, BlockKind};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use event_log::{Append, EmbeddedConfig, EmbeddedLog, EventLog};
use types::{AppenderId, Generation, PartitionId, SchemaVersion, TableId, TableKey, TenantId, Timestamp};

const ROWS: u32 = 1_000;
const BODY_BYTES: usize = 62_000;
const PARTITIONS: u32 = 4;
/// Callers that wait for an ack at any time.
const CALLERS: u32 = 32;
const BLOCKS_PER_CALLER: u32 = 64;

fn block(partition: u32) -> Append {
    let body = bytes_of(BODY_BYTES);
    let header = BlockHeader {
        kind: BlockKind::Events,
        key: TableKey { tenant: TenantId::DEFAULT, table: TableId(1), generation: Generation(1) },
        schema_version: SchemaVersion(1),
        partition: PartitionId(partition),
        rows: ROWS,
        body_len: u32::try_from(BODY_BYTES).expect("bodies are small"),
        body_checksum: 0, // the appender takes the gateway's word for it
        appender: AppenderId(0),
        appender_rows: 0,
        time_min: Timestamp(0),
        time_max: Timestamp(1),
        batch: None,
        times_given: false,
    };
    Append { header, body: body.into() }
}

fn bytes_of(len: usize) -> Vec<u8> {
    (0..len).map(|at| ((at * at) >> 3) as u8).collect()
}

/// User and system time of this process, in clock ticks of 10 ms.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

fn run(runtime: &tokio::runtime::Runtime, log: &Arc<EmbeddedLog>, blocks: &[Append]) {
    runtime.block_on(async {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let (log, block) = (log.clone(), blocks[(caller % PARTITIONS) as usize].clone());
                tokio::spawn(async move {
                    for _ in 0..BLOCKS_PER_CALLER {
                        let at = log.append(vec![block.clone()]).await.expect("the disk has room")[0];
                        log.release_before(at.partition, at.offset);
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.expect("a caller ends well");
        }
    });
}

fn append_synced(criterion: &mut Criterion) {
    let dir = tempfile::tempdir_in(std::env::temp_dir()).expect("a directory for files");
    let log = Arc::new(EmbeddedLog::open_on_disk(EmbeddedConfig::new(dir.path(), PARTITIONS)).expect("a new log"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    let blocks: Vec<_> = (0..PARTITIONS).map(block).collect();
    let events = u64::from(CALLERS * BLOCKS_PER_CALLER * ROWS);

    let (mut runs, began, ticks) = (0, Instant::now(), cpu_ticks());
    let mut group = criterion.benchmark_group("event_log");
    group.sample_size(10).throughput(Throughput::Elements(events));
    group.bench_function("append_62kb_synced", |bencher| {
        bencher.iter(|| {
            runs += 1;
            run(&runtime, &log, &blocks);
        });
    });
    group.finish();
    let (total, seconds) = ((runs * events) as f64, began.elapsed().as_secs_f64());
    let cpu_ns = (cpu_ticks() - ticks) as f64 * 1e7 / total;
    let bytes = total / f64::from(ROWS) * BODY_BYTES as f64;
    eprintln!(
        "event_log: {:.0} MB/s, {:.2} M events/s, {cpu_ns:.1} ns CPU per event",
        bytes / seconds / 1e6,
        total / seconds / 1e6
    );
}

criterion_group!(benches, append_synced);
criterion_main!(benches);
