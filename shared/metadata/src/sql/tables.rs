//! Tables: one row per life, columns in rows of their own.

use std::collections::HashMap;

use sqlx::Row as _;
use types::{
    ColumnDef, Generation, PartitionId, Schema, SchemaVersion, Table, TableId, TableKey, TableName, TableSettings,
    TenantId,
};

use super::{Connection, DatabaseRow, Pool, Query, begin_read, begin_write};
use crate::{
    Changes, MetadataError, Reservation, StoredTable,
    stored::{self, from_stored, narrow, to_stored},
};

/// Which tables to read: the texts that read them and their columns.
struct Selection {
    tables: &'static str,
    columns: &'static str,
}

/// The selection of a condition, in an order.
macro_rules! selection {
    ($condition:literal, $order:literal) => {
        Selection {
            tables: concat!(
                "SELECT t.table_id, t.generation, t.partitions, t.partition_by, t.partition_seed, t.identity_seed, ",
                "t.schema_version, t.settings, t.announced, t.ended, n.tenant, n.namespace, n.name ",
                "FROM tables t JOIN table_names n ON n.table_id = t.table_id WHERE ",
                $condition,
                " ORDER BY ",
                $order
            ),
            columns: concat!(
                "SELECT c.table_id, c.generation, c.name, c.kind FROM tables t JOIN table_names n ON n.table_id = t.table_id ",
                "JOIN columns c ON c.table_id = t.table_id AND c.generation = t.generation WHERE ",
                $condition,
                " ORDER BY c.table_id, c.generation, c.position"
            ),
        }
    };
}

pub(super) async fn reserve(pool: &Pool, tenant: TenantId, name: &TableName) -> Result<Reservation, MetadataError> {
    let (mut transaction, _) = begin_write(pool).await?;
    sqlx::query("INSERT INTO table_names (tenant, namespace, name) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(to_stored(tenant.0))
        .bind(&name.namespace)
        .bind(&name.table)
        .execute(&mut *transaction)
        .await?;
    let row = sqlx::query(
        "SELECT n.table_id, COALESCE(MAX(t.generation), 0) AS generation \
         FROM table_names n LEFT JOIN tables t ON t.table_id = n.table_id \
         WHERE n.tenant = $1 AND n.namespace = $2 AND n.name = $3 GROUP BY n.table_id",
    )
    .bind(to_stored(tenant.0))
    .bind(&name.namespace)
    .bind(&name.table)
    .fetch_one(&mut *transaction)
    .await?;
    let reservation = Reservation {
        table: TableId(from_stored(row.try_get("table_id")?)),
        generation: Generation(narrow(row.try_get("generation")?, "generation")? + 1),
    };
    transaction.commit().await?;
    Ok(reservation)
}

pub(super) async fn create(pool: &Pool, table: &Table) -> Result<(), MetadataError> {
    let (mut transaction, version) = begin_write(pool).await?;
    let last = sqlx::query(
        "SELECT COALESCE(MAX(t.generation), 0) AS generation, COUNT(*) FILTER (WHERE t.ended = 0) AS living \
         FROM table_names n LEFT JOIN tables t ON t.table_id = n.table_id \
         WHERE n.table_id = $1 AND n.tenant = $2 GROUP BY n.table_id",
    )
    .bind(to_stored(table.key.table.0))
    .bind(to_stored(table.key.tenant.0))
    .fetch_optional(&mut *transaction)
    .await?
    .ok_or(MetadataError::NotFound)?;
    if last.try_get::<i64, _>("living")? > 0 {
        return Err(MetadataError::AlreadyExists);
    }
    if narrow(last.try_get("generation")?, "generation")? + 1 != table.key.generation.0 {
        return Err(MetadataError::Conflict);
    }
    sqlx::query(
        "INSERT INTO tables (table_id, generation, partitions, partition_by, partition_seed, identity_seed, schema_version, \
         settings, changed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(to_stored(table.key.table.0))
    .bind(i64::from(table.key.generation.0))
    .bind(stored::partitions_to_json(&table.partitions))
    .bind(&table.partition_by)
    .bind(to_stored(table.partition_seed))
    .bind(to_stored(table.identity_seed))
    .bind(i64::from(table.schema.version().0))
    .bind(stored::settings_to_json(&table.settings))
    .bind(version)
    .execute(&mut *transaction)
    .await?;
    insert_columns(&mut transaction, table, 0).await?;
    Ok(transaction.commit().await?)
}

pub(super) async fn update(pool: &Pool, table: &Table, expected: SchemaVersion) -> Result<(), MetadataError> {
    let (mut transaction, version) = begin_write(pool).await?;
    let found: i64 =
        sqlx::query_scalar("SELECT schema_version FROM tables WHERE table_id = $1 AND generation = $2 AND ended = 0")
            .bind(to_stored(table.key.table.0))
            .bind(i64::from(table.key.generation.0))
            .fetch_optional(&mut *transaction)
            .await?
            .ok_or(MetadataError::NotFound)?;
    if found != i64::from(expected.0) || table.schema.version() <= expected {
        return Err(MetadataError::Conflict);
    }
    sqlx::query(
        "UPDATE tables SET schema_version = $1, settings = $2, changed = $3 WHERE table_id = $4 AND generation = $5",
    )
    .bind(i64::from(table.schema.version().0))
    .bind(stored::settings_to_json(&table.settings))
    .bind(version)
    .bind(to_stored(table.key.table.0))
    .bind(i64::from(table.key.generation.0))
    .execute(&mut *transaction)
    .await?;
    let columns: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM columns WHERE table_id = $1 AND generation = $2")
        .bind(to_stored(table.key.table.0))
        .bind(i64::from(table.key.generation.0))
        .fetch_one(&mut *transaction)
        .await?;
    let columns = usize::try_from(columns).map_err(|_| MetadataError::Damaged { what: "column count" })?;
    insert_columns(&mut transaction, table, columns).await?;
    Ok(transaction.commit().await?)
}

/// Inserts the columns from position `from` on as those of the table's version.
async fn insert_columns(connection: &mut Connection, table: &Table, from: usize) -> Result<(), MetadataError> {
    for (position, column) in table.schema.columns().iter().enumerate().skip(from) {
        sqlx::query(
            "INSERT INTO columns (table_id, generation, position, name, kind, since_version) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(to_stored(table.key.table.0))
        .bind(i64::from(table.key.generation.0))
        .bind(position as i64)
        .bind(&column.name)
        .bind(stored::kind_to_stored(column.kind))
        .bind(i64::from(table.schema.version().0))
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

pub(super) async fn end(pool: &Pool, key: TableKey) -> Result<(), MetadataError> {
    const SQL: &str = "UPDATE tables SET ended = 1, changed = $1 WHERE table_id = $2 AND generation = $3 AND ended = 0";
    if change_life(pool, SQL, key).await? == 0 { Err(MetadataError::NotFound) } else { Ok(()) }
}

pub(super) async fn mark_announced(pool: &Pool, key: TableKey, version: SchemaVersion) -> Result<(), MetadataError> {
    let (mut transaction, change) = begin_write(pool).await?;
    sqlx::query(
        "UPDATE tables SET announced = $1, changed = $2 WHERE table_id = $3 AND generation = $4 AND announced < $1",
    )
    .bind(i64::from(version.0))
    .bind(change)
    .bind(to_stored(key.table.0))
    .bind(i64::from(key.generation.0))
    .execute(&mut *transaction)
    .await?;
    Ok(transaction.commit().await?)
}

pub(super) async fn mark_end_announced(pool: &Pool, key: TableKey) -> Result<(), MetadataError> {
    const SQL: &str = "UPDATE tables SET ended = 2, changed = $1 WHERE table_id = $2 AND generation = $3 AND ended = 1";
    change_life(pool, SQL, key).await.map(drop)
}

/// Runs a change of one life that takes the new version and the key; gives the number of rows that it changed.
async fn change_life(pool: &Pool, sql: &'static str, key: TableKey) -> Result<u64, MetadataError> {
    let (mut transaction, version) = begin_write(pool).await?;
    let done = sqlx::query(sql)
        .bind(version)
        .bind(to_stored(key.table.0))
        .bind(i64::from(key.generation.0))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(done.rows_affected())
}

pub(super) async fn by_name(
    pool: &Pool,
    tenant: TenantId,
    name: &TableName,
) -> Result<Option<StoredTable>, MetadataError> {
    let selection =
        selection!("n.tenant = $1 AND n.namespace = $2 AND n.name = $3 AND t.ended = 0", "t.generation DESC");
    let bind = |query: Query| query.bind(to_stored(tenant.0)).bind(name.namespace.clone()).bind(name.table.clone());
    Ok(read(pool, &selection, bind).await?.pop())
}

pub(super) async fn by_key(pool: &Pool, key: TableKey) -> Result<Option<StoredTable>, MetadataError> {
    let selection = selection!("t.table_id = $1 AND t.generation = $2 AND n.tenant = $3", "t.generation");
    let bind = |query: Query| {
        query.bind(to_stored(key.table.0)).bind(i64::from(key.generation.0)).bind(to_stored(key.tenant.0))
    };
    Ok(read(pool, &selection, bind).await?.pop())
}

pub(super) async fn living(pool: &Pool, tenant: Option<TenantId>) -> Result<Vec<StoredTable>, MetadataError> {
    let selection = selection!("t.ended = 0 AND ($1 IS NULL OR n.tenant = $1)", "n.tenant, n.namespace, n.name");
    read(pool, &selection, |query| query.bind(tenant.map(|tenant| to_stored(tenant.0)))).await
}

pub(super) async fn unannounced(pool: &Pool) -> Result<Vec<StoredTable>, MetadataError> {
    let selection = selection!(
        "(t.ended = 1 OR (t.ended = 0 AND t.announced < t.schema_version))",
        "t.ended DESC, t.table_id, t.generation"
    );
    read(pool, &selection, |query| query).await
}

pub(super) async fn changes(pool: &Pool, since: u64) -> Result<Changes, MetadataError> {
    let mut transaction = begin_read(pool).await?;
    let found = sqlx::query_scalar("SELECT version FROM changes").fetch_one(&mut *transaction).await;
    let version = from_stored(found?);
    // Versions of before a backup was restored mean nothing any more.
    let since = if since > version { 0 } else { since };
    let mut tables = Vec::new();
    if since == 0 {
        let selection = selection!("t.ended = 0", "t.changed, t.table_id, t.generation");
        tables = read_in(&mut transaction, &selection, |query| query).await?;
    } else if since < version {
        let selection = selection!("t.changed > $1", "t.changed, t.table_id, t.generation");
        tables = read_in(&mut transaction, &selection, |query| query.bind(to_stored(since))).await?;
    }
    transaction.commit().await?;
    Ok(Changes { version, tables })
}

/// Reads tables and their columns from one snapshot, so that version and columns belong together.
async fn read(
    pool: &Pool,
    selection: &Selection,
    bind: impl Fn(Query) -> Query,
) -> Result<Vec<StoredTable>, MetadataError> {
    let mut transaction = begin_read(pool).await?;
    let tables = read_in(&mut transaction, selection, bind).await?;
    transaction.commit().await?;
    Ok(tables)
}

async fn read_in(
    connection: &mut Connection,
    selection: &Selection,
    bind: impl Fn(Query) -> Query,
) -> Result<Vec<StoredTable>, MetadataError> {
    let rows = bind(sqlx::query(selection.tables)).fetch_all(&mut *connection).await?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut columns = HashMap::<(i64, i64), Vec<ColumnDef>>::new();
    for row in bind(sqlx::query(selection.columns)).fetch_all(connection).await? {
        let column = ColumnDef { name: row.try_get("name")?, kind: stored::kind_from_stored(row.try_get("kind")?)? };
        columns.entry((row.try_get("table_id")?, row.try_get("generation")?)).or_default().push(column);
    }
    rows.iter()
        .map(|row| {
            let columns = columns.remove(&(row.try_get("table_id")?, row.try_get("generation")?));
            stored_table(row, columns.unwrap_or_default())
        })
        .collect()
}

fn stored_table(row: &DatabaseRow, columns: Vec<ColumnDef>) -> Result<StoredTable, MetadataError> {
    let settings: TableSettings = stored::settings_from_json(row.try_get("settings")?)?;
    let partitions: Vec<PartitionId> = stored::partitions_from_json(row.try_get("partitions")?)?;
    let schema_version = SchemaVersion(narrow(row.try_get("schema_version")?, "schema version")?);
    Ok(StoredTable {
        table: Table {
            key: TableKey {
                tenant: TenantId(from_stored(row.try_get("tenant")?)),
                table: TableId(from_stored(row.try_get("table_id")?)),
                generation: Generation(narrow(row.try_get("generation")?, "generation")?),
            },
            name: TableName::new(row.try_get::<String, _>("namespace")?, row.try_get::<String, _>("name")?),
            partitions,
            partition_by: row.try_get("partition_by")?,
            partition_seed: from_stored(row.try_get("partition_seed")?),
            identity_seed: from_stored(row.try_get("identity_seed")?),
            schema: Schema::from_parts(schema_version, columns),
            settings,
        },
        announced: SchemaVersion(narrow(row.try_get("announced")?, "announced version")?),
        ended: row.try_get::<i64, _>("ended")? != 0,
    })
}
