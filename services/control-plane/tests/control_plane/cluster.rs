//! The control plane as other processes see it: over the network, with interruptions.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use codec::ClusterKey;
use control_plane::{CatalogSettings, Config, Deps, Nodes};
use metadata::Claim;
use placement::PlacementMap;
use proto::{
    catalog::{Catalog as _, CatalogClient, NewTable, TablePatch, Tenants as _},
    members::{GATEWAY, HOT_TIER, Member, Membership as _},
    wire::Connector,
};
use service::{Authenticator, Host, HttpLimits, Metrics, Running};
use types::{ColumnDef, ColumnKind, ErrorCode, NodeId, PartitionId, TableName, TenantId};

use crate::support::{Bench, FakeHotTier, settings};

const TENANT: TenantId = TenantId::DEFAULT;
const KEY: &str = "the key of this cluster";

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Of a control plane that has nodes elsewhere.
fn registered() -> CatalogSettings {
    CatalogSettings { nodes: Nodes::Registered, ..settings() }
}

async fn serve(bench: &Bench, grpc: SocketAddr) -> Running {
    let authenticator = Authenticator::of_cluster(ClusterKey::new(KEY), None);
    let limits = HttpLimits { drain_timeout: Duration::from_millis(100), ..HttpLimits::default() };
    let host = Host { limits, authenticator, metrics: Metrics::install() };
    let config = Config { http: any(), grpc, body_timeout: Duration::from_secs(5) };
    let hot_tier = Arc::new(FakeHotTier::default());
    let deps = Deps { control_plane: bench.plane.clone(), hot_tier };
    control_plane::start(&host, &config, deps).await.unwrap()
}

fn connect(address: SocketAddr, key: &str) -> CatalogClient {
    CatalogClient::connect(vec![address.to_string()], Connector::new(Some(ClusterKey::new(key)))).unwrap()
}

/// Waits until something is so, which nobody has to be quick about.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come to pass that {what}");
}

fn name(table: &str) -> TableName {
    TableName::new("shop", table)
}

fn dimension(name: &str) -> ColumnDef {
    ColumnDef { name: name.into(), kind: ColumnKind::Dimension }
}

fn member(node: u64) -> Member {
    let services = [(HOT_TIER.to_owned(), format!("127.0.0.1:{}", 9_000 + node))].into();
    Member { node: NodeId(node), zone: None, services }
}

/// Goal: what one process changes the control plane knows, and another process sees without asking; errors come whole.
#[tokio::test]
async fn changes_reach_every_process() {
    let bench = Bench::new(settings()).await;
    let first = bench.plane.ensure_table(TENANT, &name("before")).await.unwrap();
    let running = serve(&bench, any()).await;
    let (here, there) = (connect(running.grpc_address(), KEY), connect(running.grpc_address(), KEY));
    here.followed().await;
    there.followed().await;
    assert_eq!(here.cached(TENANT, &name("before")), Some(first));
    assert_eq!(here.placement(), bench.plane.placement());
    assert_eq!(here.tenants().await.unwrap(), [TENANT]);

    let made = here.create(TENANT, NewTable::auto(name("t"))).await.unwrap();
    assert_eq!(made, bench.plane.table(TENANT, &name("t")).await.unwrap());
    until("the other process sees the table", || there.cached(TENANT, &name("t")).is_some()).await;
    let twice = there.create(TENANT, NewTable::auto(name("t"))).await.unwrap_err();
    assert_eq!((twice.code, twice.field.as_deref()), (ErrorCode::AlreadyExists, Some("table")));

    let grown = there.ensure_columns(made.key, &[dimension("region")]).await.unwrap();
    assert_eq!(there.cached(TENANT, &name("t")), Some(Arc::clone(&grown)));
    until("the first process sees the column", || here.cached(TENANT, &name("t")).as_ref() == Some(&grown)).await;
    let kind = ColumnDef { name: "region".into(), kind: ColumnKind::Metric };
    let conflict = here.ensure_columns(made.key, &[kind]).await.unwrap_err();
    assert_eq!((conflict.code, conflict.field.as_deref()), (ErrorCode::InvalidArgument, Some("region")));

    let patch = TablePatch { max_age_us: Some(Some(7)), ..TablePatch::default() };
    assert_eq!(here.patch(TENANT, &name("t"), patch).await.unwrap().settings.max_age_us, Some(7));
    let listed: Vec<_> = there.tables(TENANT).await.unwrap().iter().map(|table| table.name.clone()).collect();
    assert_eq!(listed, [name("before"), name("t")]);
    there.delete(TENANT, &name("t")).await.unwrap();
    until("the table is gone from the first process", || here.cached(TENANT, &name("t")).is_none()).await;
    assert_eq!(here.table(TENANT, &name("t")).await.unwrap_err().code, ErrorCode::NotFound);
    assert!(here.cached(TenantId(9), &name("before")).is_none(), "another tenant's");
    let _ = running.shutdown().await;
}

/// Goal: while the control plane is away what is known goes on, and what is not fails by name; when it is back all is read
/// anew, also what ended meanwhile.
#[tokio::test]
async fn what_is_known_outlives_the_control_plane() {
    let bench = Bench::new(settings()).await;
    let kept = bench.plane.ensure_table(TENANT, &name("kept")).await.unwrap();
    bench.plane.ensure_table(TENANT, &name("ends")).await.unwrap();
    let running = serve(&bench, any()).await;
    let address = running.grpc_address();
    let client = connect(address, KEY);
    client.followed().await;
    let map = client.placement();
    let _ = running.shutdown().await;
    until("the loss is noticed", || !client.is_followed()).await;

    assert_eq!(client.cached(TENANT, &name("kept")), Some(Arc::clone(&kept)));
    assert_eq!(client.table(TENANT, &name("kept")).await, Ok(Arc::clone(&kept)));
    assert_eq!(client.ensure_table(TENANT, &name("kept")).await, Ok(Arc::clone(&kept)));
    assert_eq!(client.tables(TENANT).await.unwrap().len(), 2);
    assert_eq!(client.placement(), map);
    let away = client.ensure_table(TENANT, &name("new")).await.unwrap_err();
    assert!(away.code == ErrorCode::Unavailable && away.message.contains("shop.new"), "{away}");
    let away = client.ensure_columns(kept.key, &[dimension("region")]).await.unwrap_err();
    assert!(away.code == ErrorCode::Unavailable && away.message.contains("region of table shop.kept"), "{away}");

    bench.plane.delete(TENANT, &name("ends")).await.unwrap();
    bench.plane.ensure_table(TENANT, &name("meanwhile")).await.unwrap();
    let running = serve(&bench, address).await;
    client.followed().await;
    assert!(client.cached(TENANT, &name("meanwhile")).is_some());
    assert!(client.cached(TENANT, &name("ends")).is_none());
    assert_eq!(client.cached(TENANT, &name("kept")), Some(kept));
    let _ = running.shutdown().await;
}

/// Goal: who does not know the cluster's key is told nothing and changes nothing.
#[tokio::test]
async fn strangers_are_refused() {
    let bench = Bench::new(settings()).await;
    let running = serve(&bench, any()).await;
    for stranger in [
        connect(running.grpc_address(), "another key"),
        CatalogClient::connect(vec![running.grpc_address().to_string()], Connector::new(None)).unwrap(),
    ] {
        let refused = stranger.ensure_table(TENANT, &name("t")).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Unauthenticated);
        assert_eq!(stranger.register(&member(1), 0).await.unwrap_err().code, ErrorCode::Unauthenticated);
        assert!(!stranger.is_followed());
    }
    assert!(bench.plane.cached(TENANT, &name("t")).is_none());
    let _ = running.shutdown().await;
}

/// Goal: who registers is seen by everybody, also at another control plane; who falls silent or leaves is missed; who registers
/// as a node that is there takes its place, and the one before is told so.
#[tokio::test]
async fn members_come_and_go() {
    let bench = Bench::new(registered()).await;
    let running = serve(&bench, any()).await;
    let client = connect(running.grpc_address(), KEY);
    client.followed().await;
    let members = client.members();
    let first = client.register(&member(1), 0).await.unwrap();
    let second = client.register(&member(2), 0).await.unwrap();
    until("both are seen", || members.borrow().values().eq(&[member(1), member(2)])).await;
    let other = bench.beside(registered()).await;
    assert_eq!(*other.members().borrow(), *members.borrow());

    let again = client.register(&member(1), 5).await.unwrap();
    assert_eq!(other.register(&member(1), 5).await.unwrap(), again, "it came twice");
    assert!(again.epoch > first.epoch);
    let fenced = client.heartbeat(first).await.unwrap_err();
    assert_eq!((fenced.code, fenced.field.as_deref()), (ErrorCode::FailedPrecondition, Some("node_id")));
    assert_eq!(client.leave(first).await.unwrap_err().code, ErrorCode::FailedPrecondition);
    client.leave(second).await.unwrap();
    until("the one that left is missed", || members.borrow().keys().eq(&[NodeId(1)])).await;
    assert_eq!(client.heartbeat(second).await.unwrap_err().code, ErrorCode::FailedPrecondition);
    let third = client.register(&member(3), 0).await.unwrap();
    let speaks = tokio::spawn({
        let client = client.clone();
        async move {
            while client.heartbeat(third).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    });
    until("the one that says nothing is missed", || members.borrow().keys().eq(&[NodeId(3)])).await;
    client.heartbeat(again).await.unwrap();
    until("who speaks again is back", || members.borrow().keys().eq(&[NodeId(1), NodeId(3)])).await;
    speaks.abort();
    let _ = running.shutdown().await;
}

/// Goal: of several control planes the one that answered last is asked first, for one that takes calls and does not answer would hold
/// up each word.
#[tokio::test]
async fn who_answered_is_asked_first() {
    let (first, second) = (Bench::new(registered()).await, Bench::new(registered()).await);
    let answers = serve(&first, any()).await;
    let free = tokio::net::TcpListener::bind(any()).await.unwrap().local_addr().unwrap();
    let addresses = vec![free.to_string(), answers.grpc_address().to_string()];
    let client = CatalogClient::connect(addresses, Connector::new(Some(ClusterKey::new(KEY)))).unwrap();
    let life = client.register(&member(1), 5).await.unwrap();
    // One that knows nothing of that life, as it has metadata of its own.
    let other = serve(&second, free).await;
    connect(free, KEY).followed().await;
    client.heartbeat(life).await.unwrap();
    let _ = answers.shutdown().await;
    assert_eq!(client.heartbeat(life).await.unwrap_err().code, ErrorCode::FailedPrecondition, "the next is asked");
    let _ = other.shutdown().await;
}

/// Goal: processes that could not be heard while the only control plane was away for hours live on when it is back: what it did not
/// look through is nobody's silence.
#[tokio::test]
async fn an_absence_of_the_control_plane_is_nobodys_silence() {
    let bench = Bench::new(registered()).await;
    let gateway = Member { services: [(GATEWAY.to_owned(), "127.0.0.1:9088".into())].into(), ..member(7) };
    let life = bench.plane.register(&gateway, 0).await.unwrap();
    bench.age_words(Duration::from_secs(7_200)).await;
    let back = bench.beside(registered()).await;
    back.follow().await.unwrap();
    assert!(back.members().borrow().contains_key(&NodeId(7)));
    back.heartbeat(life).await.unwrap();
}

/// Goal: a map that is stored in the name of who places reaches every process, and an older one never comes after it.
#[tokio::test]
async fn a_new_map_reaches_every_process() {
    let bench = Bench::new(registered()).await;
    let running = serve(&bench, any()).await;
    let client = connect(running.grpc_address(), KEY);
    client.followed().await;
    assert_eq!(client.placement().version, 0, "nobody placed anything");
    let Claim::Taken(lease) = bench.store.take_lease("placing", "a", Duration::from_secs(60)).await.unwrap() else {
        panic!("nobody else takes it");
    };
    for version in [1, 2] {
        let map = PlacementMap {
            version,
            replicas: [(PartitionId(0), vec![NodeId(version)])].into(),
            ..PlacementMap::default()
        };
        bench.store.store_placement(&map, version - 1, Some(&lease)).await.unwrap();
        until("the map arrives", || *client.placement() == map).await;
    }
    let _ = running.shutdown().await;
}
