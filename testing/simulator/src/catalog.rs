//! The control plane's part: tables that come, change their settings and go, each told to the log until that is acked.

use std::sync::Arc;

use codec::ControlRecord;
use types::{Generation, PartitionId, Schema, Table, TableId, TableKey, TableName, TableSettings, TenantId};

use crate::{profile::Profile, random::Random, rollups};

/// Tables of a run: the first is not partitioned by anything, the second by `key`.
pub(crate) const TABLES: usize = 2;

/// One table through all its lives.
pub(crate) struct Known {
    pub(crate) table: Table,
    /// Its first announcement was acked, and its end was not begun: gateways take events for it.
    pub(crate) open: bool,
    /// What the log has to be told.
    pub(crate) to_say: Option<ControlRecord>,
    /// That is on its way.
    pub(crate) saying: bool,
}

/// All tables.
pub(crate) struct Catalog {
    pub(crate) tables: Vec<Known>,
}

impl Catalog {
    pub(crate) fn new(profile: &Profile) -> Self {
        let known = |table| {
            let table = first_life(table, profile);
            let to_say = Some(ControlRecord::TableConfigured(Arc::new(table.clone())));
            Known { table, open: false, to_say, saying: false }
        };
        Self { tables: (0..TABLES).map(known).collect() }
    }

    /// The tables that take events.
    pub(crate) fn open(&self) -> Vec<TableKey> {
        self.tables.iter().filter(|known| known.open).map(|known| known.table.key).collect()
    }

    pub(crate) fn table(&self, key: TableKey) -> &Table {
        &self.tables[key.table.0 as usize].table
    }

    /// Changes a table's settings, or begins its end.
    pub(crate) fn change(&mut self, random: &mut Random) {
        let known = &mut self.tables[random.index(TABLES)];
        if !known.open || known.to_say.is_some() {
            return;
        }
        if random.once_in(4) {
            known.open = false;
            known.to_say = Some(ControlRecord::TableDropped(known.table.key));
            return;
        }
        let settings = &mut known.table.settings;
        match random.below(4) {
            0 => settings.dedup_window_us = random.pick(&[1, 100_000, 2_000_000, 90_000_000]),
            1 => settings.lateness_us = random.pick(&[0, 500_000]),
            2 => settings.rollups = rollups::some(random),
            _ => settings.hot_window_us = random.pick(&[None, Some(1_500_000), Some(600_000_000)]),
        }
        known.to_say = Some(ControlRecord::TableConfigured(Arc::new(known.table.clone())));
    }

    /// What was said about a table was acked, or has to be said again.
    pub(crate) fn said(&mut self, table: usize, acked: bool) {
        let known = &mut self.tables[table];
        known.saying = false;
        if !acked {
            return;
        }
        match known.to_say.take() {
            Some(ControlRecord::TableDropped(key)) => {
                known.table.key.generation = Generation(key.generation.0 + 1);
                known.to_say = Some(ControlRecord::TableConfigured(Arc::new(known.table.clone())));
            }
            _ => known.open = true,
        }
    }

    /// The life of the process is over: what was on its way is unknown.
    pub(crate) fn lose_replies(&mut self) {
        self.tables.iter_mut().for_each(|known| known.saying = false);
    }

    /// Whether everything was said.
    pub(crate) fn is_settled(&self) -> bool {
        self.tables.iter().all(|known| known.to_say.is_none())
    }
}

fn first_life(table: usize, profile: &Profile) -> Table {
    Table {
        key: TableKey { tenant: TenantId(1), table: TableId(table as u64), generation: Generation(1) },
        name: TableName::new("n", "t"),
        partitions: (0..profile.partitions).map(PartitionId).collect(),
        partition_by: (table == 1).then(|| "key".to_owned()),
        partition_seed: 11,
        identity_seed: 77,
        schema: Schema::default(),
        settings: TableSettings { dedup_window_us: profile.dedup_window_us, ..TableSettings::default() },
    }
}
