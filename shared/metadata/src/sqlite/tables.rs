//! Tables: one row per life, columns in rows of their own.

use sqlx::{Row as _, SqliteConnection, SqlitePool, sqlite::SqliteRow};
use types::{
    ColumnDef, Generation, PartitionId, Schema, SchemaVersion, Table, TableId, TableKey, TableName, TableSettings,
    TenantId,
};

use super::{from_stored, to_stored};
use crate::{MetadataError, Reservation, StoredTable, stored};

/// What every reader of tables selects; a condition and an order follow.
macro_rules! select_tables {
    ($rest:literal) => {
        concat!(
            "SELECT t.table_id, t.generation, t.partitions, t.partition_by, t.partition_seed, t.identity_seed, t.schema_version, t.settings, ",
            "t.announced, t.ended, n.tenant, n.namespace, n.name FROM tables t JOIN table_names n USING (table_id) ",
            $rest
        )
    };
}

pub(super) async fn reserve(
    pool: &SqlitePool,
    tenant: TenantId,
    name: &TableName,
) -> Result<Reservation, MetadataError> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query("INSERT INTO table_names (tenant, namespace, name) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(to_stored(tenant.0))
        .bind(&name.namespace)
        .bind(&name.table)
        .execute(&mut *transaction)
        .await?;
    let row = sqlx::query(
        "SELECT n.table_id, COALESCE(MAX(t.generation), 0) AS generation FROM table_names n LEFT JOIN tables t USING (table_id) \
         WHERE n.tenant = $1 AND n.namespace = $2 AND n.name = $3 GROUP BY n.table_id",
    )
    .bind(to_stored(tenant.0))
    .bind(&name.namespace)
    .bind(&name.table)
    .fetch_one(&mut *transaction)
    .await?;
    let reservation = Reservation {
        table: TableId(from_stored(row.try_get("table_id")?)),
        generation: Generation(row.try_get::<u32, _>("generation")? + 1),
    };
    transaction.commit().await?;
    Ok(reservation)
}

pub(super) async fn create(pool: &SqlitePool, table: &Table) -> Result<(), MetadataError> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    let last = sqlx::query(
        "SELECT COALESCE(MAX(t.generation), 0) AS generation, COALESCE(SUM(t.ended = 0), 0) AS living \
         FROM table_names n LEFT JOIN tables t USING (table_id) WHERE n.table_id = $1 AND n.tenant = $2 GROUP BY n.table_id",
    )
    .bind(to_stored(table.key.table.0))
    .bind(to_stored(table.key.tenant.0))
    .fetch_optional(&mut *transaction)
    .await?
    .ok_or(MetadataError::NotFound)?;
    if last.try_get::<i64, _>("living")? > 0 {
        return Err(MetadataError::AlreadyExists);
    }
    if last.try_get::<u32, _>("generation")? + 1 != table.key.generation.0 {
        return Err(MetadataError::Conflict);
    }
    sqlx::query(
        "INSERT INTO tables (table_id, generation, partitions, partition_by, partition_seed, identity_seed, schema_version, settings) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(to_stored(table.key.table.0))
    .bind(table.key.generation.0)
    .bind(stored::partitions_to_json(&table.partitions))
    .bind(&table.partition_by)
    .bind(to_stored(table.partition_seed))
    .bind(to_stored(table.identity_seed))
    .bind(table.schema.version().0)
    .bind(stored::settings_to_json(&table.settings))
    .execute(&mut *transaction)
    .await?;
    insert_columns(&mut transaction, table, 0).await?;
    Ok(transaction.commit().await?)
}

pub(super) async fn update(pool: &SqlitePool, table: &Table, expected: SchemaVersion) -> Result<(), MetadataError> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    let found: u32 =
        sqlx::query_scalar("SELECT schema_version FROM tables WHERE table_id = $1 AND generation = $2 AND ended = 0")
            .bind(to_stored(table.key.table.0))
            .bind(table.key.generation.0)
            .fetch_optional(&mut *transaction)
            .await?
            .ok_or(MetadataError::NotFound)?;
    if found != expected.0 || table.schema.version() <= expected {
        return Err(MetadataError::Conflict);
    }
    sqlx::query("UPDATE tables SET schema_version = $1, settings = $2 WHERE table_id = $3 AND generation = $4")
        .bind(table.schema.version().0)
        .bind(stored::settings_to_json(&table.settings))
        .bind(to_stored(table.key.table.0))
        .bind(table.key.generation.0)
        .execute(&mut *transaction)
        .await?;
    let columns: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM columns WHERE table_id = $1 AND generation = $2")
        .bind(to_stored(table.key.table.0))
        .bind(table.key.generation.0)
        .fetch_one(&mut *transaction)
        .await?;
    let columns = usize::try_from(columns).map_err(|_| MetadataError::Damaged { what: "column count" })?;
    insert_columns(&mut transaction, table, columns).await?;
    Ok(transaction.commit().await?)
}

/// Inserts the columns from position `from` on as those of the table's version.
async fn insert_columns(connection: &mut SqliteConnection, table: &Table, from: usize) -> Result<(), MetadataError> {
    for (position, column) in table.schema.columns().iter().enumerate().skip(from) {
        sqlx::query(
            "INSERT INTO columns (table_id, generation, position, name, kind, since_version) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(to_stored(table.key.table.0))
        .bind(table.key.generation.0)
        .bind(position as i64)
        .bind(&column.name)
        .bind(stored::kind_to_stored(column.kind))
        .bind(table.schema.version().0)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

pub(super) async fn end(pool: &SqlitePool, key: TableKey) -> Result<(), MetadataError> {
    let ended = sqlx::query("UPDATE tables SET ended = 1 WHERE table_id = $1 AND generation = $2 AND ended = 0")
        .bind(to_stored(key.table.0))
        .bind(key.generation.0)
        .execute(pool)
        .await?;
    if ended.rows_affected() == 0 { Err(MetadataError::NotFound) } else { Ok(()) }
}

pub(super) async fn mark_announced(
    pool: &SqlitePool,
    key: TableKey,
    version: SchemaVersion,
) -> Result<(), MetadataError> {
    sqlx::query("UPDATE tables SET announced = MAX(announced, $1) WHERE table_id = $2 AND generation = $3")
        .bind(version.0)
        .bind(to_stored(key.table.0))
        .bind(key.generation.0)
        .execute(pool)
        .await?;
    Ok(())
}

pub(super) async fn mark_end_announced(pool: &SqlitePool, key: TableKey) -> Result<(), MetadataError> {
    sqlx::query("UPDATE tables SET ended = 2 WHERE table_id = $1 AND generation = $2 AND ended = 1")
        .bind(to_stored(key.table.0))
        .bind(key.generation.0)
        .execute(pool)
        .await?;
    Ok(())
}

pub(super) async fn by_name(
    pool: &SqlitePool,
    tenant: TenantId,
    name: &TableName,
) -> Result<Option<StoredTable>, MetadataError> {
    let query = sqlx::query(select_tables!("WHERE n.tenant = $1 AND n.namespace = $2 AND n.name = $3 AND t.ended = 0"))
        .bind(to_stored(tenant.0))
        .bind(&name.namespace)
        .bind(&name.table);
    Ok(read_all(pool, query).await?.pop())
}

pub(super) async fn by_key(pool: &SqlitePool, key: TableKey) -> Result<Option<StoredTable>, MetadataError> {
    let query = sqlx::query(select_tables!("WHERE t.table_id = $1 AND t.generation = $2 AND n.tenant = $3"))
        .bind(to_stored(key.table.0))
        .bind(key.generation.0)
        .bind(to_stored(key.tenant.0));
    Ok(read_all(pool, query).await?.pop())
}

pub(super) async fn living(pool: &SqlitePool, tenant: Option<TenantId>) -> Result<Vec<StoredTable>, MetadataError> {
    let query = sqlx::query(select_tables!(
        "WHERE t.ended = 0 AND ($1 IS NULL OR n.tenant = $1) ORDER BY n.tenant, n.namespace, n.name"
    ))
    .bind(tenant.map(|tenant| to_stored(tenant.0)));
    read_all(pool, query).await
}

pub(super) async fn unannounced(pool: &SqlitePool) -> Result<Vec<StoredTable>, MetadataError> {
    let query = sqlx::query(select_tables!(
        "WHERE t.ended = 1 OR (t.ended = 0 AND t.announced < t.schema_version) ORDER BY t.ended DESC, t.table_id, t.generation"
    ));
    read_all(pool, query).await
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

/// Reads tables and their columns from one snapshot, so that version and columns belong together.
async fn read_all(pool: &SqlitePool, query: Query<'_>) -> Result<Vec<StoredTable>, MetadataError> {
    let mut transaction = pool.begin().await?;
    let mut tables = Vec::new();
    for row in query.fetch_all(&mut *transaction).await? {
        let life = Life::read(&row)?;
        let columns = columns_of(&mut transaction, life.key).await?;
        tables.push(life.with_columns(columns));
    }
    transaction.commit().await?;
    Ok(tables)
}

async fn columns_of(connection: &mut SqliteConnection, key: TableKey) -> Result<Vec<ColumnDef>, MetadataError> {
    sqlx::query("SELECT name, kind FROM columns WHERE table_id = $1 AND generation = $2 ORDER BY position")
        .bind(to_stored(key.table.0))
        .bind(key.generation.0)
        .fetch_all(connection)
        .await?
        .iter()
        .map(|row| Ok(ColumnDef { name: row.try_get("name")?, kind: stored::kind_from_stored(row.try_get("kind")?)? }))
        .collect()
}

/// A row of `tables` with its name.
struct Life {
    key: TableKey,
    name: TableName,
    partitions: Vec<PartitionId>,
    partition_by: Option<String>,
    partition_seed: u64,
    identity_seed: u64,
    schema_version: SchemaVersion,
    settings: TableSettings,
    announced: SchemaVersion,
    ended: bool,
}

impl Life {
    fn read(row: &SqliteRow) -> Result<Self, MetadataError> {
        Ok(Self {
            key: TableKey {
                tenant: TenantId(from_stored(row.try_get("tenant")?)),
                table: TableId(from_stored(row.try_get("table_id")?)),
                generation: Generation(row.try_get("generation")?),
            },
            name: TableName::new(row.try_get::<String, _>("namespace")?, row.try_get::<String, _>("name")?),
            partitions: stored::partitions_from_json(row.try_get("partitions")?)?,
            partition_by: row.try_get("partition_by")?,
            partition_seed: from_stored(row.try_get("partition_seed")?),
            identity_seed: from_stored(row.try_get("identity_seed")?),
            schema_version: SchemaVersion(row.try_get("schema_version")?),
            settings: stored::settings_from_json(row.try_get("settings")?)?,
            announced: SchemaVersion(row.try_get("announced")?),
            ended: row.try_get::<i64, _>("ended")? != 0,
        })
    }

    fn with_columns(self, columns: Vec<ColumnDef>) -> StoredTable {
        StoredTable {
            table: Table {
                key: self.key,
                name: self.name,
                partitions: self.partitions,
                partition_by: self.partition_by,
                partition_seed: self.partition_seed,
                identity_seed: self.identity_seed,
                schema: Schema::from_parts(self.schema_version, columns),
                settings: self.settings,
            },
            announced: self.announced,
            ended: self.ended,
        }
    }
}
