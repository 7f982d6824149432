//! The JSON Schemas of tables, compiled once per text and kept for the requests that follow.
//!
//! Compiling one takes milliseconds and holding an event against it microseconds, so both happen on the decode threads alone.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use event_schema::EventSchema;
use types::{ApiError, ErrorCode, Table, TableKey};

/// Schemas that are kept compiled; of more tables those whose last request is longest ago are compiled again. What one may
/// take is bounded by the limits of `event_schema`.
const KEPT_MAX: usize = 256;

type Compiled = Result<Arc<EventSchema>, ApiError>;

/// Compiled schemas by table.
#[derive(Default)]
pub(crate) struct Schemas {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_table: HashMap<TableKey, Entry>,
    /// Counts requests: the age of entries.
    requests: u64,
}

struct Entry {
    text: Arc<str>,
    /// Filled by the first who needs it, while others of its table wait and those of other tables go on.
    compiled: Arc<OnceLock<Compiled>>,
    used: u64,
}

impl Schemas {
    /// The schema of a table, if it has one.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION`: it was taken by a version that knew more than this one does.
    pub(crate) fn of(&self, table: &Table) -> Result<Option<Arc<EventSchema>>, ApiError> {
        let Some(text) = &table.settings.json_schema else { return Ok(None) };
        let compiled = self.entry(table.key, text);
        compiled.get_or_init(|| compile(text)).clone().map(Some)
    }

    fn entry(&self, key: TableKey, text: &Arc<str>) -> Arc<OnceLock<Compiled>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.requests += 1;
        let used = kept.requests;
        if let Some(entry) = kept.by_table.get_mut(&key)
            && (Arc::ptr_eq(&entry.text, text) || entry.text == *text)
        {
            entry.used = used;
            return Arc::clone(&entry.compiled);
        }
        if kept.by_table.len() >= KEPT_MAX && !kept.by_table.contains_key(&key) {
            let oldest = kept.by_table.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key);
            oldest.and_then(|key| kept.by_table.remove(&key));
        }
        let compiled = Arc::<OnceLock<_>>::default();
        kept.by_table.insert(key, Entry { text: Arc::clone(text), compiled: Arc::clone(&compiled), used });
        compiled
    }
}

fn compile(text: &str) -> Compiled {
    EventSchema::compile(text).map(Arc::new).map_err(|error| {
        let message = format!("{error}; the table takes no events until its json_schema is changed");
        ApiError::new(ErrorCode::FailedPrecondition, message).with_field("json_schema")
    })
}

#[cfg(test)]
mod tests {
    use types::{Generation, PartitionId, Schema, TableId, TableName, TableSettings, TenantId};

    use super::*;

    fn table(id: u64, json_schema: Option<&str>) -> Table {
        Table {
            key: TableKey { tenant: TenantId::DEFAULT, table: TableId(id), generation: Generation(1) },
            name: TableName::new("n", "t"),
            partitions: vec![PartitionId(0)],
            partition_by: None,
            partition_seed: 1,
            identity_seed: 0,
            schema: Schema::default(),
            settings: TableSettings { json_schema: json_schema.map(Into::into), ..TableSettings::default() },
        }
    }

    /// Goal: a text is compiled once, however often its table is read anew; another text replaces it, and what cannot be
    /// compiled says so.
    #[test]
    fn texts_are_compiled_once() {
        let schemas = Schemas::default();
        assert!(schemas.of(&table(1, None)).unwrap().is_none());
        let first = schemas.of(&table(1, Some(r#"{"required":["event_id"]}"#))).unwrap().unwrap();
        let again = schemas.of(&table(1, Some(r#"{"required":["event_id"]}"#))).unwrap().unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let other = schemas.of(&table(1, Some("{}"))).unwrap().unwrap();
        assert!(!Arc::ptr_eq(&first, &other));
        assert_eq!(schemas.of(&table(1, Some(r#"{"type":"text"}"#))).unwrap_err().code, ErrorCode::FailedPrecondition);
    }

    /// Goal: no more than so many are kept, and those are the ones last asked for.
    #[test]
    fn the_last_used_are_kept() {
        let schemas = Schemas::default();
        let first = schemas.of(&table(0, Some("{}"))).unwrap().unwrap();
        let second = schemas.of(&table(1, Some("{}"))).unwrap().unwrap();
        for id in 2..=KEPT_MAX as u64 {
            assert!(Arc::ptr_eq(&first, &schemas.of(&table(0, Some("{}"))).unwrap().unwrap()));
            let _ = schemas.of(&table(id, Some("{}"))).unwrap();
        }
        assert_eq!(schemas.kept.lock().unwrap().by_table.len(), KEPT_MAX);
        assert!(Arc::ptr_eq(&first, &schemas.of(&table(0, Some("{}"))).unwrap().unwrap()));
        assert!(!Arc::ptr_eq(&second, &schemas.of(&table(1, Some("{}"))).unwrap().unwrap()));
    }
}
