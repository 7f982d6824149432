//! One body to several, a row at a time to where it belongs: columns gathered, dictionaries cut down to what is used.

use types::Timestamp;

use super::{
    ABSENT_BITS, Body, BodyView, DimensionView, Ids,
    write::{BodyColumns, DimensionColumn, IdColumn, MetricColumn, write_body},
};

/// A dimension of a part.
struct Gathered<'a> {
    name: &'a str,
    codes: Vec<u32>,
    offsets: Vec<u32>,
    bytes: Vec<u8>,
}

impl BodyView<'_> {
    /// Splits the body: row `i` goes to part `part_of_row[i]`, in row order. Returns the parts that have rows, ascending.
    /// With `with_batch_indexes` (the batch has an identity) each row keeps its index in the batch.
    ///
    /// # Panics
    /// `part_of_row` does not have an entry per row.
    #[must_use]
    pub fn split(&self, part_of_row: &[u32], with_batch_indexes: bool) -> Vec<(u32, Body)> {
        assert_eq!(part_of_row.len(), self.rows(), "a part per row");
        // Stable: rows of one part stay in order.
        let mut rows: Vec<u32> = (0..self.rows() as u32).collect();
        rows.sort_by_key(|&row| part_of_row[row as usize]);
        rows.chunk_by(|&a, &b| part_of_row[a as usize] == part_of_row[b as usize])
            .map(|rows| (part_of_row[rows[0] as usize], self.gather(rows, with_batch_indexes)))
            .collect()
    }

    /// The body of these rows; there is at least one.
    fn gather(&self, rows: &[u32], with_batch_indexes: bool) -> Body {
        let times: Vec<i64> = rows.iter().map(|&row| self.times().get(row as usize)).collect();
        let (id_offsets, id_bytes) = gather_ids(self.ids(), rows);
        let indexes: Vec<u32> = match self.batch_indexes() {
            Some(indexes) => rows.iter().map(|&row| indexes.get(row as usize)).collect(),
            None => rows.to_vec(),
        };
        let counted = indexes.iter().zip(0..).all(|(&index, row)| index == row);
        let dimensions: Vec<Gathered<'_>> =
            self.dimensions().iter().map(|dimension| gather_dimension(dimension, rows)).collect();
        let metrics: Vec<(&str, Vec<f64>)> = self
            .metrics()
            .iter()
            .map(|metric| (metric.name(), rows.iter().map(|&row| metric.values().get(row as usize)).collect()))
            .collect();
        let bytes = write_body(&BodyColumns {
            times: &times,
            ids: IdColumn { offsets: &id_offsets, bytes: &id_bytes },
            batch_indexes: (with_batch_indexes && !counted).then_some(&indexes),
            dimensions: dimensions.iter().filter_map(Gathered::column).collect(),
            metrics: metrics.iter().filter_map(|(name, values)| metric_column(name, values)).collect(),
        });
        let (time_min, time_max) =
            times.iter().fold((i64::MAX, i64::MIN), |(min, max), &time| (min.min(time), max.max(time)));
        Body {
            bytes: bytes.into(),
            rows: rows.len() as u32,
            time_min: Timestamp(time_min),
            time_max: Timestamp(time_max),
            times_given: false,
        }
    }
}

impl Gathered<'_> {
    fn column(&self) -> Option<DimensionColumn<'_>> {
        (self.offsets.len() > 1).then_some(DimensionColumn {
            name: self.name,
            codes: &self.codes,
            offsets: &self.offsets,
            bytes: &self.bytes,
        })
    }
}

fn gather_ids(ids: Option<Ids<'_>>, rows: &[u32]) -> (Vec<u32>, Vec<u8>) {
    let mut offsets = vec![0];
    let mut bytes = Vec::new();
    for &row in rows {
        bytes.extend_from_slice(ids.and_then(|ids| ids.get(row as usize)).unwrap_or_default());
        offsets.push(bytes.len() as u32);
    }
    (offsets, bytes)
}

/// Codes are given anew in the order in which the rows use them.
fn gather_dimension<'a>(dimension: &DimensionView<'a>, rows: &[u32]) -> Gathered<'a> {
    let mut new_codes = vec![0_u32; dimension.entries() + 1];
    let mut out =
        Gathered { name: dimension.name(), codes: Vec::with_capacity(rows.len()), offsets: vec![0], bytes: Vec::new() };
    for &row in rows {
        let old = dimension.codes().get(row as usize) as usize;
        if old != 0 && new_codes[old] == 0 {
            new_codes[old] = out.offsets.len() as u32;
            out.bytes.extend_from_slice(dimension.entry(old - 1).as_bytes());
            out.offsets.push(out.bytes.len() as u32);
        }
        out.codes.push(new_codes[old]);
    }
    out
}

fn metric_column<'a>(name: &'a str, values: &'a [f64]) -> Option<MetricColumn<'a>> {
    let absent = values.iter().filter(|value| value.to_bits() == ABSENT_BITS).count();
    (absent < values.len()).then_some(MetricColumn { name, values, has_absent: absent > 0 })
}
