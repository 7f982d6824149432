//! The filters of a plan, and the further round of a selection that it may be.

use super::{Reader, WireError, Writer};
use crate::{
    ast::FILTER_VALUES_MAX,
    plan::{ColumnFilter, Test},
    predicate::{DimensionCondition, DimensionTest, MetricTest},
    selection::{Range, Round},
    values::Values,
};

/// Conditions on a column, at most: each operator of the contract once.
const CONDITIONS_MAX: usize = 16;

pub(super) fn write_filter(out: &mut Writer, filter: &ColumnFilter) {
    let ColumnFilter { column, test } = filter;
    out.text(column);
    match test {
        Test::Dimension(test) => {
            out.tag(0);
            out.list(test.conditions(), write_condition);
        }
        Test::Metric(MetricTest { least, greatest, any_of, none_of, present, absent }) => {
            out.tag(1);
            out.float(*least);
            out.float(*greatest);
            out.option(any_of.as_deref(), write_floats);
            write_floats(out, none_of);
            out.flag(*present);
            out.flag(*absent);
        }
    }
}

pub(super) fn read_filter(from: &mut Reader<'_>) -> Result<ColumnFilter, WireError> {
    let column = from.text()?.to_owned();
    let test = match from.tag()? {
        0 => Test::Dimension(DimensionTest::of(from.list(CONDITIONS_MAX, read_condition)?)),
        1 => {
            let (least, greatest) = (from.float()?, from.float()?);
            if least.is_nan() || greatest.is_nan() {
                return Err(WireError::Invalid("a bound of a filter is no number"));
            }
            let (any_of, none_of) = (from.option(read_floats)?, read_floats(from)?);
            Test::Metric(MetricTest { least, greatest, any_of, none_of, present: from.flag()?, absent: from.flag()? })
        }
        other => return Err(WireError::Unknown { what: "a filter of kind", number: other.into() }),
    };
    Ok(ColumnFilter { column, test })
}

fn write_condition(out: &mut Writer, condition: &DimensionCondition) {
    let (tag, text) = match condition {
        DimensionCondition::In(values) => return write_texts(out, 0, values),
        DimensionCondition::NotIn(values) => return write_texts(out, 1, values),
        DimensionCondition::Exists(wanted) => {
            out.tag(7);
            return out.flag(*wanted);
        }
        DimensionCondition::Gt(text) => (2, text),
        DimensionCondition::Gte(text) => (3, text),
        DimensionCondition::Lt(text) => (4, text),
        DimensionCondition::Lte(text) => (5, text),
        DimensionCondition::Prefix(text) => (6, text),
    };
    out.tag(tag);
    out.text(text);
}

fn read_condition(from: &mut Reader<'_>) -> Result<DimensionCondition, WireError> {
    let tag = from.tag()?;
    Ok(match tag {
        0 => DimensionCondition::In(read_texts(from)?),
        1 => DimensionCondition::NotIn(read_texts(from)?),
        2 => DimensionCondition::Gt(from.text()?.to_owned()),
        3 => DimensionCondition::Gte(from.text()?.to_owned()),
        4 => DimensionCondition::Lt(from.text()?.to_owned()),
        5 => DimensionCondition::Lte(from.text()?.to_owned()),
        6 => DimensionCondition::Prefix(from.text()?.to_owned()),
        7 => DimensionCondition::Exists(from.flag()?),
        other => return Err(WireError::Unknown { what: "a condition of kind", number: other.into() }),
    })
}

fn write_texts(out: &mut Writer, tag: u8, texts: &[String]) {
    out.tag(tag);
    out.list(texts, |out, text| out.text(text));
}

/// A list in which values are searched for.
fn read_texts(from: &mut Reader<'_>) -> Result<Vec<String>, WireError> {
    let texts = from.list(FILTER_VALUES_MAX, |from| from.text().map(str::to_owned))?;
    if texts.is_sorted_by(|a, b| a < b) {
        Ok(texts)
    } else {
        Err(WireError::Invalid("the values of a filter do not ascend"))
    }
}

fn write_floats(out: &mut Writer, values: &[f64]) {
    out.number(values.len() as u64);
    out.floats(values.iter().copied());
}

fn read_floats(from: &mut Reader<'_>) -> Result<Vec<f64>, WireError> {
    let length = from.length()?;
    let values = from.floats(length)?;
    let ascend = values.is_sorted_by(|a, b| a.total_cmp(b).is_lt());
    if ascend { Ok(values) } else { Err(WireError::Invalid("the values of a filter do not ascend")) }
}

pub(super) fn write_round(out: &mut Writer, round: &Round) {
    let Round { values, buckets, keys, ranges, brings } = round;
    out.number(buckets.len() as u64);
    write_buckets(out, buckets);
    for (values, keys) in values.iter().zip(keys) {
        write_values(out, values);
        out.column(keys.iter().map(|&number| number.into()));
    }
    for ranges in ranges {
        out.number(ranges.len() as u64);
        out.column(ranges.iter().map(|&(group, _)| group.into()));
        out.column(ranges.iter().map(|(_, range)| range.low));
        out.column(ranges.iter().map(|(_, range)| range.high));
    }
    out.flag(*brings);
}

/// A round of a plan with so many group columns and cells.
pub(super) fn read_round(from: &mut Reader<'_>, columns: usize, cells: usize) -> Result<Round, WireError> {
    let groups = from.length()?;
    let buckets = read_buckets(from, groups)?;
    let (mut values, mut keys) = (Vec::new(), Vec::new());
    for _ in 0..columns {
        let of_column = read_values(from)?;
        keys.push(from.column_below(groups, of_column.numbers())?);
        values.push(of_column);
    }
    let mut ranges = Vec::new();
    for _ in 0..cells {
        let length = from.length()?;
        let places = from.column_below(length, groups)?;
        let lows = from.column(length, u64::MAX, |bits| bits)?;
        let highs = from.column(length, u64::MAX, |bits| bits)?;
        let of_cell: Vec<_> = places
            .into_iter()
            .zip(lows.into_iter().zip(highs))
            .map(|(at, (low, high))| (at, Range { low, high }))
            .collect();
        // Bits of no number have a bin as well, and not one that is in order.
        let is_number = |bits| !kernels::from_ordered_bits(bits).is_nan();
        let good = |(_, range): &(u32, Range)| range.low <= range.high && is_number(range.low) && is_number(range.high);
        if !of_cell.is_sorted_by_key(|(at, _)| *at) || !of_cell.iter().all(good) {
            return Err(WireError::Invalid("the ranges of a round are not in order"));
        }
        ranges.push(of_cell);
    }
    Ok(Round { values, buckets, keys, ranges, brings: from.flag()? })
}

/// Numbers of buckets, as what they are more than the least.
pub(super) fn write_buckets(out: &mut Writer, buckets: &[i64]) {
    let least = buckets.iter().copied().min().unwrap_or(0);
    out.signed(least);
    out.column(buckets.iter().map(|bucket| bucket.wrapping_sub(least).cast_unsigned()));
}

pub(super) fn read_buckets(from: &mut Reader<'_>, length: usize) -> Result<Vec<i64>, WireError> {
    let least = from.signed()?;
    from.column(length, u64::MAX, |more| least.wrapping_add(more.cast_signed()))
}

/// Strings with their numbers.
pub(crate) fn write_values(out: &mut Writer, values: &Values) {
    let (text, ends) = values.parts();
    out.number(ends.len() as u64);
    let mut before = 0;
    let lengths: Vec<u64> = ends.iter().map(|&end| (end - std::mem::replace(&mut before, end)) as u64).collect();
    out.column(lengths.iter().copied());
    out.raw(text.as_bytes());
}

/// Strings, numbered from 1.
pub(crate) fn read_values(from: &mut Reader<'_>) -> Result<Values, WireError> {
    let count = from.length()?;
    // Numbers of strings have 32 bits, and one of them is taken.
    if count >= u32::MAX as usize {
        return Err(WireError::Invalid("there are more strings than numbers"));
    }
    let mut ends: Vec<usize> = from.column(count, u64::from(u32::MAX), |length| length as usize)?;
    let mut end = 0_usize;
    for of_value in &mut ends {
        end = end.checked_add(*of_value).ok_or(WireError::Truncated)?;
        *of_value = end;
    }
    let text = str::from_utf8(from.raw(end)?).map_err(|_| WireError::Invalid("a text is not UTF-8"))?;
    if ends.iter().all(|&end| text.is_char_boundary(end)) {
        Ok(Values::of_parts(text.to_owned(), ends))
    } else {
        Err(WireError::Invalid("a text is cut inside a character"))
    }
}
