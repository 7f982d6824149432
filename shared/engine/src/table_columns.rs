//! The columns of a table in a partition as its writer knows them: numbers by name, and a dictionary per dimension.

use std::collections::HashMap;

use codec::BodyView;
use types::{ColumnDef, ColumnKind, limits::TABLE_COLUMNS_MAX};

use crate::{
    Limits, MemoryBudget,
    block::{Source, translate},
    checkpoint::RestoreError,
    columns::ColumnIndex,
    dictionary::DictionaryWriter,
    sync::Arc,
    writer::ApplyError,
};

/// Columns only grow. A column is its name and its kind: a name that comes with both is two columns.
#[derive(Default)]
pub(crate) struct TableColumns {
    defs: Arc<Vec<ColumnDef>>,
    dimensions: HashMap<String, ColumnIndex>,
    metrics: HashMap<String, ColumnIndex>,
    /// By column; `None` for metrics.
    dictionaries: Vec<Option<DictionaryWriter>>,
    /// The columns of the last block, dimensions then metrics: the first guess for the next one's.
    last: Vec<ColumnIndex>,
}

/// What a block's columns became; reused from block to block.
#[derive(Default)]
pub(crate) struct Translated {
    /// By dimension of the block.
    pub(crate) codes: Vec<Vec<u32>>,
    /// By column of the table.
    pub(crate) sources: Vec<Source>,
    remap: Vec<u32>,
}

impl TableColumns {
    pub(crate) fn defs(&self) -> &Arc<Vec<ColumnDef>> {
        &self.defs
    }

    /// The dictionary of a dimension.
    pub(crate) fn dictionary(&self, column: ColumnIndex) -> Option<&DictionaryWriter> {
        self.dictionaries[column.index()].as_ref()
    }

    /// The columns of an earlier life, each dimension with its dictionary.
    pub(crate) fn restore(
        defs: Vec<ColumnDef>,
        dictionaries: Vec<Option<DictionaryWriter>>,
    ) -> Result<Self, RestoreError> {
        let mut columns = Self { dictionaries, ..Self::default() };
        for (at, def) in defs.iter().enumerate() {
            let names = match def.kind {
                ColumnKind::Dimension => &mut columns.dimensions,
                ColumnKind::Metric => &mut columns.metrics,
            };
            if names.insert(def.name.clone(), ColumnIndex(at as u32)).is_some() {
                return Err(RestoreError::Malformed("a column comes twice"));
            }
        }
        columns.defs = Arc::new(defs);
        Ok(columns)
    }

    /// The current dictionaries, by column; `None` for metrics.
    pub(crate) fn dictionaries(&self) -> impl Iterator<Item = Option<&DictionaryWriter>> {
        self.dictionaries.iter().map(Option::as_ref)
    }

    /// Bytes of the current dictionaries.
    pub(crate) fn bytes(&self) -> u64 {
        self.dictionaries.iter().flatten().map(DictionaryWriter::bytes).sum()
    }

    /// Matches a block's columns, adding what is new, and translates its codes.
    ///
    /// # Errors
    /// There would be too many columns, or a code has no entry. What was added stays.
    pub(crate) fn translate(
        &mut self,
        body: &BodyView<'_>,
        limits: &Limits,
        budget: &Arc<MemoryBudget>,
        into: &mut Translated,
    ) -> Result<(), ApplyError> {
        self.resolve(body, limits, budget)?;
        into.sources.clear();
        into.sources.resize(self.defs.len(), Source::Absent);
        let (dimensions, metrics) = (body.dimensions(), body.metrics());
        into.codes.resize_with(dimensions.len().max(into.codes.len()), Vec::new);
        for (at, dimension) in dimensions.iter().enumerate() {
            let column = self.last[at];
            into.sources[column.index()] = Source::Codes(at);
            self.intern(column, dimension, limits, budget, &mut into.remap);
            if !translate(dimension.codes(), &into.remap, &mut into.codes[at]) {
                return Err(ApplyError::Code);
            }
        }
        for (at, column) in self.last[dimensions.len()..].iter().enumerate().take(metrics.len()) {
            into.sources[column.index()] = Source::Values(at);
        }
        Ok(())
    }

    /// Fills `remap` with the table's code for each code of a block's dimension.
    fn intern(
        &mut self,
        column: ColumnIndex,
        dimension: &codec::DimensionView<'_>,
        limits: &Limits,
        budget: &Arc<MemoryBudget>,
        remap: &mut Vec<u32>,
    ) {
        let slot = self.dictionaries[column.index()].as_mut();
        let dictionary = slot.expect("a dimension has a dictionary since it was added");
        if dictionary.is_full_for(dimension.entries(), limits) {
            *dictionary = DictionaryWriter::new(limits.hash_seed, budget);
        }
        remap.clear();
        remap.push(0);
        dictionary.intern(dimension.entries(), |k| dimension.entry(k), remap);
    }

    /// Makes `last` the columns of this block.
    fn resolve(&mut self, body: &BodyView<'_>, limits: &Limits, budget: &Arc<MemoryBudget>) -> Result<(), ApplyError> {
        let dimensions = body.dimensions().iter().map(|column| (column.name(), ColumnKind::Dimension));
        let metrics = body.metrics().iter().map(|column| (column.name(), ColumnKind::Metric));
        let mut last = std::mem::take(&mut self.last);
        let mut added = Vec::new();
        last.truncate(body.dimensions().len() + body.metrics().len());
        for (at, (name, kind)) in dimensions.chain(metrics).enumerate() {
            let guess = last.get(at).is_some_and(|column| {
                self.defs.get(column.index()).is_some_and(|def| def.kind == kind && def.name == name)
            });
            if guess {
                continue;
            }
            let column = self.known(name, kind).unwrap_or_else(|| {
                added.push(ColumnDef { name: name.to_owned(), kind });
                ColumnIndex((self.defs.len() + added.len() - 1) as u32)
            });
            if at < last.len() { last[at] = column } else { last.push(column) }
        }
        if self.defs.len() + added.len() > TABLE_COLUMNS_MAX {
            return Err(ApplyError::TooManyColumns);
        }
        self.last = last;
        if !added.is_empty() {
            self.add(added, limits, budget);
        }
        Ok(())
    }

    fn known(&self, name: &str, kind: ColumnKind) -> Option<ColumnIndex> {
        let names = match kind {
            ColumnKind::Dimension => &self.dimensions,
            ColumnKind::Metric => &self.metrics,
        };
        names.get(name).copied()
    }

    fn add(&mut self, added: Vec<ColumnDef>, limits: &Limits, budget: &Arc<MemoryBudget>) {
        let mut defs = Vec::clone(&self.defs);
        for def in added {
            let column = ColumnIndex(defs.len() as u32);
            let (names, dictionary) = match def.kind {
                ColumnKind::Dimension => (&mut self.dimensions, Some(DictionaryWriter::new(limits.hash_seed, budget))),
                ColumnKind::Metric => (&mut self.metrics, None),
            };
            names.insert(def.name.clone(), column);
            self.dictionaries.push(dictionary);
            defs.push(def);
        }
        self.defs = Arc::new(defs);
    }
}
