//! Pages of several nodes.

use std::time::Duration;

use async_trait::async_trait;
use proto::hot_tier::{
    ChecksumRequest, HotTier, NodeExplanation, NodeScan, PartitionStatus, ScanRequest, TableChecksum,
    TablePartitionStatus,
};
use query::QueryLimits;
use types::{
    ColumnDef, ColumnKind, Generation, NodeId, Schema, SchemaVersion, TableId, TableKey, TableName, TableSettings,
};

use super::*;
use crate::nodes::Nodes;

/// A node of one partition with an event at each of some times; its pages are full after so many.
struct Fake {
    partition: PartitionId,
    times: Vec<i64>,
    fit: usize,
}

impl Fake {
    fn event(&self, time: i64) -> RawEvent {
        let place = EventPlace { time: Timestamp(time), partition: self.partition, offset: Offset(0), row: 0 };
        RawEvent { place, dimensions: Vec::new(), metrics: Vec::new() }
    }
}

fn not_here<T>() -> Result<T, ApiError> {
    Err(ApiError::internal("not in this fake"))
}

#[async_trait]
impl HotTier for Fake {
    async fn scan(&self, _: ScanRequest) -> Result<NodeScan, ApiError> {
        not_here()
    }

    async fn events(&self, request: EventsRequest) -> Result<NodeEvents, ApiError> {
        let all = self.times.iter().map(|time| self.event(*time));
        let mut events: Vec<_> = all.filter(|event| request.position.is_none_or(|at| event.place > at)).collect();
        let more = events.len() > self.fit.min(request.limit);
        events.truncate(self.fit.min(request.limit));
        let (partition, next_offset) = (self.partition, Offset(1));
        let covered = vec![EventsCovered { partition, next_offset, evicted_before: None, gaps: Vec::new() }];
        Ok(NodeEvents { events, more, covered, unavailable: Vec::new() })
    }

    async fn applied(&self, _: Vec<(PartitionId, Offset)>, _: Instant) -> Result<(), ApiError> {
        not_here()
    }

    async fn explain(&self, _: ScanRequest) -> Result<NodeExplanation, ApiError> {
        not_here()
    }

    async fn checksum(&self, _: ChecksumRequest) -> Result<TableChecksum, ApiError> {
        not_here()
    }

    async fn status(&self) -> Result<Vec<PartitionStatus>, ApiError> {
        not_here()
    }

    async fn table_status(&self, _: TableKey) -> Result<Vec<TablePartitionStatus>, ApiError> {
        not_here()
    }
}

fn asked() -> Asked {
    let table = Arc::new(Table {
        key: TableKey { tenant: TenantId::DEFAULT, table: TableId(1), generation: Generation(1) },
        name: TableName::new("shop", "events"),
        partitions: [PartitionId(0), PartitionId(1)].into(),
        partition_by: None,
        partition_seed: 0,
        identity_seed: 0,
        schema: Schema::from_parts(
            SchemaVersion(1),
            vec![ColumnDef { name: "region".into(), kind: ColumnKind::Dimension }],
        ),
        settings: TableSettings::default(),
    });
    let json = br#"{"namespace": "shop", "table": "events", "start_time": 0, "end_time": 1000}"#;
    let query = query::parse(json, &QueryLimits::default()).unwrap();
    let plan = Arc::new(query::plan(&query, std::slice::from_ref(&table)).unwrap());
    Asked { query, plan, table, cursor: None, after: Vec::new() }
}

/// Goal: where a node's page is full before its events end, those of other nodes that lie behind wait for a later page, so
/// that all pages together have every event once and in order; and a page is never empty.
#[tokio::test]
async fn a_full_node_holds_back_later_events_of_others() {
    let fakes = [
        Fake { partition: PartitionId(0), times: (0..40).collect(), fit: 3 },
        Fake { partition: PartitionId(1), times: (0..80).step_by(2).collect(), fit: 50 },
    ];
    let mut expected: Vec<_> = fakes.iter().flat_map(|f| f.times.iter().map(|t| f.event(*t).place)).collect();
    expected.sort_unstable();
    let nodes = (1..).map(NodeId).zip(fakes.map(|fake| Arc::new(fake) as Arc<dyn HotTier>));
    let fleet = Fleet::new(Nodes::fixed(nodes), Box::new(|_| Offset::ZERO));
    let replicas = [(PartitionId(0), vec![NodeId(1)]), (PartitionId(1), vec![NodeId(2)])].into();
    let placement = PlacementMap { replicas, ..PlacementMap::default() };
    let (mut asked, mut seen) = (asked(), Vec::new());
    loop {
        let deadline = Instant::now() + Duration::from_secs(60);
        let page = gather(&asked, &fleet, &placement, 100, deadline).await.unwrap();
        seen.extend(page.events.iter().map(|event| event.place));
        if !page.more {
            break;
        }
        let last = page.events.last().expect("a page with more behind it shows something").place;
        let position = (last.time, last.partition, last.offset, last.row);
        let offsets = page.covered.iter().map(|part| (part.partition, part.next_offset)).collect();
        asked.cursor = Some(Cursor { tenant: TenantId::DEFAULT, query: asked.plan.fingerprint(), position, offsets });
    }
    assert_eq!(seen, expected);
}
