//! Looks every few seconds whether the ledgers of all tables balance: as gauges, in the log, and as the service's health.
//!
//! 1. One look that finds an imbalance is logged and counted. Two in a row make the service degraded, by the tables'
//!    names.
//! 2. Only a look that finds the ledger in balance, or the table gone, ends that. What cannot be counted changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proto::catalog::Catalog;
use types::{Table, TableKey, TenantId};

use crate::{
    ledger::Ledger,
    ledgers::{Count, Ledgers},
};

/// With more records waiting than this a table is left out of a round: what waits is counted record by record, and the
/// lag has an alarm of its own.
const RECORDS_MAX: u64 = 10_000;
/// Looks in a row that make an alarm.
const ALARM_LOOKS: u32 = 2;

/// Watches the ledgers of all tables of some tenants.
pub(crate) struct Audit {
    catalog: Arc<dyn Catalog>,
    ledgers: Ledgers,
    tenants: Vec<TenantId>,
    suspects: BTreeMap<TableKey, Suspect>,
}

/// A table whose ledger did not balance when it was counted last.
struct Suspect {
    table: Arc<Table>,
    looks: u32,
}

impl Audit {
    pub(crate) fn new(catalog: Arc<dyn Catalog>, ledgers: Ledgers, tenants: Vec<TenantId>) -> Self {
        Self { catalog, ledgers, tenants, suspects: BTreeMap::new() }
    }

    /// Counts the ledgers of all tables; returns the names of those to raise the alarm for.
    pub(crate) async fn round(&mut self) -> Vec<String> {
        for tenant in self.tenants.clone() {
            match self.catalog.tables(tenant).await {
                Ok(tables) => self.audit(tenant, tables).await,
                Err(error) => tracing::warn!(%error, "the ledgers' tables could not be listed"),
            }
        }
        let alarming = self.suspects.values().filter(|suspect| suspect.looks >= ALARM_LOOKS);
        alarming.map(|suspect| suspect.table.name.to_string()).collect()
    }

    async fn audit(&mut self, tenant: TenantId, tables: Vec<Arc<Table>>) {
        let known: BTreeSet<TableKey> = tables.iter().map(|table| table.key).collect();
        self.suspects.retain(|key, suspect| {
            let stays = key.tenant != tenant || known.contains(key);
            if !stays {
                publish(&suspect.table, true);
            }
            stays
        });
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
        tracing::error!(table = %table.name, terms = ?ledger.terms, "the ledger does not balance: acked events are missing or counted twice");
        let suspect = self.suspects.entry(table.key).or_insert(Suspect { table, looks: 0 });
        suspect.looks = suspect.looks.saturating_add(1);
    }
}

fn publish(table: &Table, balanced: bool) {
    metrics::gauge!("truenow_ledger_balanced", &labels(table)).set(if balanced { 1.0 } else { 0.0 });
}

fn labels(table: &Table) -> [(&'static str, String); 2] {
    [("namespace", table.name.namespace.clone()), ("table", table.name.table.clone())]
}
