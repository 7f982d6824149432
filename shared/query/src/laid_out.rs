//! Groups laid out by their keys: where most of the keys that a task can have do have rows, a group's place is its key, so
//! that neither keys nor a search for them are needed before the results of a partition are merged.

use crate::{
    groups::Groups,
    leading::Leading,
    plan::{GroupColumn, Plan},
    state::{Level, State},
};

/// Groups by place. A place without rows is no group.
#[derive(Debug, Clone)]
pub(crate) struct LaidOut {
    /// The group columns that have a dictionary, each with the numbers that it can have: the last varies fastest.
    columns: Vec<(usize, u32)>,
    rows: Vec<u64>,
    /// All of the kinds that have a number or a few per group.
    states: Vec<State>,
}

impl LaidOut {
    pub(crate) fn new(columns: Vec<(usize, u32)>, rows: Vec<u64>, states: Vec<State>) -> Self {
        Self { columns, rows, states }
    }

    /// How many groups there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.iter().filter(|&&rows| rows > 0).count()
    }

    /// Whether most places are groups, so that it is worth to stay like this.
    pub(crate) fn is_dense(&self) -> bool {
        let groups = self.len();
        groups > 0 && groups * 2 >= self.rows.len()
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.rows) + self.states.iter().map(State::bytes).sum::<usize>()
    }

    /// Merges groups whose keys have the same meaning.
    pub(crate) fn absorb(&mut self, other: &Self) {
        assert_eq!(self.columns, other.columns, "a scan looks at a dictionary's size once");
        self.rows.iter_mut().zip(&other.rows).for_each(|(into, from)| *into += from);
        for (into, from) in self.states.iter_mut().zip(&other.states) {
            into.absorb_alike(from);
        }
    }

    /// The groups with their keys.
    pub(crate) fn into_groups(self, plan: &Plan) -> Groups {
        let groups = (0..).zip(&self.rows).filter(|(_, rows)| **rows > 0).map(|(place, _)| place).collect();
        self.pick(plan, groups)
    }

    /// The groups that lead, with their keys, and the greatest count of the others, if there are others.
    pub(crate) fn into_leading(self, plan: &Plan, leading: Leading) -> (Groups, Option<u64>) {
        let (places, floor) = leading.choose(&self.rows, &self.states);
        (self.pick(plan, places), floor)
    }

    fn pick(&self, plan: &Plan, places: Vec<u32>) -> Groups {
        let mut groups = Groups::new(plan, Level::Codes);
        groups.buckets = vec![0; places.len()];
        groups.rows = places.iter().map(|&place| self.rows[place as usize]).collect();
        groups.states = self.states.iter().map(|state| state.pick(&places)).collect();
        for (group, keys) in plan.groups.iter().zip(&mut groups.keys) {
            // The pseudo-column has one string, and a column without any dictionary none.
            keys.resize(places.len(), u32::from(*group == GroupColumn::Table));
        }
        let mut rest = places;
        for (at, &(column, radix)) in self.columns.iter().enumerate().rev() {
            if at == 0 {
                groups.keys[column] = rest;
                break;
            }
            groups.keys[column] = rest.iter().map(|place| place % radix).collect();
            rest.iter_mut().for_each(|place| *place /= radix);
        }
        groups
    }
}
