//! Tenants, nodes, the placement map and secrets.

use placement::PlacementMap;
use sqlx::{Row as _, SqlitePool};
use types::{NodeId, TenantId, Timestamp};

use super::{from_stored, to_stored};
use crate::{MetadataError, NodeRecord, SECRET_BYTES, Tenant, stored};

pub(super) async fn ensure_tenant(pool: &SqlitePool, tenant: &Tenant) -> Result<(), MetadataError> {
    sqlx::query("INSERT INTO tenants (tenant, name, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(to_stored(tenant.id.0))
        .bind(&tenant.name)
        .bind(tenant.created_at.0)
        .execute(pool)
        .await?;
    Ok(())
}

pub(super) async fn tenants(pool: &SqlitePool) -> Result<Vec<Tenant>, MetadataError> {
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

pub(super) async fn register_node(pool: &SqlitePool, node: &NodeRecord) -> Result<(), MetadataError> {
    sqlx::query(
        "INSERT INTO nodes (node, zone, address, heartbeat_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (node) DO UPDATE SET zone = excluded.zone, address = excluded.address, \
         heartbeat_at = MAX(heartbeat_at, excluded.heartbeat_at)",
    )
    .bind(to_stored(node.id.0))
    .bind(&node.zone)
    .bind(&node.address)
    .bind(node.heartbeat_at.0)
    .execute(pool)
    .await?;
    Ok(())
}

pub(super) async fn nodes(pool: &SqlitePool) -> Result<Vec<NodeRecord>, MetadataError> {
    let rows = sqlx::query("SELECT node, zone, address, heartbeat_at FROM nodes ORDER BY node").fetch_all(pool).await?;
    rows.iter()
        .map(|row| {
            Ok(NodeRecord {
                id: NodeId(from_stored(row.try_get("node")?)),
                zone: row.try_get("zone")?,
                address: row.try_get("address")?,
                heartbeat_at: Timestamp(row.try_get("heartbeat_at")?),
            })
        })
        .collect()
}

pub(super) async fn placement(pool: &SqlitePool) -> Result<PlacementMap, MetadataError> {
    let Some(row) = sqlx::query("SELECT version, replicas FROM placement").fetch_optional(pool).await? else {
        return Ok(PlacementMap::default());
    };
    Ok(PlacementMap {
        version: from_stored(row.try_get("version")?),
        replicas: stored::replicas_from_json(row.try_get("replicas")?)?,
    })
}

pub(super) async fn store_placement(pool: &SqlitePool, map: &PlacementMap, expected: u64) -> Result<(), MetadataError> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    let found: Option<i64> =
        sqlx::query_scalar("SELECT version FROM placement").fetch_optional(&mut *transaction).await?;
    if found.map_or(0, from_stored) != expected || map.version <= expected {
        return Err(MetadataError::Conflict);
    }
    sqlx::query(
        "INSERT INTO placement (one, version, replicas) VALUES (1, $1, $2) \
         ON CONFLICT (one) DO UPDATE SET version = excluded.version, replicas = excluded.replicas",
    )
    .bind(to_stored(map.version))
    .bind(stored::replicas_to_json(map))
    .execute(&mut *transaction)
    .await?;
    Ok(transaction.commit().await?)
}

pub(super) async fn secret(
    pool: &SqlitePool,
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
