//! Plans and partial results of other processes: refused, or the same again after another way through bytes.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use query::{Cancel, Finishing, Partial, Plan, QueryLimits};
use types::{
    ColumnDef, ColumnKind, Generation, Schema, SchemaVersion, Table, TableId, TableKey, TableName, TableSettings,
    TenantId,
};

/// A kind of state each, with and without groups and buckets.
const QUERIES: [&str; 4] = [
    r#""aggregates":[{"fn":"sum","metric":"m"},{"fn":"min","metric":"m"},{"fn":"stddev","metric":"m"},{"fn":"count","dimension":"d"}]"#,
    r#""group_by":["d"],"interval_us":10,"aggregates":[{"fn":"distinct","dimension":"e"},{"fn":"top","dimension":"e","k":3}]"#,
    r#""group_by":["d","e"],"aggregates":[{"fn":"p50","metric":"m"},{"fn":"p9","metric":"m","method":"exact"},{"fn":"p99","metric":"m","method":"tdigest"}]"#,
    r#""group_by":["d"],"order_by":[{"column":"count","desc":true}],"limit":2,"aggregates":[{"fn":"count"},{"fn":"max","metric":"m"}]"#,
];

fn plan(at: usize) -> Plan {
    let column = |name: &str, kind| ColumnDef { name: name.into(), kind };
    let columns =
        vec![column("d", ColumnKind::Dimension), column("e", ColumnKind::Dimension), column("m", ColumnKind::Metric)];
    let table = Table {
        key: TableKey { tenant: TenantId(1), table: TableId(1), generation: Generation(1) },
        name: TableName::new("n", "t"),
        partitions: vec![types::PartitionId(0)],
        partition_by: None,
        partition_seed: 0,
        identity_seed: 0,
        schema: Schema::from_parts(SchemaVersion(1), columns),
        settings: TableSettings::default(),
    };
    let json = format!(r#"{{"namespace":"n","table":"t","start_time":0,"end_time":99,{}}}"#, QUERIES[at]);
    let query = query::parse(json.as_bytes(), &QueryLimits::default()).expect("a good query");
    query::plan(&query, &[Arc::new(table)]).expect("a good plan")
}

fuzz_target!(|input: &[u8]| {
    if let Ok(plan) = Plan::from_bytes(input) {
        let again = plan.to_bytes();
        assert_eq!(Plan::from_bytes(&again).expect("what was read can be written").to_bytes(), again);
    }
    let Some((&which, bytes)) = input.split_first() else { return };
    let plan = plan(usize::from(which) % QUERIES.len());
    let Ok(partial) = Partial::from_bytes(&plan, bytes) else { return };
    let again = partial.clone().into_bytes(&plan);
    let read = Partial::from_bytes(&plan, &again).expect("what was read can be written");
    assert_eq!(read.clone().into_bytes(&plan), again);
    let left = false.into();
    let cancel = Cancel::new(&left, &|| false);
    if let Ok(mut end) = Finishing::new(&plan, vec![partial, read], &cancel) {
        let _ = end.next_round(&plan, &cancel);
        let _ = end.answer(&plan, &cancel);
    }
});
