//! What one request knows of tables: the catalog's cache, and above it what the request had to ask for.

use std::{collections::HashMap, sync::Arc};

use proto::catalog::Catalog;
use types::{ApiError, ErrorCode, Table, TableName, TenantId};

use crate::sort::{Lookup, SortedTable};

/// Tables as one request sees them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tables {
    asked: HashMap<TableName, Lookup>,
}

/// Whether the blocks of a table can go to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Added {
    /// They can.
    Done,
    /// The table is not what it was when they were made: make them again, strictly.
    Again,
}

impl Tables {
    /// What is known of a table, without waiting.
    pub(crate) fn lookup(&self, catalog: &dyn Catalog, tenant: TenantId, name: &TableName) -> Lookup {
        match self.asked.get(name) {
            Some(lookup) => lookup.clone(),
            None => catalog.cached(tenant, name).map_or(Lookup::Missing, Lookup::Known),
        }
    }

    /// Gets tables that were missing, creating those that do not exist where that is permitted.
    ///
    /// # Errors
    /// Nobody can say now; the whole request is to be sent again later.
    pub(crate) async fn get(
        &mut self,
        catalog: &dyn Catalog,
        tenant: TenantId,
        missing: Vec<TableName>,
    ) -> Result<(), ApiError> {
        for name in missing {
            let lookup = match catalog.ensure_table(tenant, &name).await {
                Ok(table) => Lookup::Known(table),
                Err(error) if is_final(&error) => Lookup::Refused(error),
                Err(error) => return Err(error),
            };
            self.asked.insert(name, lookup);
        }
        Ok(())
    }

    /// Adds the columns that a table lacks.
    ///
    /// # Errors
    /// Nobody can say now; the whole request is to be sent again later.
    pub(crate) async fn add_columns(
        &mut self,
        catalog: &dyn Catalog,
        tenant: TenantId,
        sorted: &mut SortedTable,
    ) -> Result<Added, ApiError> {
        if !sorted.conflict {
            if sorted.new_columns.is_empty() {
                return Ok(Added::Done);
            }
            match catalog.ensure_columns(sorted.table.key, &sorted.new_columns).await {
                Ok(table) => {
                    sorted.blocks.iter_mut().for_each(|block| block.header.schema_version = table.schema.version());
                    sorted.table = table;
                    return Ok(Added::Done);
                }
                Err(error) if is_final(&error) => {}
                Err(error) => return Err(error),
            }
        }
        // Another request changed the table, or an event contradicts it: what is committed now decides.
        let name = sorted.table.name.clone();
        let lookup = match catalog.table(tenant, &name).await {
            Ok(table) => Lookup::Known(table),
            Err(error) if error.code == ErrorCode::NotFound => Lookup::Missing,
            Err(error) => return Err(error),
        };
        self.asked.insert(name, lookup);
        Ok(Added::Again)
    }

    /// The table, created where it does not exist and that is permitted.
    ///
    /// # Errors
    /// As [`Catalog::ensure_table`].
    pub(crate) async fn known(
        &self,
        catalog: &dyn Catalog,
        tenant: TenantId,
        name: &TableName,
    ) -> Result<Arc<Table>, ApiError> {
        match self.lookup(catalog, tenant, name) {
            Lookup::Known(table) => Ok(table),
            Lookup::Refused(error) => Err(error),
            Lookup::Missing => catalog.ensure_table(tenant, name).await,
        }
    }
}

/// Whether asking again would bring the same answer.
fn is_final(error: &ApiError) -> bool {
    let passing = matches!(error.code, ErrorCode::Unavailable | ErrorCode::Internal | ErrorCode::DeadlineExceeded);
    !passing && error.retry_after.is_none()
}
