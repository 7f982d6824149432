//! Leases, each a row whose epoch only rises.

use std::time::Duration;

use sqlx::Row as _;

use super::{Connection, Pool};
use crate::{
    Claim, Lease, MetadataError,
    stored::{from_stored, micros, to_stored},
};

/// How often a lease is tried that ran out between the attempt to take it and the look at who has it.
const ATTEMPTS_MAX: usize = 3;

pub(super) async fn take(pool: &Pool, name: &str, holder: &str, ttl: Duration) -> Result<Claim, MetadataError> {
    for _ in 0..ATTEMPTS_MAX {
        // A conflicting row is locked before its condition is read: of two that find it free one takes it.
        let epoch: Option<i64> = sqlx::query_scalar(concat!(
            "INSERT INTO leases (name, holder, epoch, expires_at) VALUES ($1, $2, 1, ",
            now_us!(),
            " + $3) ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, epoch = leases.epoch + 1, ",
            "expires_at = excluded.expires_at WHERE leases.expires_at <= ",
            now_us!(),
            " OR leases.holder = excluded.holder RETURNING epoch"
        ))
        .bind(name)
        .bind(holder)
        .bind(micros(ttl))
        .fetch_optional(pool)
        .await?;
        if let Some(epoch) = epoch {
            let lease = Lease { name: name.to_owned(), holder: holder.to_owned(), epoch: from_stored(epoch) };
            return Ok(Claim::Taken(lease));
        }
        if let Some(held) = holder_of(pool, name).await? {
            return Ok(held);
        }
    }
    Err(MetadataError::Conflict)
}

/// Who has a lease now; `None` where nobody has.
async fn holder_of(pool: &Pool, name: &str) -> Result<Option<Claim>, MetadataError> {
    let row = sqlx::query(concat!(
        "SELECT holder, epoch, expires_at - ",
        now_us!(),
        " AS rest_us FROM leases WHERE name = $1"
    ))
    .bind(name)
    .fetch_optional(pool)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let rest_us: i64 = row.try_get("rest_us")?;
    let Some(rest_us) = u64::try_from(rest_us).ok().filter(|&rest_us| rest_us > 0) else { return Ok(None) };
    Ok(Some(Claim::HeldBy {
        holder: row.try_get("holder")?,
        epoch: from_stored(row.try_get("epoch")?),
        runs_out_in: Duration::from_micros(rest_us),
    }))
}

pub(super) async fn renew(pool: &Pool, lease: &Lease, ttl: Duration) -> Result<(), MetadataError> {
    let done = sqlx::query(concat!(
        "UPDATE leases SET expires_at = ",
        now_us!(),
        " + $1 WHERE name = $2 AND holder = $3 AND epoch = $4 AND expires_at > 0"
    ))
    .bind(micros(ttl))
    .bind(&lease.name)
    .bind(&lease.holder)
    .bind(to_stored(lease.epoch))
    .execute(pool)
    .await?;
    if done.rows_affected() == 0 { Err(MetadataError::Fenced) } else { Ok(()) }
}

pub(super) async fn give_up(pool: &Pool, lease: &Lease) -> Result<(), MetadataError> {
    sqlx::query("UPDATE leases SET expires_at = 0 WHERE name = $1 AND holder = $2 AND epoch = $3")
        .bind(&lease.name)
        .bind(&lease.holder)
        .bind(to_stored(lease.epoch))
        .execute(pool)
        .await?;
    Ok(())
}

/// Holds the lease's row until the transaction ends, so that nobody takes it before what it guards is done.
pub(super) async fn require(connection: &mut Connection, lease: &Lease) -> Result<(), MetadataError> {
    let done = sqlx::query(
        "UPDATE leases SET epoch = epoch WHERE name = $1 AND holder = $2 AND epoch = $3 AND expires_at > 0",
    )
    .bind(&lease.name)
    .bind(&lease.holder)
    .bind(to_stored(lease.epoch))
    .execute(connection)
    .await?;
    if done.rows_affected() == 0 { Err(MetadataError::Fenced) } else { Ok(()) }
}
