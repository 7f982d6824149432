//! What each stage of the codec costs per event: 10,000 events of 5 dimensions, 3 metrics and a 16-byte id.

use std::hint::black_box;

use codec::{Body, BodyBuilder, BodyView, EventChecker, EventRef, JsonForm, ProtobufBatch, TimeLimits, decode_json};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use types::{Timestamp, limits::REQUEST_EVENTS_MAX};

const EVENTS: u64 = 10_000;
const NOW: Timestamp = Timestamp(1_754_772_362_000_000);

/// Calls `each` with every event of the workload.
fn for_each_event(mut each: impl FnMut(&EventRef<'_>)) {
    let regions = ["us-east", "us-west", "eu-central", "ap-south"];
    let kinds = ["VIEW", "ADD_TO_CART", "PURCHASE", "REFUND", "SEARCH"];
    for n in 0..EVENTS {
        let scattered = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let id = format!("{scattered:016x}");
        let (product, user) = (format!("product-{}", scattered >> 54), format!("user-{}", scattered >> 48));
        let dimensions = [
            ("region", regions[(scattered >> 20) as usize % regions.len()]),
            ("event_type", kinds[(scattered >> 30) as usize % kinds.len()]),
            ("product", product.as_str()),
            ("user_id", user.as_str()),
            ("device", if scattered & 1 << 40 == 0 { "mobile" } else { "desktop" }),
        ];
        let metrics = [
            ("revenue", (scattered >> 44) as f64 / 100.0),
            ("latency_ms", (scattered >> 50) as f64 / 10.0),
            ("quantity", (scattered >> 61) as f64),
        ];
        each(&EventRef {
            namespace: "shop",
            table: "events",
            event_time: Some(NOW.0 + n as i64),
            event_id: Some(id.as_bytes()),
            dimensions: &dimensions,
            metrics: &metrics,
        });
    }
}

fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn protobuf(event: &EventRef<'_>, out: &mut Vec<u8>) {
    let mut message = Vec::new();
    field(&mut message, 1, event.namespace.as_bytes());
    field(&mut message, 2, event.table.as_bytes());
    message.push(3 << 3);
    put_varint(&mut message, event.event_time.unwrap_or_default() as u64);
    field(&mut message, 4, event.event_id.unwrap_or_default());
    for (name, value) in event.dimensions {
        let mut entry = Vec::new();
        field(&mut entry, 1, name.as_bytes());
        field(&mut entry, 2, value.as_bytes());
        field(&mut message, 5, &entry);
    }
    for (name, value) in event.metrics {
        let mut entry = Vec::new();
        field(&mut entry, 1, name.as_bytes());
        entry.push(2 << 3 | 1);
        entry.extend_from_slice(&value.to_le_bytes());
        field(&mut message, 6, &entry);
    }
    field(out, 1, &message);
}

/// The workload in each form.
struct Inputs {
    protobuf: Vec<u8>,
    ndjson: String,
    body: Body,
}

fn inputs() -> Inputs {
    let (mut rows, mut ndjson, mut builder) = (Vec::new(), String::new(), BodyBuilder::default());
    for_each_event(|event| {
        protobuf(event, &mut rows);
        ndjson.push_str(&event.to_json());
        ndjson.push('\n');
        builder.push(event, NOW, 0).expect("far below the limits");
    });
    Inputs { protobuf: rows, ndjson, body: builder.finish(false).expect("there are events") }
}

fn stages(criterion: &mut Criterion) {
    let Inputs { protobuf: rows, ndjson: lines, body: Body { bytes: body, .. } } = inputs();
    let (mut builder, times) = (BodyBuilder::default(), TimeLimits::default_at(NOW));
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(EVENTS));
    group.bench_function("protobuf_decode", |bench| {
        bench.iter(|| {
            let batch = ProtobufBatch::parse(&rows, REQUEST_EVENTS_MAX).expect("valid");
            batch.for_each(|decoded| drop(black_box(decoded)));
        });
    });
    group.bench_function("protobuf_to_block", |bench| {
        let mut checker = EventChecker::default();
        bench.iter(|| {
            let batch = ProtobufBatch::parse(&rows, REQUEST_EVENTS_MAX).expect("valid");
            batch.for_each(|decoded| push(&mut builder, &mut checker, &decoded.event.expect("valid"), &times));
            builder.finish(false)
        });
    });
    group.bench_function("ndjson_decode", |bench| {
        bench.iter(|| {
            decode_json(lines.as_bytes(), JsonForm::Lines, REQUEST_EVENTS_MAX, |decoded| drop(black_box(decoded)))
        });
    });
    group.bench_function("ndjson_to_block", |bench| {
        let mut checker = EventChecker::default();
        bench.iter(|| {
            decode_json(lines.as_bytes(), JsonForm::Lines, REQUEST_EVENTS_MAX, |decoded| {
                push(&mut builder, &mut checker, &decoded.event.expect("valid"), &times);
            })
            .expect("valid");
            builder.finish(false)
        });
    });
    group.bench_function("columns_parse", |bench| bench.iter(|| BodyView::parse(&body).expect("valid").rows()));
    group.bench_function("columns_parse_trusted", |bench| {
        bench.iter(|| BodyView::parse_trusted(&body).expect("valid").rows());
    });
    group.bench_function("columns_split", |bench| {
        let view = BodyView::parse(&body).expect("valid");
        let parts: Vec<u32> = (0..EVENTS as u32).map(|row| row % 4).collect();
        bench.iter_batched(|| (), |()| view.split(&parts, false), BatchSize::SmallInput);
    });
    group.finish();
}

fn push(builder: &mut BodyBuilder, checker: &mut EventChecker, event: &EventRef<'_>, times: &TimeLimits) {
    checker.check(event, 0, times).expect("valid");
    builder.push(event, NOW, 0).expect("far below the limits");
}

criterion_group!(benches, stages);
criterion_main!(benches);
