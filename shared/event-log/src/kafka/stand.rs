//! Where a partition stands at an offset: what was counted of all records before it, released ones included.
//!
//! A stand is a function of the partition's records alone, so every process that counts comes to the same one, and any of
//! them may store it. It lies in the topic `<topic>.stands`, which Kafka compacts: the key is the partition's number, the value
//! JSON.

use std::collections::HashMap;

use codec::BlockHeader;
use serde::{Deserialize, Serialize};
use types::{Generation, Offset, TableId, TableKey, TenantId, Timestamp};

use super::record::fingerprint;
use crate::rows::dropped_table;

/// The version of the JSON that this code writes, and the only one that it reads.
const FORMAT: u32 = 1;

/// Where a partition stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stand {
    /// The offset behind the last record that was counted.
    pub(crate) next: Offset,
    /// The greatest append time of the records before: those of a broker whose clock steps back are raised to it.
    pub(crate) last_time: Timestamp,
    /// Of the last record; 0 where there is none, or it is damaged.
    pub(crate) fingerprint: u64,
    /// Rows of all records before, by table, of tables that were not dropped.
    rows: HashMap<TableKey, u64>,
}

/// As it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    next: u64,
    last_time_us: i64,
    fingerprint: u64,
    tables: Vec<StoredRows>,
}

#[derive(Serialize, Deserialize)]
struct StoredRows {
    tenant: u64,
    table: u64,
    generation: u32,
    rows: u64,
}

/// Why what is stored is no stand.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StandError {
    #[error("not JSON of a stand: {0}")]
    Json(#[from] serde_json::Error),
    #[error("format {0} is not supported, {FORMAT} is")]
    Format(u32),
}

impl Stand {
    /// Before the first record.
    pub(crate) fn empty() -> Self {
        Self { next: Offset::ZERO, last_time: Timestamp::MIN, fingerprint: 0, rows: HashMap::new() }
    }

    /// Rows of a table.
    pub(crate) fn rows(&self, key: TableKey) -> u64 {
        self.rows.get(&key).copied().unwrap_or(0)
    }

    /// Counts the next record and gives the append time that it has, at least `time`.
    pub(crate) fn add(&mut self, time: Timestamp, header: &BlockHeader, body: &[u8]) -> Timestamp {
        self.next = self.next.next();
        self.last_time = self.last_time.max(time);
        self.fingerprint = fingerprint(header);
        match dropped_table(header, body) {
            Some(key) => drop(self.rows.remove(&key)),
            None if header.rows > 0 => *self.rows.entry(header.key).or_default() += u64::from(header.rows),
            None => {}
        }
        self.last_time
    }

    /// Goes on behind records that cannot be read. One whose header could be counts with its rows.
    pub(crate) fn pass_over(&mut self, next: Offset, header: Option<&BlockHeader>) {
        self.next = next;
        self.fingerprint = 0;
        if let Some(header) = header.filter(|header| header.rows > 0) {
            *self.rows.entry(header.key).or_default() += u64::from(header.rows);
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let rows = |(key, rows): (&TableKey, &u64)| StoredRows {
            tenant: key.tenant.0,
            table: key.table.0,
            generation: key.generation.0,
            rows: *rows,
        };
        let stored = Stored {
            format: FORMAT,
            next: self.next.0,
            last_time_us: self.last_time.0,
            fingerprint: self.fingerprint,
            tables: self.rows.iter().map(rows).collect(),
        };
        serde_json::to_vec(&stored).expect("a stand has nothing that JSON has not")
    }

    /// # Errors
    /// The bytes are no stand of this format.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StandError> {
        let stored: Stored = serde_json::from_slice(bytes)?;
        if stored.format != FORMAT {
            return Err(StandError::Format(stored.format));
        }
        let rows = |stored: StoredRows| {
            let StoredRows { tenant, table, generation, rows } = stored;
            let key = TableKey { tenant: TenantId(tenant), table: TableId(table), generation: Generation(generation) };
            (key, rows)
        };
        Ok(Self {
            next: Offset(stored.next),
            last_time: Timestamp(stored.last_time_us),
            fingerprint: stored.fingerprint,
            rows: stored.tables.into_iter().map(rows).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use codec::ControlRecord;
    use proptest::prelude::*;
    use types::{PartitionId, SchemaVersion};

    use super::*;
    use crate::conformance::block;

    proptest! {
        /// Goal: the rows of a stand are those of its records whichever of them it was stored and read back between, times
        /// never fall, and a table that was dropped counts no more.
        #[test]
        fn a_stand_is_a_function_of_its_records(
            records in prop::collection::vec((1..4_u64, 0..50_u32, -5..5_i64, any::<bool>()), 0..60),
        ) {
            let mut stand = Stand::empty();
            let mut model = HashMap::<u64, u64>::new();
            let (mut time, mut last) = (0_i64, i64::MIN);
            for (n, (table, rows, step, stored)) in records.iter().enumerate() {
                time += step;
                last = last.max(time);
                let own = block(0, *table, *rows, n as u64, 3);
                let at = if *rows == 0 {
                    model.remove(table);
                    let (header, body) =
                        ControlRecord::TableDropped(own.header.key).block(SchemaVersion(1), PartitionId(0));
                    stand.add(Timestamp(time), &header, &body)
                } else {
                    *model.entry(*table).or_default() += u64::from(*rows);
                    stand.add(Timestamp(time), &own.header, &own.body)
                };
                prop_assert_eq!(at, Timestamp(last));
                if *stored {
                    let again = Stand::decode(&stand.encode()).unwrap();
                    prop_assert_eq!(&again, &stand);
                    stand = again;
                }
            }
            prop_assert_eq!(stand.next, Offset(records.len() as u64));
            for table in 1..4 {
                let key = block(0, table, 0, 0, 0).header.key;
                prop_assert_eq!(stand.rows(key), model.get(&table).copied().unwrap_or(0));
            }
        }
    }

    /// Goal: what another program wrote is refused by its format, not misread.
    #[test]
    fn another_format_is_refused() {
        let newer = br#"{"format":2,"next":1,"last_time_us":0,"fingerprint":0,"tables":[]}"#;
        assert!(matches!(Stand::decode(newer), Err(StandError::Format(2))));
        assert!(matches!(Stand::decode(b"{"), Err(StandError::Json(_))));
    }
}
