//! A task of a further round of a selection: the values that lie in the ranges of their groups.

use hashbrown::HashMap;
use kernels::{CHUNK_ROWS, Rows, ordered_bits};
use types::ApiError;

use crate::{
    accumulator::CellColumn,
    grouper::{Grouper, KeyColumns},
    groups::Groups,
    pair_counts::pair,
    plan::{GroupColumn, Plan},
    run::{Chunk, Sink},
    selection::{Narrowed, Round},
    state::State,
    task::Task,
};

/// A group of the task that was not seen yet, and one that is not looked into.
const UNSEEN: u32 = u32::MAX;
const PASSED_OVER: u32 = u32::MAX - 1;

/// Where the chunks of such a task go.
pub(crate) struct Narrow<'a> {
    plan: &'a Plan,
    round: &'a Round,
    grouper: Grouper,
    /// Per group column: by code, the number of its string in the round; `u32::MAX` for one that the round does not have.
    numbers: Vec<Vec<u32>>,
    /// By group of the grouper: its place in the round.
    places: Vec<u32>,
    cells: Vec<NarrowCell>,
    taken: Box<[u32; CHUNK_ROWS]>,
}

/// A metric's ranges.
struct NarrowCell {
    /// By group of the round: where its ranges begin; and the end of all.
    first: Vec<u32>,
    found: Narrowed,
    /// How often each bin of each range was met, where values are counted.
    counts: HashMap<u64, u64>,
}

impl<'a> Narrow<'a> {
    pub(crate) fn new(plan: &'a Plan, round: &'a Round, task: &Task) -> Self {
        let numbers = plan.groups.iter().enumerate().map(|(column, group)| numbers(group, column, round, task));
        let cells = round.ranges.iter().map(|ranges| {
            let first = |group| ranges.partition_point(|&(of, _)| of < group) as u32;
            let first = (0..=round.buckets.len() as u32).map(first).collect();
            NarrowCell { first, found: Narrowed::default(), counts: HashMap::new() }
        });
        Self {
            plan,
            round,
            numbers: numbers.collect(),
            places: Vec::new(),
            cells: cells.collect(),
            grouper: Grouper::new(plan, task),
            taken: Box::new([0; CHUNK_ROWS]),
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
        PASSED_OVER
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
        self.places.resize(self.grouper.slots() >> self.grouper.lanes_log2(), UNSEEN);
        for k in 0..rows.len() {
            let group = self.grouper.group_of(self.grouper.found(rows)[k]);
            if self.places[group as usize] == UNSEEN {
                self.places[group as usize] = self.place_of(group);
            }
            self.taken[k] = self.places[group as usize];
        }
        let taken = &self.taken[..rows.len()];
        for ((cell, &column), ranges) in self.cells.iter_mut().zip(&chunk.segment.cells).zip(&self.round.ranges) {
            let CellColumn::Values(values) = column else { continue };
            kernels::each_present(rows, &values[chunk.rows.clone()], |k, value| {
                if taken[k] == PASSED_OVER {
                    return;
                }
                let bits = ordered_bits(value);
                let place = taken[k] as usize;
                for at in cell.first[place]..cell.first[place + 1] {
                    let Some(number) = ranges[at as usize].1.number_of(bits) else { continue };
                    if self.round.brings {
                        cell.found.values.push((at, value));
                    } else {
                        *cell.counts.entry(pair(at, number)).or_default() += 1;
                    }
                }
            });
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        let cells = self.cells.iter().map(|cell| cell.found.bytes() + cell.counts.capacity() * 2 * size_of::<u64>());
        let numbers: usize = self.numbers.iter().map(|numbers| size_of_val(&**numbers)).sum();
        let first: usize = self.cells.iter().map(|cell| size_of_val(&*cell.first)).sum();
        cells.sum::<usize>() + numbers + first + size_of_val(&*self.places) + self.grouper.bytes()
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
