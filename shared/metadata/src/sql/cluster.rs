//! Tenants, secrets, nodes and the placement map.

use placement::PlacementMap;
use sqlx::Row as _;
use std::time::Duration;
use types::{NodeId, TenantId, Timestamp};

use super::{Pool, begin_write, leases};
use crate::{
    Lease, MetadataError, NodeDescription, NodeRecord, SECRET_BYTES, Tenant,
    stored::{self, from_stored, to_stored},
};

pub(super) async fn ensure_tenant(pool: &Pool, tenant: &Tenant) -> Result<(), MetadataError> {
    sqlx::query("INSERT INTO tenants (tenant, name, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(to_stored(tenant.id.0))
        .bind(&tenant.name)
        .bind(tenant.created_at.0)
        .execute(pool)
        .await?;
    Ok(())
}

pub(super) async fn tenants(pool: &Pool) -> Result<Vec<Tenant>, MetadataError> {
    let rows = sqlx::query("SELECT tenant, name, created_at FROM tenants ORDER BY tenant").fetch_all(pool).await?;
    rows.iter()
        .map(|row| {
            Ok(Tenant {
                id: TenantId(from_stored(row.try_get("tenant")?)),
                name: row.try_get("name")?,
                created_at: Timestamp(row.try_get("created_at")?),
            })
        })
        .collect()
}

pub(super) async fn register_node(
    pool: &Pool,
    node: &NodeDescription,
    registration: u64,
) -> Result<u64, MetadataError> {
    // The same registration again is the same life; after its end it changes nothing, and no row comes back.
    let epoch: Option<i64> = sqlx::query_scalar(concat!(
        "INSERT INTO nodes (node, epoch, zone, addresses, heartbeat_at, registration) VALUES ($1, 1, $2, $3, ",
        now_us!(),
        ", $4) ON CONFLICT (node) DO UPDATE SET zone = excluded.zone, addresses = excluded.addresses, ",
        "epoch = nodes.epoch + CASE WHEN excluded.registration <> 0 AND nodes.registration = excluded.registration ",
        "THEN 0 ELSE 1 END, heartbeat_at = excluded.heartbeat_at, registration = excluded.registration ",
        "WHERE excluded.registration = 0 OR nodes.registration <> excluded.registration OR nodes.addresses <> '' ",
        "RETURNING epoch"
    ))
    .bind(to_stored(node.id.0))
    .bind(&node.zone)
    .bind(stored::addresses_to_json(&node.addresses))
    .bind(to_stored(registration))
    .fetch_optional(pool)
    .await?;
    epoch.map(from_stored).ok_or(MetadataError::Fenced)
}

pub(super) async fn heartbeat(pool: &Pool, node: NodeId, epoch: u64) -> Result<(), MetadataError> {
    let done = sqlx::query(concat!("UPDATE nodes SET heartbeat_at = ", now_us!(), " WHERE node = $1 AND epoch = $2"))
        .bind(to_stored(node.0))
        .bind(to_stored(epoch))
        .execute(pool)
        .await?;
    if done.rows_affected() == 0 { Err(MetadataError::Fenced) } else { Ok(()) }
}

pub(super) async fn remove_node(pool: &Pool, node: NodeId, epoch: u64) -> Result<(), MetadataError> {
    // The row stays for its epoch, which must not begin again at 1; one without addresses is none.
    let done = sqlx::query("UPDATE nodes SET epoch = epoch + 1, addresses = '' WHERE node = $1 AND epoch = $2")
        .bind(to_stored(node.0))
        .bind(to_stored(epoch))
        .execute(pool)
        .await?;
    if done.rows_affected() == 0 { Err(MetadataError::Fenced) } else { Ok(()) }
}

pub(super) async fn nodes(pool: &Pool) -> Result<Vec<NodeRecord>, MetadataError> {
    let rows = sqlx::query(concat!(
        "SELECT node, epoch, zone, addresses, heartbeat_at, ",
        now_us!(),
        " - heartbeat_at AS silent_us FROM nodes WHERE addresses <> '' ORDER BY node"
    ))
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(NodeRecord {
                node: NodeDescription {
                    id: NodeId(from_stored(row.try_get("node")?)),
                    zone: row.try_get("zone")?,
                    addresses: stored::addresses_from_json(row.try_get("addresses")?)?,
                },
                epoch: from_stored(row.try_get("epoch")?),
                heartbeat_at: Timestamp(row.try_get("heartbeat_at")?),
                // Negative where the store's clock was set back.
                silent_for: Duration::from_micros(row.try_get::<i64, _>("silent_us")?.try_into().unwrap_or(0)),
            })
        })
        .collect()
}

pub(super) async fn placement(pool: &Pool) -> Result<PlacementMap, MetadataError> {
    let Some(row) =
        sqlx::query("SELECT version, replicas, moves, draining FROM placement").fetch_optional(pool).await?
    else {
        return Ok(PlacementMap::default());
    };
    Ok(PlacementMap {
        version: from_stored(row.try_get("version")?),
        replicas: stored::replicas_from_json(row.try_get("replicas")?)?,
        moves: stored::moves_from_json(row.try_get("moves")?)?,
        draining: stored::draining_from_json(row.try_get("draining")?)?,
    })
}

pub(super) async fn store_placement(
    pool: &Pool,
    map: &PlacementMap,
    expected: u64,
    guard: Option<&Lease>,
) -> Result<(), MetadataError> {
    let (mut transaction, _) = begin_write(pool).await?;
    if let Some(lease) = guard {
        leases::require(&mut transaction, lease).await?;
    }
    let found: Option<i64> =
        sqlx::query_scalar("SELECT version FROM placement").fetch_optional(&mut *transaction).await?;
    if found.map_or(0, from_stored) != expected || map.version <= expected {
        return Err(MetadataError::Conflict);
    }
    sqlx::query(
        "INSERT INTO placement (one, version, replicas, moves, draining) VALUES (1, $1, $2, $3, $4) \
         ON CONFLICT (one) DO UPDATE SET version = excluded.version, replicas = excluded.replicas, \
         moves = excluded.moves, draining = excluded.draining",
    )
    .bind(to_stored(map.version))
    .bind(stored::replicas_to_json(map))
    .bind(stored::moves_to_json(map))
    .bind(stored::draining_to_json(map))
    .execute(&mut *transaction)
    .await?;
    Ok(transaction.commit().await?)
}

pub(super) async fn secret(
    pool: &Pool,
    name: &str,
    fresh: [u8; SECRET_BYTES],
) -> Result<[u8; SECRET_BYTES], MetadataError> {
    sqlx::query("INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(name)
        .bind(&fresh[..])
        .execute(pool)
        .await?;
    let kept: Vec<u8> =
        sqlx::query_scalar("SELECT value FROM secrets WHERE name = $1").bind(name).fetch_one(pool).await?;
    kept.try_into().map_err(|_| MetadataError::Damaged { what: "secret" })
}
