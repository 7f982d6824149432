//! Looks every few seconds whether the ledgers of all tables balance: as gauges, in the log, and as the service's health.
//!
//! 1. One look that finds an imbalance is logged and counted. Two in a row make the service degraded, by the tables'
//!    names.
//! 2. Only a look that finds the ledger in balance, or the table gone, ends that. What cannot be counted changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proto::catalog::{Catalog, Tenants};
use types::{Table, TableKey, TableName, TenantId};

use crate::{
    ledger::Ledger,
    ledgers::{Count, Ledgers},
};

/// With more records waiting than this a table is left out of a round: what waits is counted record by record, and the
/// lag has an alarm of its own.
const RECORDS_MAX: u64 = 10_000;
/// Looks in a row that make an alarm.
const ALARM_LOOKS: u32 = 2;

/// Watches the ledgers of all tables of all tenants.
pub(crate) struct Audit {
    catalog: Arc<dyn Catalog>,
    ledgers: Ledgers,
    tenants: Arc<dyn Tenants>,
    suspects: BTreeMap<TableKey, Suspect>,
}

/// A table whose ledger did not balance when it was counted last.
struct Suspect {
    table: Arc<Table>,
    looks: u32,
}

impl Audit {
    pub(crate) fn new(catalog: Arc<dyn Catalog>, ledgers: Ledgers, tenants: Arc<dyn Tenants>) -> Self {
        Self { catalog, ledgers, tenants, suspects: BTreeMap::new() }
    }

    /// Counts the ledgers of all tables; returns the names of those to raise the alarm for.
    pub(crate) async fn round(&mut self) -> Vec<String> {
        match self.tenants.tenants().await {
            Ok(tenants) => self.audit_all(tenants).await,
            Err(error) => tracing::warn!(%error, "the tenants could not be listed, so no ledger was counted"),
        }
        let alarming = self.suspects.values().filter(|suspect| suspect.looks >= ALARM_LOOKS);
        let name = |suspect: &Suspect| match suspect.table.key.tenant {
            TenantId::DEFAULT => suspect.table.name.to_string(),
            tenant => format!("{} of tenant {tenant}", suspect.table.name),
        };
        alarming.map(name).collect()
    }

    async fn audit_all(&mut self, tenants: Vec<TenantId>) {
        // A tenant that is gone has no tables, and is not asked for them any more.
        let known: BTreeSet<TenantId> = tenants.iter().copied().collect();
        self.keep_suspects(|key| known.contains(&key.tenant));
        for tenant in tenants {
            match self.catalog.tables(tenant).await {
                Ok(tables) => self.audit(tenant, tables).await,
                Err(error) => tracing::warn!(%error, "the ledgers' tables could not be listed"),
            }
        }
    }

    /// Drops the suspects that are gone.
    fn keep_suspects(&mut self, exists: impl Fn(&TableKey) -> bool) {
        self.suspects.retain(|key, suspect| {
            let stays = exists(key);
            if !stays {
                publish(&suspect.table, true);
            }
            stays
        });
    }

    async fn audit(&mut self, tenant: TenantId, tables: Vec<Arc<Table>>) {
        let known: BTreeSet<TableKey> = tables.iter().map(|table| table.key).collect();
        self.keep_suspects(|key| key.tenant != tenant || known.contains(key));
        for table in tables {
            match self.ledgers.count(&table, RECORDS_MAX).await {
                Ok(Count::Counted(ledger)) => self.judge(table, &ledger),
                Ok(Count::TooFarBehind { .. }) => {}
                Err(error) => tracing::warn!(%error, table = %table.name, "a ledger could not be counted"),
            }
        }
    }

    fn judge(&mut self, table: Arc<Table>, ledger: &Ledger) {
        publish(&table, ledger.balanced);
        if ledger.balanced {
            self.suspects.remove(&table.key);
            return;
        }
        metrics::counter!("truenow_ledger_imbalance_total", &labels(&table)).increment(1);
        tracing::error!(tenant = %table.key.tenant, table = %table.name, terms = ?ledger.terms, "the ledger does not balance: acked events are missing or counted twice");
        let suspect = self.suspects.entry(table.key).or_insert(Suspect { table, looks: 0 });
        suspect.looks = suspect.looks.saturating_add(1);
    }
}

fn publish(table: &Table, balanced: bool) {
    metrics::gauge!("truenow_ledger_balanced", &labels(table)).set(if balanced { 1.0 } else { 0.0 });
}

fn labels(table: &Table) -> [(&'static str, String); 3] {
    let TableName { namespace, table: name } = table.name.clone();
    [("tenant", table.key.tenant.to_string()), ("namespace", namespace), ("table", name)]
}
