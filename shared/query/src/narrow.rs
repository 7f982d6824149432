//! A task of a further round of a selection: the values that lie in the ranges of their groups.

use hashbrown::HashMap;
use kernels::{CHUNK_ROWS, Rows, Values, from_ordered_bits, ordered_bits};
use types::ApiError;

use crate::{
    accumulator::CellColumn,
    bins,
    grouper::{Grouper, KeyColumns},
    groups::Groups,
    pair_counts::pair,
    plan::{GroupColumn, Plan},
    run::{Chunk, Sink},
    selection::{Narrowed, Range, Round},
    state::State,
    task::Task,
};

/// A group of the task that was not seen yet.
const UNSEEN: u32 = u32::MAX;
/// Bytes of the marks of a cell, at most.
const MARKS_MAX: usize = 1 << 20;

/// Where the chunks of such a task go.
pub(crate) struct Narrow<'a> {
    plan: &'a Plan,
    round: &'a Round,
    grouper: Grouper,
    /// Per group column: by code, the number of its string in the round; `u32::MAX` for one that the round does not have.
    numbers: Vec<Vec<u32>>,
    /// By group of the grouper: its place in the round; the place behind all where the round does not look into it.
    places: Vec<u32>,
    cells: Vec<NarrowCell>,
    /// Scratch: the places of the rows taken, their bins, and rows that may lie in a range.
    taken: Box<[u32; CHUNK_ROWS]>,
    bins: Box<[u32; CHUNK_ROWS]>,
    list: Box<[u16; CHUNK_ROWS]>,
}

/// A metric's ranges.
struct NarrowCell {
    /// By place in the round: where its ranges begin; and twice the end of all, as the place behind all has none.
    first: Vec<u32>,
    wanted: Option<Wanted>,
    found: Narrowed,
    /// How often each bin of each range was met, where values are counted.
    counts: HashMap<u64, u64>,
}

/// The bins that hold ranges, as a line of marks per place: most rows are in none of them.
struct Wanted {
    base: u32,
    width: usize,
    marks: Vec<u8>,
}

impl Wanted {
    /// `None` where there would be too many marks.
    fn new(ranges: &[(u32, Range)], places: usize) -> Option<Self> {
        let bins = |range: Range| [range.low, range.high].map(|bits| bins::number_of(from_ordered_bits(bits)));
        let base = ranges.iter().map(|&(_, range)| bins(range)[0]).min()?;
        let width = (ranges.iter().map(|&(_, range)| bins(range)[1]).max()? - base) as usize + 1;
        let bytes = (places + 1).checked_mul(width + 1).filter(|&bytes| bytes <= MARKS_MAX)?;
        let mut marks = vec![0; bytes];
        for &(place, range) in ranges {
            let [first, last] = bins(range).map(|bin| place as usize * (width + 1) + (bin - base) as usize);
            marks[first..=last].fill(1);
        }
        Some(Self { base, width, marks })
    }
}

impl<'a> Narrow<'a> {
    pub(crate) fn new(plan: &'a Plan, round: &'a Round, task: &Task) -> Self {
        let numbers = plan.groups.iter().enumerate().map(|(column, group)| numbers(group, column, round, task));
        let cells = round.ranges.iter().map(|ranges| {
            let first = |group| ranges.partition_point(|&(of, _)| of < group) as u32;
            let places = round.buckets.len();
            NarrowCell {
                first: (0..=places as u32 + 1).map(first).collect(),
                wanted: Wanted::new(ranges, places),
                found: Narrowed::default(),
                counts: HashMap::new(),
            }
        });
        Self {
            plan,
            round,
            numbers: numbers.collect(),
            places: Vec::new(),
            cells: cells.collect(),
            grouper: Grouper::new(plan, task),
            taken: Box::new([0; CHUNK_ROWS]),
            bins: Box::new([0; CHUNK_ROWS]),
            list: Box::new([0; CHUNK_ROWS]),
        }
    }

    /// What was found, as the state of a single group without a key.
    pub(crate) fn finish(self) -> Groups {
        let states = self.cells.into_iter().map(|mut cell| {
            cell.counts.iter().for_each(|(&key, &count)| cell.found.counts.add((key >> 32) as u32, key as u32, count));
            State::Narrowed(cell.found)
        });
        let keys = vec![vec![0]; self.plan.groups.len()];
        Groups { buckets: vec![0], keys, rows: vec![0], states: states.collect() }
    }

    /// Finds the places of the rows taken.
    fn find_places(&mut self, rows: Rows<'_>) {
        let lanes_log2 = self.grouper.lanes_log2();
        self.places.resize(self.grouper.slots() >> lanes_log2, UNSEEN);
        let slots = self.grouper.found(rows).slots;
        for (taken, &slot) in self.taken.iter_mut().zip(slots) {
            *taken = self.places[(slot >> lanes_log2) as usize];
        }
        for k in 0..rows.len() {
            if self.taken[k] == UNSEEN {
                let group = self.grouper.group_of(self.grouper.found(rows).slots[k]);
                if self.places[group as usize] == UNSEEN {
                    self.places[group as usize] = self.place_of(group);
                }
                self.taken[k] = self.places[group as usize];
            }
        }
    }

    /// The place of a group in the round.
    fn place_of(&self, group: u32) -> u32 {
        let mut key: Vec<u32> = self.plan.groups.iter().map(|group| u32::from(*group == GroupColumn::Table)).collect();
        let bucket = self.grouper.key(group, &mut key);
        for (number, numbers) in key.iter_mut().zip(&self.numbers) {
            *number = numbers[*number as usize];
        }
        let round = self.round;
        let (mut low, mut high) = (0, round.buckets.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let of_middle = round.keys.iter().map(|column| column[middle]);
            match round.buckets[middle].cmp(&bucket).then_with(|| of_middle.cmp(key.iter().copied())) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return middle as u32,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        round.buckets.len() as u32
    }
}

impl Sink for Narrow<'_> {
    fn add(&mut self, chunk: Chunk<'_>) -> Result<(), ApiError> {
        let rows = match chunk.selection {
            None => Rows::All(chunk.rows.len()),
            Some(selection) => Rows::Listed(selection.list(chunk.list)),
        };
        let columns = KeyColumns { times: chunk.segment.times, codes: &chunk.segment.codes, rows: chunk.rows.clone() };
        self.grouper.find(&columns, rows)?;
        self.find_places(rows);
        let taken = &self.taken[..rows.len()];
        for ((cell, &column), ranges) in self.cells.iter_mut().zip(chunk.cells).zip(&self.round.ranges) {
            let CellColumn::Values(Values::Doubles(values)) = column else { continue };
            let NarrowCell { first, wanted, found, counts } = cell;
            let mut look = |k: usize, value: f64| {
                let bits = ordered_bits(value);
                let place = taken[k] as usize;
                for at in first[place]..first[place + 1] {
                    let Some(number) = ranges[at as usize].1.number_of(bits) else { continue };
                    if self.round.brings {
                        found.values.push((at, value));
                    } else {
                        *counts.entry(pair(at, number)).or_default() += 1;
                    }
                }
            };
            let bins = &mut self.bins[..taken.len()];
            match (rows, wanted) {
                (Rows::All(_), Some(Wanted { base, width, marks }))
                    if bins::numbers_of_normal(values, bins).is_some() =>
                {
                    let listed = kernels::list_marked(taken, bins, *base, *width, marks, &mut self.list);
                    listed.iter().for_each(|&row| look(row.into(), values[usize::from(row)]));
                }
                _ => kernels::each_present(rows, values, look),
            }
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        let cells = self.cells.iter().map(|cell| cell.found.bytes() + cell.counts.capacity() * 2 * size_of::<u64>());
        let numbers: usize = self.numbers.iter().map(|numbers| size_of_val(&**numbers)).sum();
        let first: usize = self.cells.iter().map(|cell| size_of_val(&*cell.first)).sum();
        let wanted = self.cells.iter().flat_map(|cell| &cell.wanted);
        let marks: usize = wanted.map(|wanted| size_of_val(&*wanted.marks)).sum();
        cells.sum::<usize>() + numbers + first + marks + size_of_val(&*self.places) + self.grouper.bytes()
    }
}

/// By code of a group column, the number of its string in the round.
fn numbers(group: &GroupColumn, column: usize, round: &Round, task: &Task) -> Vec<u32> {
    let values = &round.values[column];
    let all = || {
        (1..values.numbers() as u32).map(|number| (number, values.get(number).expect("numbers from 1 have strings")))
    };
    match group {
        GroupColumn::Table => {
            let own = all().find(|(_, name)| *name == task.source.table_name());
            vec![0, own.map_or(u32::MAX, |(number, _)| number)]
        }
        GroupColumn::Dimension(_) => {
            let view = task.dictionaries[column].and_then(|segment| task.source.group_dictionary(column, segment));
            let mut numbers = vec![u32::MAX; view.map_or(0, |view| view.len() as usize) + 1];
            numbers[0] = 0;
            for (number, value) in all() {
                // A code beyond the length was given since, and is in no row of the snapshot.
                let code = view.and_then(|view| view.find(value)).filter(|&code| (code as usize) < numbers.len());
                if let Some(code) = code {
                    numbers[code as usize] = number;
                }
            }
            numbers
        }
    }
}
