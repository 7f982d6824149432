//! The tables of the database and how they came to be. Migrations are only ever added at the end.

use sqlx::SqlitePool;

use crate::MetadataError;

/// Each is run once, in order, in a transaction of its own together with the note that it was run.
const MIGRATIONS: &[&str] = &[
    include_str!("0001_first.sql"),
    include_str!("0002_identity_seed.sql"),
    include_str!("0003_coordination.sql"),
    include_str!("0004_moves.sql"),
    include_str!("0005_registrations.sql"),
];

/// Brings the database to the newest format.
pub(super) async fn migrate(pool: &SqlitePool) -> Result<(), MetadataError> {
    sqlx::raw_sql("CREATE TABLE IF NOT EXISTS format (version INTEGER PRIMARY KEY)").execute(pool).await?;
    let found: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM format").fetch_one(pool).await?;
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(MetadataError::Newer { found, known });
    }
    for (version, sql) in (1_i64..).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
        let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::raw_sql(*sql).execute(&mut *transaction).await?;
        sqlx::query("INSERT INTO format (version) VALUES ($1)").bind(version).execute(&mut *transaction).await?;
        transaction.commit().await?;
    }
    Ok(())
}
