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

    /// The group columns that have a dictionary, each with the numbers that it can have.
    pub(crate) fn columns(&self) -> &[(usize, u32)] {
        &self.columns
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

    /// Merges listed groups whose keys have the same meaning; `false`: one has no place here, and nothing was done.
    pub(crate) fn absorb_listed(&mut self, other: &Groups) -> bool {
        let mut places = vec![0_u32; other.len()];
        for &(column, radix) in &self.columns {
            for (place, &number) in places.iter_mut().zip(&other.keys[column]) {
                if number >= radix {
                    return false;
                }
                *place = *place * radix + number;
            }
        }
        places.iter().zip(&other.rows).for_each(|(&place, rows)| self.rows[place as usize] += rows);
        self.states.iter_mut().zip(&other.states).for_each(|(into, from)| into.absorb(from, &places));
        true
    }

    /// The same groups where the columns can have other numbers: more, as dictionaries grow, or fewer, where a query that was
    /// planned later, and knows more of them, was there first. Rows have only numbers that both can have. `None` where too few
    /// places would be groups.
    pub(crate) fn spread(&self, plan: &Plan, columns: Vec<(usize, u32)>) -> Option<Self> {
        let places = columns.iter().try_fold(1_usize, |places, &(_, radix)| places.checked_mul(radix as usize))?;
        if self.len() * 2 < places {
            return None;
        }
        let groups = self.places();
        let target = |&place: &u32| {
            let (mut target, mut rest, mut step) = (0, place, 1);
            for (&(_, radix), &(_, other)) in self.columns.iter().zip(&columns).rev() {
                target += rest % radix * step;
                (rest, step) = (rest / radix, step * other);
            }
            target
        };
        let map: Vec<u32> = groups.iter().map(target).collect();
        let mut rows = vec![0; places];
        groups.iter().zip(&map).for_each(|(&from, &to)| rows[to as usize] = self.rows[from as usize]);
        let states = plan.cells.iter().zip(&self.states).map(|(cell, state)| {
            let mut into = State::new(cell, places, Level::Codes);
            into.absorb(&state.pick(&groups), &map);
            into
        });
        Some(Self { states: states.collect(), columns, rows })
    }

    /// The groups with their keys.
    pub(crate) fn groups(&self, plan: &Plan) -> Groups {
        self.pick(plan, self.places())
    }

    /// The places that are groups, ascending.
    fn places(&self) -> Vec<u32> {
        (0..).zip(&self.rows).filter(|(_, rows)| **rows > 0).map(|(place, _)| place).collect()
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
            groups.keys[column] = divide(&mut rest, radix);
        }
        groups
    }
}

/// Divides each number by a divisor; returns what remains of each. They ascend, and most have the quotient of the one before.
fn divide(numbers: &mut [u32], divisor: u32) -> Vec<u32> {
    let (mut quotient, mut first) = (0, 0);
    let remaining = numbers.iter_mut().map(|number| {
        if *number - first >= divisor {
            quotient = *number / divisor;
            first = quotient * divisor;
        }
        let remains = *number - first;
        *number = quotient;
        remains
    });
    remaining.collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use types::{
        ColumnDef, ColumnKind, Generation, Schema, SchemaVersion, Table, TableId, TableKey, TableName, TableSettings,
        TenantId,
    };

    use super::*;

    fn plan() -> Plan {
        let dimension = |name: &str| ColumnDef { name: name.into(), kind: ColumnKind::Dimension };
        let metric = ColumnDef { name: "m".into(), kind: ColumnKind::Metric };
        let table = Table {
            key: TableKey { tenant: TenantId(1), table: TableId(1), generation: Generation(1) },
            name: TableName::new("shop", "events"),
            partitions: Vec::new(),
            partition_by: None,
            partition_seed: 0,
            identity_seed: 0,
            schema: Schema::from_parts(SchemaVersion(1), vec![dimension("a"), dimension("b"), metric]),
            settings: TableSettings::default(),
        };
        let json = r#"{"namespace":"shop","table":"events","start_time":0,"end_time":9,"group_by":["a","b"],
            "aggregates":[{"fn":"sum","metric":"m"},{"fn":"min","metric":"m"},{"fn":"stddev","metric":"m"}]}"#;
        let query = crate::parse(json.as_bytes(), &crate::QueryLimits::default()).expect("a good query");
        crate::plan(&query, &[Arc::new(table)]).expect("a good plan")
    }

    /// By key: rows, and the bits of all states.
    fn by_key(plan: &Plan, groups: &LaidOut) -> BTreeMap<(u32, u32), (u64, String)> {
        let groups = groups.groups(plan);
        let all = 0..groups.len();
        let group = |at: usize| {
            let states: Vec<_> = groups.states.iter().map(|state| state.pick(&[at as u32])).collect();
            ((groups.keys[0][at], groups.keys[1][at]), (groups.rows[at], format!("{states:?}")))
        };
        all.map(group).collect()
    }

    /// Two by three keys, of which one has no rows.
    fn laid_out(plan: &Plan) -> LaidOut {
        let rows = vec![3, 0, 1, 7, 2, 5];
        let values = [1.5, 0.0, -2.0, f64::MAX, 1e-300, 0.1];
        let states = plan.cells.iter().map(|cell| {
            let mut state = State::new(cell, rows.len(), Level::Codes);
            match &mut state {
                State::Sum { sums, counts } => (sums.copy_from_slice(&values), counts.copy_from_slice(&rows)).1,
                State::Min(least) => least.copy_from_slice(&values),
                State::Moments { counts, means, deviations } => {
                    counts.copy_from_slice(&rows);
                    means.copy_from_slice(&values);
                    deviations.copy_from_slice(&values);
                }
                other => unreachable!("{other:?}"),
            }
            state
        });
        LaidOut::new(vec![(0, 2), (1, 3)], rows.clone(), states.collect())
    }

    /// Goal: groups laid out for larger dictionaries are the same, with all that they have; where too few places would be
    /// groups, they are not.
    #[test]
    fn spread_groups_are_the_same() {
        let plan = plan();
        let groups = laid_out(&plan);
        let expected = by_key(&plan, &groups);
        assert_eq!(expected.keys().copied().collect::<Vec<_>>(), [(0, 0), (0, 2), (1, 0), (1, 1), (1, 2)]);
        for (a, b) in [(2, 3), (2, 5), (3, 3)] {
            let spread = groups.spread(&plan, vec![(0, a), (1, b)]).expect("half of the places are groups");
            assert_eq!((by_key(&plan, &spread), spread.len()), (expected.clone(), 5), "{a} {b}");
            assert_eq!(spread.columns(), [(0, a), (1, b)]);
        }
        assert!(groups.spread(&plan, vec![(0, 4), (1, 3)]).is_none());
    }

    /// Goal: listed groups are merged into those that are laid out as these would be, be they the same or others; where one of them
    /// has no place, nothing happens.
    #[test]
    fn listed_groups_find_their_places() {
        let plan = plan();
        let (groups, mut twice) = (laid_out(&plan), laid_out(&plan));
        twice.absorb(&groups);
        let mut merged = laid_out(&plan);
        assert!(merged.absorb_listed(&groups.groups(&plan)));
        assert_eq!(by_key(&plan, &merged), by_key(&plan, &twice));
        // A key that had no rows.
        let other = Groups { keys: vec![vec![0], vec![1]], ..groups.groups(&plan).pick(&[2]) };
        assert!(merged.absorb_listed(&other));
        let known = by_key(&plan, &merged);
        assert_eq!((known.len(), known[&(0, 1)].0), (6, 7));
        let beyond = Groups { keys: vec![vec![0], vec![3]], ..groups.groups(&plan).pick(&[2]) };
        assert!(!merged.absorb_listed(&beyond));
        assert_eq!(by_key(&plan, &merged), known);
    }

    /// Goal: groups that were laid out for larger dictionaries than those of whoever takes them are the same: numbers that these
    /// do not have yet are of rows that these do not have.
    #[test]
    fn groups_return_to_smaller_dictionaries() {
        let plan = plan();
        let groups = laid_out(&plan);
        let expected = by_key(&plan, &groups);
        for (a, b) in [(3, 3), (2, 5), (2, 4)] {
            let wide = groups.spread(&plan, vec![(0, a), (1, b)]).expect("half of the places are groups");
            let narrow = wide.spread(&plan, vec![(0, 2), (1, 3)]).expect("most places are groups");
            assert_eq!((by_key(&plan, &narrow), narrow.rows.len()), (expected.clone(), 6), "{a} {b}");
        }
    }
}
