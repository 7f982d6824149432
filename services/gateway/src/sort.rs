//! Events to blocks: each event to the builder of its table and partition.
//!
//! 1. Sorting asks nobody and waits for nothing. What it lacks (a table that is not known here) it names; the caller gets
//!    it and sorts the same bytes again. That happens at the first events of a table, so nothing is kept for it.
//! 2. Columns are not looked up per event. A finished block lists its columns, and only where these contradict the table
//!    is the request sorted again, strictly: then each event is held against the table's columns and the wrong ones are
//!    rejected.
//! 3. Whatever is rejected keeps its index, its reason and, for the dead letters, its table.
//! 4. An event of a table with a JSON Schema is held against it in the form in which it is stored, so that its verdict does
//!    not hang on the form in which it was sent.

use std::{collections::HashMap, sync::Arc};

use codec::{BatchIdentity, BodyBuilder, EventChecker, EventRef, PartitionKey, PushError, Reject, TimeLimits};
use event_schema::EventSchema;
use types::{
    ApiError, ColumnDef, ColumnKind, ErrorCode, PartitionId, Table, TableName, Timestamp, check_table_name,
    limits::TABLE_COLUMNS_MAX,
};

use crate::{judge::Judge, schemas::Schemas};

/// Tables that one request may name.
pub(crate) const REQUEST_TABLES_MAX: usize = 256;

/// What is known of a table when events are sorted.
#[derive(Debug, Clone)]
pub(crate) enum Lookup {
    /// It exists, as far as this process knows.
    Known(Arc<Table>),
    /// It does not exist and may not be created; its events are rejected with this.
    Refused(ApiError),
    /// This process does not know.
    Missing,
}

/// How one request is to be sorted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Time of receipt.
    pub received: Timestamp,
    /// The batch's identity, if it has one.
    pub batch: Option<BatchIdentity>,
    /// Chooses the partition of events that any partition may take.
    pub any: u64,
    /// Hold every event against its table's columns.
    pub strict: bool,
    /// Bytes that all blocks of the request may have.
    pub blocks_bytes_max: usize,
}

/// A block and where it goes; the schema version in its header is the table's when it was sorted.
pub(crate) type Block = event_log::Append;

/// What a request has for one table.
#[derive(Debug)]
pub(crate) struct SortedTable {
    /// The table as it was known.
    pub table: Arc<Table>,
    /// Its blocks.
    pub blocks: Vec<Block>,
    /// Columns that the table lacks.
    pub new_columns: Vec<ColumnDef>,
    /// The blocks contradict the table's columns or each other: to be sorted again, strictly.
    pub conflict: bool,
}

/// What a sorter knows besides the events.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    /// Tables.
    pub tables: &'a dyn Fn(&TableName) -> Lookup,
    /// Their JSON Schemas; `None`: this thread has no time for them.
    pub schemas: Option<&'a Schemas>,
    /// Holds events against them.
    pub judge: &'a Judge<'a>,
}

/// Sorts the events of one request.
pub(crate) struct Sorter<'a> {
    rules: Rules,
    known: Known<'a>,
    builders: &'a mut Vec<BodyBuilder>,
    slots: Vec<Slot>,
    slot_of: HashMap<TableName, usize>,
    checker: EventChecker,
    last: usize,
    pushed: usize,
    missing: bool,
    too_slow: bool,
    too_large: bool,
}

/// One table of the request.
struct Slot {
    name: TableName,
    lookup: Lookup,
    schema: Option<Arc<EventSchema>>,
    blocks: Blocks,
}

/// What a request has for one table while it is sorted.
#[derive(Default)]
struct Blocks {
    /// Per partition of the table, in the table's order.
    open: Vec<Option<BodyBuilder>>,
    full: Vec<Block>,
    full_bytes: usize,
    /// Columns of the blocks in `full`.
    full_columns: Vec<ColumnDef>,
    /// In strict sorting: the table's columns and those that events of this request add.
    columns: HashMap<String, ColumnKind>,
    /// Where the last event had its `partition_by` value.
    key_at: usize,
}

/// What sorting made of a request.
#[derive(Debug)]
pub(crate) enum Sorted {
    /// Tables that are not known here, at most [`REQUEST_TABLES_MAX`].
    Missing(Vec<TableName>),
    /// There are tables with a JSON Schema, for which this thread has no time.
    TooSlow,
    /// Everything, by table.
    Tables(Vec<SortedTable>),
}

/// Events between two looks at how large the blocks have become.
const SIZE_CHECK_EVENTS: usize = 256;

impl<'a> Sorter<'a> {
    /// A sorter that takes builders from `builders` and puts them back when it is done.
    pub(crate) fn new(rules: Rules, known: Known<'a>, builders: &'a mut Vec<BodyBuilder>) -> Self {
        Self {
            rules,
            known,
            builders,
            slots: Vec::new(),
            slot_of: HashMap::new(),
            checker: EventChecker::default(),
            last: 0,
            pushed: 0,
            missing: false,
            too_slow: false,
            too_large: false,
        }
    }

    /// Checks and sorts an event.
    ///
    /// # Errors
    /// The reason for which the event alone is rejected.
    pub(crate) fn push(&mut self, event: &EventRef<'_>, index: u32) -> Result<(), Reject> {
        let at = self.slot_of(event, index)?;
        self.pushed += 1;
        if self.pushed.is_multiple_of(SIZE_CHECK_EVENTS) {
            self.too_large |= self.blocks_bytes() > self.rules.blocks_bytes_max;
        }
        let Slot { lookup, schema, blocks, .. } = &mut self.slots[at];
        let table = match lookup {
            Lookup::Known(table) => table,
            Lookup::Refused(error) => return Err(reject(index, error)),
            Lookup::Missing => return Ok(()),
        };
        self.checker.check(event, index, &TimeLimits::of(&table.settings, self.rules.received))?;
        if self.missing || self.too_slow || self.too_large {
            return Ok(());
        }
        if let Some(schema) = schema {
            self.known.judge.check(schema, event).map_err(|fault| Reject::invalid(index, fault))?;
        }
        // Last, since it notes the event's columns.
        if self.rules.strict {
            blocks.check_columns(event).map_err(|error| reject(index, &error))?;
        }
        blocks.push(table, event, index, &self.rules, self.builders)
    }

    /// The place of the last event's table among the tables of the request.
    pub(crate) fn last_table(&self) -> usize {
        self.last
    }

    /// Ends the request.
    ///
    /// # Errors
    /// `TOO_LARGE`: its blocks would be much larger than the request, since its events have few columns in common, or they could
    /// not all be held against their JSON Schemas in time.
    pub(crate) fn finish(mut self) -> Result<Sorted, ApiError> {
        let rules = self.rules;
        self.too_large |= self.blocks_bytes() > rules.blocks_bytes_max;
        let mut sorted = Vec::with_capacity(self.slots.len());
        let mut missing = Vec::new();
        for Slot { name, lookup, mut blocks, .. } in self.slots.drain(..) {
            match lookup {
                Lookup::Missing => missing.push(name),
                Lookup::Refused(_) => {}
                Lookup::Known(table) if self.missing || self.too_slow || self.too_large => drop(table),
                Lookup::Known(table) => sorted.push(blocks.sorted(table, &rules)),
            }
            for mut builder in blocks.open.drain(..).flatten() {
                builder.clear();
                self.builders.push(builder);
            }
        }
        if self.too_large {
            let message = "the request's events have too few columns in common, send fewer of them at a time";
            return Err(ApiError::new(ErrorCode::TooLarge, message));
        }
        self.known.judge.finish()?;
        Ok(match missing.is_empty() {
            false => Sorted::Missing(missing),
            true if self.too_slow => Sorted::TooSlow,
            true => Sorted::Tables(sorted),
        })
    }

    fn slot_of(&mut self, event: &EventRef<'_>, index: u32) -> Result<usize, Reject> {
        let same = |slot: &Slot| slot.name.table == event.table && slot.name.namespace == event.namespace;
        if self.slots.get(self.last).is_some_and(same) {
            return Ok(self.last);
        }
        let name = TableName::new(event.namespace, event.table);
        self.last = match self.slot_of.get(&name) {
            Some(&at) => at,
            None if self.slots.len() == REQUEST_TABLES_MAX => {
                let message = format!("a request names at most {REQUEST_TABLES_MAX} tables");
                return Err(reject(index, &ApiError::invalid("table", message)));
            }
            None => {
                for (field, part) in [("namespace", event.namespace), ("table", event.table)] {
                    check_table_name(part).map_err(|error| Reject::invalid(index, format!("{field} {error}")))?;
                }
                let slot = self.new_slot(name.clone());
                self.slots.push(slot);
                self.slot_of.insert(name, self.slots.len() - 1);
                self.slots.len() - 1
            }
        };
        Ok(self.last)
    }

    fn new_slot(&mut self, name: TableName) -> Slot {
        let mut lookup = (self.known.tables)(&name);
        self.missing |= matches!(lookup, Lookup::Missing);
        let mut schema = None;
        if let Lookup::Known(table) = &lookup
            && table.settings.json_schema.is_some()
        {
            match self.known.schemas.map(|schemas| schemas.of(table)) {
                Some(Ok(compiled)) => schema = compiled,
                Some(Err(error)) => lookup = Lookup::Refused(error),
                None => self.too_slow = true,
            }
        }
        Slot { blocks: Blocks::of(&lookup, self.rules.strict), name, lookup, schema }
    }

    fn blocks_bytes(&self) -> usize {
        let open = |blocks: &Blocks| blocks.open.iter().flatten().map(BodyBuilder::bytes).sum::<usize>();
        self.slots.iter().map(|slot| slot.blocks.full_bytes + open(&slot.blocks)).sum()
    }
}

impl Blocks {
    fn of(lookup: &Lookup, strict: bool) -> Self {
        let Lookup::Known(table) = lookup else { return Self::default() };
        let known = table.schema.columns().iter().filter(|_| strict);
        Self {
            open: table.partitions.iter().map(|_| None).collect(),
            columns: known.map(|column| (column.name.clone(), column.kind)).collect(),
            ..Self::default()
        }
    }

    fn push(
        &mut self,
        table: &Table,
        event: &EventRef<'_>,
        index: u32,
        rules: &Rules,
        builders: &mut Vec<BodyBuilder>,
    ) -> Result<(), Reject> {
        let partition = self.partition_of(table, event, rules);
        let at = table.partitions.binary_search(&partition).expect("the hash chooses among the table's partitions");
        let builder = self.open[at].get_or_insert_with(|| builders.pop().unwrap_or_default());
        match builder.push(event, rules.received, index) {
            Err(PushError::Full) => {
                self.finish(at, table, rules);
                let builder = self.open[at].as_mut().expect("filled above");
                builder.push(event, rules.received, index)
            }
            pushed => pushed,
        }
        .map_err(|error| reject(index, &push_error(event, &error)))
    }

    /// The partition by the `partition_by` value, else the id, else the batch, else any.
    fn partition_of(&mut self, table: &Table, event: &EventRef<'_>, rules: &Rules) -> PartitionId {
        let by = table.partition_by.as_deref().and_then(|by| self.value_of(event, by));
        let key = match (by, event.event_id, &rules.batch) {
            (Some(value), ..) => PartitionKey::Value(value),
            (None, Some(id), _) => PartitionKey::EventId(id),
            (None, None, Some(batch)) => PartitionKey::Batch(batch),
            (None, None, None) => PartitionKey::Any(rules.any),
        };
        codec::partition_of(table, key)
    }

    /// The value of the dimension `by`, looked for first where the event before had it.
    fn value_of<'e>(&mut self, event: &EventRef<'e>, by: &str) -> Option<&'e str> {
        match event.dimensions.get(self.key_at) {
            Some(&(name, value)) if name == by => Some(value),
            _ => {
                self.key_at = event.dimensions.iter().position(|&(name, _)| name == by)?;
                Some(event.dimensions[self.key_at].1)
            }
        }
    }

    /// Holds an event's columns against the table's and those of the events before; adds what is new.
    fn check_columns(&mut self, event: &EventRef<'_>) -> Result<(), ApiError> {
        let dimensions = event.dimensions.iter().map(|&(name, _)| (name, ColumnKind::Dimension));
        let names = dimensions.chain(event.metrics.iter().map(|&(name, _)| (name, ColumnKind::Metric)));
        let mut new = 0;
        for (name, kind) in names.clone() {
            match self.columns.get(name) {
                Some(&is) if is != kind => return Err(kind_error(name, is)),
                Some(_) => {}
                None => new += 1,
            }
        }
        if self.columns.len() + new > TABLE_COLUMNS_MAX {
            return Err(ApiError::invalid("columns", format!("a table has at most {TABLE_COLUMNS_MAX} columns")));
        }
        if new > 0 {
            self.columns.extend(names.map(|(name, kind)| (name.to_owned(), kind)));
        }
        Ok(())
    }

    fn finish(&mut self, at: usize, table: &Table, rules: &Rules) {
        let Some(builder) = &mut self.open[at] else { return };
        let columns = builder.columns().map(|(name, kind)| ColumnDef { name: name.to_owned(), kind });
        self.full_columns.extend(columns);
        if let Some(body) = builder.finish(rules.batch.is_some()) {
            self.full_bytes += body.bytes.len();
            let header = body.header(table.key, table.schema.version(), table.partitions[at], rules.batch);
            self.full.push(Block { header, body: body.bytes });
        }
    }

    fn sorted(&mut self, table: Arc<Table>, rules: &Rules) -> SortedTable {
        for at in 0..self.open.len() {
            self.finish(at, &table, rules);
        }
        let (new_columns, conflict) = new_columns(&table, &self.full_columns);
        SortedTable { table, blocks: std::mem::take(&mut self.full), new_columns, conflict }
    }
}

/// The columns that the table lacks, and whether any column contradicts it, another one, or the limit.
pub(crate) fn new_columns(table: &Table, columns: &[ColumnDef]) -> (Vec<ColumnDef>, bool) {
    let known: HashMap<&str, ColumnKind> =
        table.schema.columns().iter().map(|column| (column.name.as_str(), column.kind)).collect();
    let mut new = HashMap::<&str, ColumnKind>::new();
    let mut added = Vec::new();
    for column in columns {
        let is = known.get(column.name.as_str()).or_else(|| new.get(column.name.as_str()));
        match is {
            Some(&is) if is != column.kind => return (Vec::new(), true),
            Some(_) => {}
            None => {
                new.insert(&column.name, column.kind);
                added.push(column.clone());
            }
        }
    }
    let too_many = known.len() + added.len() > TABLE_COLUMNS_MAX;
    (added, too_many)
}

fn push_error(event: &EventRef<'_>, error: &PushError) -> ApiError {
    match error {
        PushError::Kind { name, is } => kind_error(name, *is),
        PushError::TooManyColumns => ApiError::invalid("columns", error.to_string()),
        // An empty block takes every event that has the right form.
        PushError::Full => ApiError::new(ErrorCode::TooLarge, format!("event of {} does not fit a block", event.table)),
    }
}

/// `dimensions.x: x is a metric of this table`.
pub(crate) fn kind_error(name: &str, is: ColumnKind) -> ApiError {
    let given = match is {
        ColumnKind::Dimension => "metrics",
        ColumnKind::Metric => "dimensions",
    };
    ApiError::invalid(format!("{given}.{name}"), format!("{given}.{name}: {name} is a {is} of this table"))
}

fn reject(index: u32, error: &ApiError) -> Reject {
    Reject { index, code: error.code, message: error.message.clone() }
}
