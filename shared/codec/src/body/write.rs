//! Columns in memory to the bytes of a body.

use super::layout::{
    BODY_HEADER_BYTES, BUFFER_ALIGN, ColumnType, ENTRY_BYTES, Entry, FIXED_ID_BYTES, FLAG_HAS_ABSENT, code_width,
};

/// The columns of one body. All have as many rows as `times`.
pub(super) struct BodyColumns<'a> {
    pub(super) times: &'a [i64],
    pub(super) ids: IdColumn<'a>,
    pub(super) batch_indexes: Option<&'a [u32]>,
    pub(super) dimensions: Vec<DimensionColumn<'a>>,
    pub(super) metrics: Vec<MetricColumn<'a>>,
}

/// Ids back to back with `rows + 1` offsets; none of a row: it has no id.
#[derive(Clone, Copy)]
pub(super) struct IdColumn<'a> {
    pub(super) offsets: &'a [u32],
    pub(super) bytes: &'a [u8],
}

pub(super) struct DimensionColumn<'a> {
    pub(super) name: &'a str,
    pub(super) codes: &'a [u32],
    pub(super) offsets: &'a [u32],
    pub(super) bytes: &'a [u8],
}

pub(super) struct MetricColumn<'a> {
    pub(super) name: &'a str,
    pub(super) values: &'a [f64],
    pub(super) has_absent: bool,
}

impl IdColumn<'_> {
    fn entry(&self) -> Option<Entry> {
        let all_fixed = self.offsets.windows(2).all(|pair| (pair[1] - pair[0]) as usize == FIXED_ID_BYTES);
        match self.bytes.len() {
            0 => None,
            _ if all_fixed => Some(plain(ColumnType::EventId, FIXED_ID_BYTES as u8)),
            len => Some(Entry { bytes: len as u32, ..plain(ColumnType::EventId, 0) }),
        }
    }
}

impl DimensionColumn<'_> {
    fn entry(&self) -> Entry {
        let entries = self.offsets.len() - 1;
        Entry {
            name_len: self.name.len() as u8,
            entries: entries as u32,
            bytes: self.bytes.len() as u32,
            ..plain(ColumnType::Dimension, code_width(entries))
        }
    }
}

impl MetricColumn<'_> {
    fn entry(&self) -> Entry {
        let flags = if self.has_absent { FLAG_HAS_ABSENT } else { 0 };
        Entry { name_len: self.name.len() as u8, flags, ..plain(ColumnType::Metric, 8) }
    }
}

fn plain(kind: ColumnType, width: u8) -> Entry {
    Entry { kind, width, flags: 0, name_len: 0, entries: 0, bytes: 0 }
}

/// The body of these columns. Names, counts and lengths are within their limits: the caller's columns were checked.
pub(super) fn write_body(columns: &BodyColumns<'_>) -> Vec<u8> {
    let ids = columns.ids.entry();
    let mut directory = vec![plain(ColumnType::EventTime, 8)];
    directory.extend(ids);
    directory.extend(columns.batch_indexes.map(|_| plain(ColumnType::BatchIndex, 4)));
    directory.extend(columns.dimensions.iter().map(DimensionColumn::entry));
    directory.extend(columns.metrics.iter().map(MetricColumn::entry));

    let mut out = Vec::with_capacity(bytes_needed(columns, &directory));
    out.extend_from_slice(&(columns.times.len() as u32).to_le_bytes());
    out.extend_from_slice(&(directory.len() as u16).to_le_bytes());
    out.resize(BODY_HEADER_BYTES, 0);
    directory.iter().for_each(|entry| out.extend_from_slice(&entry.encode()));
    columns.dimensions.iter().for_each(|column| out.extend_from_slice(column.name.as_bytes()));
    columns.metrics.iter().for_each(|column| out.extend_from_slice(column.name.as_bytes()));

    put(&mut out, columns.times.iter().map(|time| time.to_le_bytes()));
    if let Some(ids) = ids {
        if ids.width == 0 {
            put(&mut out, columns.ids.offsets.iter().map(|offset| offset.to_le_bytes()));
        }
        put_bytes(&mut out, columns.ids.bytes);
    }
    if let Some(indexes) = columns.batch_indexes {
        put(&mut out, indexes.iter().map(|index| index.to_le_bytes()));
    }
    for column in &columns.dimensions {
        put_codes(&mut out, column);
        put(&mut out, column.offsets.iter().map(|offset| offset.to_le_bytes()));
        put_bytes(&mut out, column.bytes);
    }
    for column in &columns.metrics {
        put(&mut out, column.values.iter().map(|value| value.to_le_bytes()));
    }
    out
}

/// At least the bytes of the body: every buffer with the most padding that it may need.
fn bytes_needed(columns: &BodyColumns<'_>, directory: &[Entry]) -> usize {
    let rows = columns.times.len();
    let entries: usize = directory
        .iter()
        .map(|entry| {
            let divided = entry.width == 0 || entry.kind == ColumnType::Dimension;
            let offsets = if divided { 4 * (rows.max(entry.entries as usize) + 1) } else { 0 };
            let padding = 3 * BUFFER_ALIGN;
            usize::from(entry.name_len) + rows * usize::from(entry.width) + offsets + entry.bytes as usize + padding
        })
        .sum();
    BODY_HEADER_BYTES + directory.len() * ENTRY_BYTES + entries
}

fn put_codes(out: &mut Vec<u8>, column: &DimensionColumn<'_>) {
    match code_width(column.offsets.len() - 1) {
        1 => put(out, column.codes.iter().map(|&code| [code as u8])),
        2 => put(out, column.codes.iter().map(|&code| (code as u16).to_le_bytes())),
        _ => put(out, column.codes.iter().map(|&code| code.to_le_bytes())),
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.resize(out.len().next_multiple_of(BUFFER_ALIGN), 0);
    out.extend_from_slice(bytes);
}

/// Appends a buffer of items. Writing into a resized slice lets the loop vectorise.
fn put<const N: usize>(out: &mut Vec<u8>, items: impl ExactSizeIterator<Item = [u8; N]>) {
    let start = out.len().next_multiple_of(BUFFER_ALIGN);
    out.resize(start + items.len() * N, 0);
    for (slot, item) in out[start..].as_chunks_mut::<N>().0.iter_mut().zip(items) {
        *slot = item;
    }
}
