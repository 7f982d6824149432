//! `GET /v1/replicas/{namespace}/{table}/{partition}`: whether the replicas of a partition hold the same rows of a table.

use std::{sync::Arc, time::Instant};

use proto::hot_tier::{Compared, compare_replicas};
use query::RowsChecksum;
use serde::Serialize;
use types::{ApiError, ErrorCode, PartitionId, TableName, TenantId, Timestamp};

use crate::{
    answer::{Answers, DEADLINE_GRACE, timed_out, unwritable},
    held::Held,
};

/// What is told of a partition.
#[derive(Serialize)]
struct Reply {
    partition: u32,
    /// The rows of the records before this offset were compared.
    offset: u64,
    /// Of these the rows with event times from this on; `null`: all.
    from_us: Option<i64>,
    /// Whether all have the same; `null`: there were not two of them.
    agree: Option<bool>,
    replicas: Vec<Replica>,
    /// Nodes that should have the partition and could not be asked.
    away: Vec<u64>,
}

#[derive(Serialize)]
struct Replica {
    node: u64,
    rows: u64,
    /// 32 hexadecimal digits.
    checksum: String,
}

impl Reply {
    fn new(partition: PartitionId, compared: &Compared) -> Self {
        let replicas = compared.found.iter().map(|(node, RowsChecksum { rows, sum })| Replica {
            node: node.0,
            rows: *rows,
            checksum: format!("{sum:032x}"),
        });
        Self {
            partition: partition.0,
            offset: compared.at.0,
            from_us: Some(compared.from).filter(|from| *from > Timestamp::MIN).map(|from| from.0),
            agree: compared.agree(),
            replicas: replicas.collect(),
            away: compared.away.iter().map(|node| node.0).collect(),
        }
    }
}

impl Answers {
    /// Compares the replicas of a partition, as JSON, and until when that waits for who asked.
    ///
    /// # Errors
    /// Those of the contract: `NOT_FOUND` also where the table does not use the partition.
    pub(crate) async fn replicas(
        &self,
        tenant: TenantId,
        name: TableName,
        partition: PartitionId,
    ) -> Result<(String, Held), ApiError> {
        let timeout = self.limits.timeout_max;
        let deadline = Instant::now() + timeout;
        let until = deadline + DEADLINE_GRACE;
        match tokio::time::timeout_at(until.into(), self.compared(tenant, name, partition, deadline)).await {
            Ok(compared) => {
                let text = serde_json::to_string(&Reply::new(partition, &compared?)).map_err(|e| unwritable(&e))?;
                let share = Arc::new(self.unsent.take(text.len())?);
                Ok((text, Held { until, timeout, share }))
            }
            Err(_) => Err(timed_out(timeout)),
        }
    }

    async fn compared(
        &self,
        tenant: TenantId,
        name: TableName,
        partition: PartitionId,
        deadline: Instant,
    ) -> Result<Compared, ApiError> {
        let table = self.table(tenant, &name).await?;
        if !table.partitions.contains(&partition) {
            let message = format!("table {name} has nothing in partition {partition}");
            return Err(ApiError::new(ErrorCode::NotFound, message).with_field("partition"));
        }
        // All rows of the partition are read, which is a query's work.
        let _place = self.places.take(deadline, self.limits.timeout_max).await?;
        let holders = self.fleet.holders(&self.catalog.placement(), partition);
        let mut compared = compare_replicas(&holders.there, table.key, partition, deadline).await?;
        // Where it was deleted meanwhile, some replicas may have known it longer than others.
        self.still_there(tenant, &[table]).await?;
        compared.away.extend(holders.absent);
        compared.away.sort_unstable();
        Ok(compared)
    }
}
