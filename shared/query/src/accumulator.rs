//! What a task accumulates: one state per cell, or one per cell and slot.

use engine::Codes;
use kernels::{CHUNK_ROWS, GroupMoments, Groups, MomentsLanes, Rows, Selection, SlotSums, SumLanes, Values};

use crate::{
    cells::Cell,
    codes::by_width,
    grouper::{Few, Found},
    keyed::{Keyed, Sizes},
    state::{Moments, State, greater, lesser},
};

/// A cell's column: the codes of a segment, or the values of a chunk of it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CellColumn<'a> {
    Codes(Codes<'a>),
    /// Only the rows with this code count.
    Equal(Codes<'a>, u32),
    /// Of the chunk's rows alone; doubles for a cell that [`Cell::reads_doubles`], else in the form in which they lie.
    Values(Values<'a>),
    /// No row has a value.
    Absent,
}

/// A cell without groups.
#[derive(Debug)]
pub(crate) enum Single {
    Count(u64),
    Sum(SumLanes),
    Min(f64),
    Max(f64),
    Moments(Moments),
    Keyed(Keyed),
}

impl Single {
    pub(crate) fn new(cell: &Cell, sizes: Sizes) -> Self {
        if let Some(keyed) = Keyed::new(cell, sizes) {
            return Self::Keyed(keyed);
        }
        match cell {
            Cell::PresentDimension(_) | Cell::PresentMetric(_) | Cell::Frequency { .. } => Self::Count(0),
            Cell::Sum(_) => Self::Sum(SumLanes::default()),
            Cell::Min(_) => Self::Min(f64::INFINITY),
            Cell::Max(_) => Self::Max(f64::NEG_INFINITY),
            Cell::Moments(_) => Self::Moments(Moments::default()),
            Cell::Distinct(_) | Cell::Top { .. } | Cell::Quantiles { .. } | Cell::Digest(_) => {
                unreachable!("these are keyed")
            }
        }
    }

    /// Takes the selected rows of a chunk, which are `rows` of its segment; `list` is scratch for their numbers.
    pub(crate) fn add(
        &mut self,
        column: CellColumn<'_>,
        rows: std::ops::Range<usize>,
        selection: &Selection,
        list: &mut [u16; CHUNK_ROWS],
    ) {
        match (self, column) {
            (_, CellColumn::Absent) => {}
            (Self::Keyed(keyed), column) => {
                let taken = match selection.count() {
                    all if all == rows.len() => Rows::All(all),
                    _ => Rows::Listed(selection.list(list)),
                };
                keyed.add(column, rows, taken, Groups::One);
            }
            (Self::Count(count), CellColumn::Equal(codes, code)) => {
                *count += by_width!(codes, rows, |codes| kernels::count_equal(codes, code, selection));
            }
            (Self::Count(count), CellColumn::Codes(codes)) => {
                *count += by_width!(codes, rows, |codes| kernels::count_codes(codes, selection));
            }
            (Self::Count(count), CellColumn::Values(values)) => {
                *count += kernels::count_present(values, selection);
            }
            (Self::Sum(lanes), CellColumn::Values(values)) => lanes.add(values, selection),
            (Self::Min(least), CellColumn::Values(values)) => {
                *least = least.min(kernels::least(values, selection));
            }
            (Self::Max(greatest), CellColumn::Values(values)) => {
                *greatest = greatest.max(kernels::greatest(values, selection));
            }
            (Self::Moments(moments), CellColumn::Values(Values::Doubles(values))) => {
                let MomentsLanes { count, mean, deviation } = MomentsLanes::of(values, selection);
                moments.absorb(Moments { count, mean, deviation });
            }
            (Self::Moments(_), CellColumn::Values(_)) => unreachable!("moments read doubles"),
            (_, CellColumn::Codes(_) | CellColumn::Equal(..)) => unreachable!("only counts are of dimensions"),
        }
    }

    /// Memory that it takes beyond its own size.
    pub(crate) fn bytes(&self) -> usize {
        if let Self::Keyed(keyed) = self { keyed.bytes() } else { 0 }
    }

    /// As the state of a single group.
    pub(crate) fn into_state(self) -> State {
        match self {
            Self::Count(count) => State::Count(vec![count]),
            Self::Sum(lanes) => State::Sum { sums: vec![lanes.sum()], counts: vec![lanes.count()] },
            Self::Min(value) => State::Min(vec![value]),
            Self::Max(value) => State::Max(vec![value]),
            Self::Moments(Moments { count, mean, deviation }) => {
                State::Moments { counts: vec![count], means: vec![mean], deviations: vec![deviation] }
            }
            Self::Keyed(keyed) => keyed.gather(&[0]),
        }
    }
}

/// A cell by slot.
#[derive(Debug)]
pub(crate) enum Slotted {
    Count(Vec<u64>),
    Sum(SlotSums),
    Min(Vec<f64>),
    Max(Vec<f64>),
    Moments(Vec<GroupMoments>),
    Keyed(Keyed),
}

impl Slotted {
    pub(crate) fn new(cell: &Cell, sizes: Sizes) -> Self {
        if let Some(keyed) = Keyed::new(cell, sizes) {
            return Self::Keyed(keyed);
        }
        match cell {
            Cell::PresentDimension(_) | Cell::PresentMetric(_) | Cell::Frequency { .. } => Self::Count(Vec::new()),
            Cell::Sum(_) => Self::Sum(SlotSums::default()),
            Cell::Min(_) => Self::Min(Vec::new()),
            Cell::Max(_) => Self::Max(Vec::new()),
            Cell::Moments(_) => Self::Moments(Vec::new()),
            Cell::Distinct(_) | Cell::Top { .. } | Cell::Quantiles { .. } | Cell::Digest(_) => {
                unreachable!("these are keyed")
            }
        }
    }

    /// The same, with sums that say which slots have rows.
    pub(crate) fn marking(cell: &Cell, sizes: Sizes) -> Self {
        match cell {
            Cell::Sum(_) => Self::Sum(SlotSums::marking()),
            other => Self::new(other, sizes),
        }
    }

    /// Whether a slot has rows; for a sum that marks.
    pub(crate) fn has_rows(&self, slot: usize) -> bool {
        matches!(self, Self::Sum(sums) if sums.has_rows(slot))
    }

    pub(crate) fn grow(&mut self, slots: usize) {
        match self {
            Self::Count(counts) => counts.resize(slots, 0),
            Self::Sum(sums) => sums.grow(slots),
            Self::Min(values) => values.resize(slots, f64::INFINITY),
            Self::Max(values) => values.resize(slots, f64::NEG_INFINITY),
            Self::Moments(moments) => moments.resize(slots, GroupMoments::default()),
            Self::Keyed(_) => {}
        }
    }

    /// Takes the rows of a chunk, which is `range` of its segment; `false`: it took none, and wants their slots.
    pub(crate) fn add_few(&mut self, column: CellColumn<'_>, range: std::ops::Range<usize>, few: Few<'_>) -> bool {
        match (self, column) {
            (Self::Sum(sums), CellColumn::Values(values)) => few.sum(values, &mut sums.sums),
            (Self::Min(least), CellColumn::Values(values)) => few.least(values, least),
            (Self::Max(greatest), CellColumn::Values(values)) => few.greatest(values, greatest),
            (Self::Keyed(keyed), column) => {
                let groups = few.groups();
                groups.into_iter().for_each(|groups| keyed.add(column, range.clone(), Rows::All(range.len()), groups));
                groups.is_some()
            }
            _ => false,
        }
    }

    /// Takes rows of a chunk, which is `range` of its segment; `of` has their slots.
    pub(crate) fn add(&mut self, column: CellColumn<'_>, range: std::ops::Range<usize>, rows: Rows<'_>, of: Found<'_>) {
        let slots = of.slots;
        match (self, column) {
            (Self::Sum(sums), CellColumn::Absent) => sums.add_absent(slots),
            (_, CellColumn::Absent) => {}
            (Self::Keyed(keyed), column) => keyed.add(column, range, rows, of.groups()),
            (Self::Count(counts), CellColumn::Equal(codes, code)) => {
                by_width!(codes, range, |codes| kernels::count_slots_equal(slots, rows, codes, code, counts));
            }
            (Self::Count(counts), CellColumn::Codes(codes)) => {
                by_width!(codes, range, |codes| kernels::count_slots_codes(slots, rows, codes, counts));
            }
            (Self::Count(counts), CellColumn::Values(values)) => {
                kernels::count_slots_present(slots, rows, values, counts);
            }
            (Self::Sum(sums), CellColumn::Values(values)) => sums.add(slots, rows, values),
            (Self::Min(least), CellColumn::Values(values)) => {
                kernels::least_slots(slots, rows, values, least);
            }
            (Self::Max(greatest), CellColumn::Values(values)) => {
                kernels::greatest_slots(slots, rows, values, greatest);
            }
            (Self::Moments(moments), CellColumn::Values(Values::Doubles(values))) => {
                kernels::moments_slots(slots, rows, values, moments);
            }
            (Self::Moments(_), CellColumn::Values(_)) => unreachable!("moments read doubles"),
            (_, CellColumn::Codes(_) | CellColumn::Equal(..)) => unreachable!("only counts are of dimensions"),
        }
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Count(counts) => size_of_val(&**counts),
            Self::Sum(sums) => sums.bytes(),
            Self::Min(values) | Self::Max(values) => size_of_val(&**values),
            Self::Moments(moments) => size_of_val(&**moments),
            Self::Keyed(keyed) => keyed.bytes(),
        }
    }

    /// The states of all slots, each of which is a group; `rows` has the rows of each.
    pub(crate) fn into_state(self, rows: &[u64]) -> State {
        match self {
            Self::Count(counts) => State::Count(counts),
            Self::Sum(sums) => {
                let counts = rows.iter().enumerate().map(|(slot, &rows)| sums.present(slot, rows)).collect();
                // A slot without values may be -0.0.
                State::Sum { sums: sums.sums.into_iter().map(|sum| sum + 0.0).collect(), counts }
            }
            Self::Min(values) => State::Min(values),
            Self::Max(values) => State::Max(values),
            Self::Moments(_) | Self::Keyed(_) => {
                let all: Vec<u32> = (0..rows.len() as u32).collect();
                self.gather(&all, rows, 1)
            }
        }
    }

    /// The states of the groups `kept`, in that order, each of so many slots in a row; `rows` has the rows of each.
    pub(crate) fn gather(&self, kept: &[u32], rows: &[u64], lanes: usize) -> State {
        let slots = |group: u32| group as usize * lanes..(group as usize + 1) * lanes;
        match self {
            Self::Keyed(_) => unreachable!("a keyed cell has groups, not slots"),
            Self::Count(counts) => State::Count(kept.iter().map(|&group| counts[slots(group)].iter().sum()).collect()),
            Self::Sum(sums) => {
                let absent = |group| slots(group).map(|slot| u64::from(sums.absent(slot))).sum::<u64>();
                let present = |group, rows| match lanes {
                    1 => sums.present(group as usize, rows),
                    _ => rows - absent(group),
                };
                State::Sum {
                    sums: kept.iter().map(|&group| sums.sums[slots(group)].iter().fold(0.0, |a, b| a + b)).collect(),
                    counts: kept.iter().zip(rows).map(|(&group, &rows)| present(group, rows)).collect(),
                }
            }
            Self::Min(values) => {
                let least = |group| values[slots(group)].iter().fold(f64::INFINITY, |a, &b| lesser(a, b));
                State::Min(kept.iter().map(|&group| least(group)).collect())
            }
            Self::Max(values) => {
                let greatest = |group| values[slots(group)].iter().fold(f64::NEG_INFINITY, |a, &b| greater(a, b));
                State::Max(kept.iter().map(|&group| greatest(group)).collect())
            }
            Self::Moments(moments) => {
                let (mut counts, mut means, mut deviations) = (Vec::new(), Vec::new(), Vec::new());
                for &group in kept {
                    let mut all = Moments::default();
                    moments[slots(group)].iter().for_each(|&slot| all.absorb(Moments::from_slot(slot)));
                    counts.push(all.count);
                    means.push(all.mean);
                    deviations.push(all.deviation);
                }
                State::Moments { counts, means, deviations }
            }
        }
    }
}

impl Moments {
    fn from_slot(slot: GroupMoments) -> Self {
        if slot.count == 0 {
            return Self::default();
        }
        let count = slot.count as f64;
        let shift = slot.sum / count;
        // Rounding may leave a little less than nothing. NaN, which comes of an overflow, is to stay: `max` would hide it.
        let deviation = slot.squares - slot.sum * shift;
        Self { count: slot.count, mean: slot.first + shift, deviation: if deviation < 0.0 { 0.0 } else { deviation } }
    }
}
