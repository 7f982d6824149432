use prop::collection::vec;
use proptest::prelude::*;
use prost::Message;

use super::*;

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    vec(text(), 0..4)
}

prop_compose! {
    fn handover()(
        nodes: (u64, u64), bytes: u64,
        phase in prop::sample::select(vec![Phase::Waiting, Phase::Copying, Phase::Leaving]),
        reason in prop::sample::select(vec![MoveReason::EvenOut, MoveReason::Drain, MoveReason::Request]),
    ) -> Handover {
        Handover { from: NodeId(nodes.0), to: NodeId(nodes.1), phase, bytes, reason }
    }
}

prop_compose! {
    fn column()(name in text(), metric: bool) -> ColumnDef {
        ColumnDef { name, kind: if metric { ColumnKind::Metric } else { ColumnKind::Dimension } }
    }
}

prop_compose! {
    fn rollup()(
        micros in 1_i64..=86_400_000_000, group_by in texts(), distinct in texts(), percentiles in texts(), top in texts(),
        keep_us: Option<i64>,
    ) -> Rollup {
        let interval = Interval::from_micros(micros).expect("above 0");
        Rollup { interval, group_by, distinct, percentiles, top, keep_us }
    }
}

prop_compose! {
    fn settings()(
        hot_window_us: Option<i64>, max_age_us: Option<i64>, max_future_us: i64, dedup_window_us: i64, lateness_us: i64,
        rollups in vec(rollup(), 0..3), json_schema in prop::option::of(text()),
    ) -> TableSettings {
        let json_schema = json_schema.map(Arc::from);
        TableSettings { hot_window_us, max_age_us, max_future_us, dedup_window_us, lateness_us, rollups, json_schema }
    }
}

prop_compose! {
    fn table()(
        ids: (u64, u64, u32, u32), seeds: (u64, u64), name in (text(), text()), partition_by in prop::option::of(text()),
        partitions in prop::collection::btree_set(any::<u32>(), 1..5), columns in vec(column(), 0..5), settings in settings(),
    ) -> Table {
        Table {
            key: TableKey { tenant: TenantId(ids.0), table: TableId(ids.1), generation: Generation(ids.2) },
            name: TableName::new(name.0, name.1),
            partitions: partitions.into_iter().map(PartitionId).collect(),
            partition_by,
            partition_seed: seeds.0,
            identity_seed: seeds.1,
            schema: Schema::from_parts(SchemaVersion(ids.3), columns),
            settings,
        }
    }
}

prop_compose! {
    fn patch()(
        add_columns in vec(column(), 0..3), hot_window_us: Option<Option<i64>>, max_age_us: Option<Option<i64>>,
        numbers: (Option<i64>, Option<i64>, Option<i64>), rollups in prop::option::of(vec(rollup(), 0..3)),
        json_schema in prop::option::of(prop::option::of(text())),
    ) -> TablePatch {
        let json_schema = json_schema.map(|text| text.map(Arc::from));
        let (max_future_us, dedup_window_us, lateness_us) = numbers;
        TablePatch {
            add_columns, hot_window_us, max_age_us, max_future_us, dedup_window_us, lateness_us, rollups, json_schema,
        }
    }
}

/// A message after it went over the wire.
fn sent<M: Message + Default>(message: &M) -> M {
    M::decode(message.encode_to_vec().as_slice()).unwrap()
}

proptest! {
    /// Goal: what is said of a table, of its creation and of its change arrives as it was, null apart from unsaid.
    #[test]
    fn tables_travel_whole(table in table(), patch in patch(), partitions: Option<u32>) {
        prop_assert_eq!(Table::try_from(sent(&internal::Table::from(&table))).unwrap(), table.clone());
        let new = NewTable {
            name: table.name.clone(),
            partitions,
            partition_by: table.partition_by,
            columns: table.schema.columns().to_vec(),
            settings: table.settings,
        };
        let tenant = table.key.tenant;
        let arrived = <(TenantId, NewTable)>::try_from(sent(&create_request(tenant, &new))).unwrap();
        prop_assert_eq!(arrived, (tenant, new));
        let arrived = <(TenantId, TableName, TablePatch)>::try_from(sent(&patch_request(tenant, &table.name, &patch)));
        prop_assert_eq!(arrived.unwrap(), (tenant, table.name, patch));
    }

    /// Goal: a placement map arrives as it was, with the order of each partition's nodes, its moves and the nodes that are emptied.
    #[test]
    fn placement_travels_whole(
        version: u64,
        replicas in prop::collection::btree_map(any::<u32>(), vec(any::<u64>(), 0..4), 0..6),
        moves in prop::collection::btree_map(any::<u32>().prop_map(PartitionId), handover(), 0..4),
        draining in prop::collection::btree_set(any::<u64>().prop_map(NodeId), 0..3),
    ) {
        let replicas = replicas.into_iter().map(|(p, nodes)| (PartitionId(p), nodes.into_iter().map(NodeId).collect()));
        let map = PlacementMap { version, replicas: replicas.collect(), moves, draining };
        prop_assert_eq!(PlacementMap::from(sent(&internal::Placement::from(&map))), map);
    }

    /// Goal: bytes that are no message, or one with parts missing, are refused and never panic.
    #[test]
    fn foreign_bytes_do_no_harm(table in table(), at: prop::sample::Index, with: u8, bytes in vec(any::<u8>(), 0..200)) {
        let mut changed = internal::Table::from(&table).encode_to_vec();
        let at = at.index(changed.len());
        changed[at] = with;
        for bytes in [&bytes[..], &changed[..], &changed[..at]] {
            let _ = internal::Table::decode(bytes).map(Table::try_from);
            let _ = internal::CreateTableRequest::decode(bytes).map(<(TenantId, NewTable)>::try_from);
            let _ = internal::PatchTableRequest::decode(bytes).map(<(TenantId, TableName, TablePatch)>::try_from);
            let _ = internal::CatalogPart::decode(bytes);
            let _ = internal::NodeReport::decode(bytes);
        }
    }
}

/// Goal: a table that breaks what its type promises is refused by what is wrong.
#[test]
fn broken_promises_are_refused() {
    let good = internal::Table {
        key: Some(internal::TableKey::default()),
        partitions: vec![1, 2],
        settings: Some(internal::TableSettings::default()),
        ..internal::Table::default()
    };
    assert!(Table::try_from(good.clone()).is_ok());
    let settings = internal::TableSettings { rollups: vec![internal::Rollup::default()], ..Default::default() };
    for bad in [
        internal::Table { key: None, ..good.clone() },
        internal::Table { partitions: Vec::new(), ..good.clone() },
        internal::Table { partitions: vec![2, 2], ..good.clone() },
        internal::Table { settings: None, ..good.clone() },
        internal::Table { settings: Some(settings), ..good.clone() },
        internal::Table { columns: vec![internal::Column { name: "a".into(), kind: 9 }], ..good },
    ] {
        assert!(Table::try_from(bad.clone()).is_err(), "{bad:?}");
    }
}
