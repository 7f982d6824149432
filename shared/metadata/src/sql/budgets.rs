//! Shares of tenants' budgets, a row for each gateway that uses one.

use std::time::Duration;

use sqlx::Row as _;
use types::TenantId;

use super::{Pool, begin_budgets};
use crate::{
    MetadataError, Share, Want,
    stored::{self, from_stored, micros},
};

pub(super) async fn renew(
    pool: &Pool,
    gateway: &str,
    wants: &[Want],
    ttl: Duration,
) -> Result<Vec<Share>, MetadataError> {
    let mut transaction = begin_budgets(pool).await?;
    sqlx::query(concat!("DELETE FROM budget_shares WHERE gateway = $1 OR expires_at <= ", now_us!()))
        .bind(gateway)
        .execute(&mut *transaction)
        .await?;
    // All rows that are left are of others and good: the part in proportion, and no more than they leave.
    let rows = sqlx::query(concat!(
        "INSERT INTO budget_shares (tenant, gateway, want, share, expires_at) ",
        "SELECT tenant, $1, want, CASE WHEN part < rest THEN part ELSE rest END, ",
        now_us!(),
        " + $3 FROM (SELECT w.tenant AS tenant, w.want AS want, ",
        "w.want * 1000000 / (w.want + COALESCE(o.want, 0)) AS part, 1000000 - COALESCE(o.share, 0) AS rest FROM (",
        wants!("$2"),
        ") w LEFT JOIN (SELECT tenant, CAST(SUM(want) AS BIGINT) AS want, CAST(SUM(share) AS BIGINT) AS share ",
        "FROM budget_shares GROUP BY tenant) o ON o.tenant = w.tenant WHERE w.want > 0) parts RETURNING tenant, share"
    ))
    .bind(gateway)
    .bind(stored::wants_to_json(wants))
    .bind(micros(ttl))
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    rows.iter()
        .map(|row| {
            let tenant = TenantId(from_stored(row.try_get("tenant")?));
            Ok(Share { tenant, of_whole: from_stored(row.try_get("share")?) })
        })
        .collect()
}
