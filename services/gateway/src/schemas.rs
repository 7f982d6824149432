//! The JSON Schemas of tables, compiled once per text and kept for the requests that follow.
//!
//! Compiling one takes milliseconds and holding an event against it microseconds, so both happen on the decode threads alone.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use event_schema::EventSchema;
use types::{ApiError, ErrorCode, Table, TableKey};

/// Schemas that are kept compiled; of more tables those whose last request is longest ago are compiled again.
const KEPT_MAX: usize = 256;
/// Bytes that they may take together, by the most that each can: patterns take memory beside every other budget. One is kept
/// whatever it takes, which the limits of `event_schema` bound.
const KEPT_BYTES_MAX: usize = 256 << 20;

type Compiled = Result<Arc<EventSchema>, ApiError>;

/// Compiled schemas by table.
pub(crate) struct Schemas {
    kept: Mutex<Kept>,
    /// How many threads hold events against them.
    threads: usize,
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
    /// What it can take; nothing before it is compiled.
    bytes: usize,
}

impl Schemas {
    /// No schemas yet, for so many threads.
    pub(crate) fn new(threads: usize) -> Self {
        Self { kept: Mutex::default(), threads }
    }

    /// The schema of a table, if it has one.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION`: it was taken by a version that knew more than this one does.
    pub(crate) fn of(&self, table: &Table) -> Result<Option<Arc<EventSchema>>, ApiError> {
        let Some(text) = &table.settings.json_schema else { return Ok(None) };
        let entry = self.entry(table.key, text);
        let mut bytes = None;
        let compiled = entry.get_or_init(|| {
            let compiled = compile(text);
            bytes = compiled.as_ref().ok().map(|schema| schema.bytes_max(self.threads));
            compiled
        });
        if let Some(bytes) = bytes {
            self.weigh(table.key, &entry, bytes);
        }
        compiled.clone().map(Some)
    }

    /// Notes what the schema of an entry can take, and lets others go where all of them would be too much.
    fn weigh(&self, key: TableKey, compiled: &Arc<OnceLock<Compiled>>, bytes: usize) {
        let mut kept = self.lock();
        let Some(entry) = kept.by_table.get_mut(&key).filter(|entry| Arc::ptr_eq(&entry.compiled, compiled)) else {
            return;
        };
        entry.bytes = bytes;
        while kept.by_table.values().map(|entry| entry.bytes).sum::<usize>() > KEPT_BYTES_MAX && kept.forget_oldest(key)
        {
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, key: TableKey, text: &Arc<str>) -> Arc<OnceLock<Compiled>> {
        let mut kept = self.lock();
        kept.requests += 1;
        let used = kept.requests;
        if let Some(entry) = kept.by_table.get_mut(&key)
            && (Arc::ptr_eq(&entry.text, text) || entry.text == *text)
        {
            entry.used = used;
            return Arc::clone(&entry.compiled);
        }
        if kept.by_table.len() >= KEPT_MAX && !kept.by_table.contains_key(&key) {
            kept.forget_oldest(key);
        }
        let compiled = Arc::<OnceLock<_>>::default();
        let entry = Entry { text: Arc::clone(text), compiled: Arc::clone(&compiled), used, bytes: 0 };
        kept.by_table.insert(key, entry);
        compiled
    }
}

impl Kept {
    /// Forgets the one that was asked for longest ago, but not that of `but`; `false`: there is no other.
    fn forget_oldest(&mut self, but: TableKey) -> bool {
        let others = self.by_table.iter().filter(|(key, _)| **key != but);
        let oldest = others.min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key);
        oldest.and_then(|key| self.by_table.remove(&key)).is_some()
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
        let schemas = Schemas::new(2);
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
        let schemas = Schemas::new(2);
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

    /// Goal: schemas of many patterns are kept while all of them together can take no more than the bound, the last one always.
    #[test]
    fn those_that_can_take_much_are_few() {
        let schemas = Schemas::new(2);
        let patterns: Vec<_> = (0..64).map(|n| format!(r#"{{"pattern":"^u{n}$"}}"#)).collect();
        let heavy = format!(r#"{{"anyOf":[{}]}}"#, patterns.join(","));
        let one = schemas.of(&table(0, Some(&heavy))).unwrap().unwrap().bytes_max(2);
        assert!((48 << 20..49 << 20).contains(&one), "{one}");
        for id in 1..20 {
            let last = schemas.of(&table(id, Some(&heavy))).unwrap().unwrap();
            assert!(Arc::ptr_eq(&last, &schemas.of(&table(id, Some(&heavy))).unwrap().unwrap()));
        }
        assert_eq!(schemas.kept.lock().unwrap().by_table.len(), KEPT_BYTES_MAX / one);
        let schemas = Schemas::new(1_000);
        for id in 0..3 {
            assert!(schemas.of(&table(id, Some(&heavy))).unwrap().unwrap().bytes_max(1_000) > KEPT_BYTES_MAX);
            assert_eq!(
                schemas.kept.lock().unwrap().by_table.keys().map(|key| key.table).collect::<Vec<_>>(),
                [TableId(id)]
            );
        }
    }
}
