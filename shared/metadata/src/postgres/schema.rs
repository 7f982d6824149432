//! The tables of the database and how they came to be. Migrations are only ever added at the end.

use sqlx::PgPool;

use crate::MetadataError;

/// Each is run once, in order, all that are missing in one transaction together with the notes that they were run.
const MIGRATIONS: &[&str] =
    &[include_str!("0001_first.sql"), include_str!("0002_moves.sql"), include_str!("0003_registrations.sql")];

/// The advisory lock under which one process migrates while others that start at once wait; advisory locks are of one database.
const LOCK: i64 = 0x7472_7565_6e6f_7700; // "truenow"

/// Brings the database to the newest format.
pub(super) async fn migrate(pool: &PgPool) -> Result<(), MetadataError> {
    let mut transaction = pool.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await?;
    sqlx::raw_sql("CREATE TABLE IF NOT EXISTS format (version BIGINT PRIMARY KEY)").execute(&mut *transaction).await?;
    let found: i64 =
        sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM format").fetch_one(&mut *transaction).await?;
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(MetadataError::Newer { found, known });
    }
    for (version, sql) in (1_i64..).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
        sqlx::raw_sql(*sql).execute(&mut *transaction).await?;
        sqlx::query("INSERT INTO format (version) VALUES ($1)").bind(version).execute(&mut *transaction).await?;
    }
    Ok(transaction.commit().await?)
}
