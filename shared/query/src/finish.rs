//! The end of a query: partitions merged, rows ordered and cut, numbers made of states.

use sketch::{Bound, TDigest};
use types::ApiError;

use crate::{
    allowance::Allowance,
    answer::{Answer, Cell, Rows},
    cancel::Cancel,
    groups::Groups,
    leading::Named,
    order::order,
    partial::{Partial, PartialsMerge, ScanStats, merge_partitions},
    plan::{Plan, Value},
    selection::Selection,
    state::State,
    top::Leaders,
    values::Values,
};

/// The end of a query under way: what all partitions found, merged.
///
/// Most plans need one scan. While [`Finishing::next_round`] has a plan, that one is to be run as well, over the rows of the
/// first scan: the same partitions at the same offsets.
#[derive(Debug)]
pub struct Finishing {
    values: Vec<Values>,
    groups: Groups,
    selection: Selection,
    stats: ScanStats,
    /// Whether the groups that lead are known with all that they have.
    settled: bool,
}

impl Finishing {
    /// Merges the results of all partitions, given in any order.
    ///
    /// # Errors
    /// `CANCELLED`, `DEADLINE_EXCEEDED`; `RESOURCE_EXHAUSTED` where there are more groups, or more memory is needed, than
    /// the plan allows.
    pub fn new(plan: &Plan, partials: Vec<Partial>, cancel: &Cancel<'_>) -> Result<Self, ApiError> {
        cancel.check()?;
        Self::of(plan, merge(plan, partials, cancel)?, cancel)
    }

    /// The same where some partitions were merged before; `rest` are those behind them, given in any order.
    ///
    /// # Errors
    /// As [`Finishing::new`].
    pub fn after(
        plan: &Plan,
        mut merged: PartialsMerge,
        mut rest: Vec<Partial>,
        cancel: &Cancel<'_>,
    ) -> Result<Self, ApiError> {
        if merged.is_empty() {
            return Self::new(plan, rest, cancel);
        }
        rest.sort_by_key(Partial::partition);
        for partial in rest {
            merged.absorb(plan, &partial, cancel)?;
        }
        Self::of(plan, merged.into_parts(), cancel)
    }

    fn of(
        plan: &Plan,
        (values, mut groups, named, stats): (Vec<Values>, Groups, Named, ScanStats),
        cancel: &Cancel<'_>,
    ) -> Result<Self, ApiError> {
        if !plan.grouped() && groups.len() == 0 {
            groups.push_empty();
        }
        let mut allowance = Allowance::new(plan, cancel, bytes_of(&values, &groups));
        let selection = Selection::new(plan, &mut groups, &mut allowance)?;
        let settled = plan.leading.is_none_or(|leading| leading.is_settled(&groups, &named, plan.limit));
        Ok(Self { values, groups, selection, stats, settled })
    }

    /// What has to be looked for once more; `None` where the answer is there.
    ///
    /// # Errors
    /// `CANCELLED`, `DEADLINE_EXCEEDED`.
    pub fn next_round(&mut self, plan: &Plan, cancel: &Cancel<'_>) -> Result<Option<Plan>, ApiError> {
        if !self.settled {
            return Ok(Some(Plan { leading: None, ..plan.clone() }));
        }
        self.selection.next_round(plan, &self.values, &self.groups, cancel)
    }

    /// Takes what the plan of the last [`Finishing::next_round`] found in all partitions, given in any order. `false`: rows
    /// of the first scan were missing from it, so all has to be asked again.
    ///
    /// # Errors
    /// As [`Finishing::new`].
    pub fn absorb(&mut self, round: &Plan, partials: Vec<Partial>, cancel: &Cancel<'_>) -> Result<bool, ApiError> {
        cancel.check()?;
        let (values, groups, _, stats) = merge(round, partials, cancel)?;
        self.stats.add(stats);
        let Some(wanted) = &round.round else {
            // The same question, with all groups this time.
            (self.values, self.groups, self.settled) = (values, groups, true);
            return Ok(true);
        };
        let found = groups.states.into_iter().map(|state| match state {
            State::Narrowed(narrowed) => narrowed,
            _ => unreachable!("a round finds nothing else"),
        });
        self.selection.narrow(wanted, found.collect(), &mut Allowance::new(round, cancel, 0))
    }

    /// The answer.
    ///
    /// # Errors
    /// `CANCELLED`, `DEADLINE_EXCEEDED`; `RESOURCE_EXHAUSTED` where its values or the text of its rows need more memory than
    /// the plan allows.
    pub fn answer(mut self, plan: &Plan, cancel: &Cancel<'_>) -> Result<Answer, ApiError> {
        let count = self.groups.len();
        let held = bytes_of(&self.values, &self.groups) + self.selection.bytes();
        let mut allowance = Allowance::new(plan, cancel, held);
        let mut outputs = Vec::with_capacity(plan.outputs.len());
        for (at, output) in plan.outputs.iter().enumerate() {
            allowance.take(count, size_of::<Cell>())?;
            outputs.push(match self.selection.of_output(at, output.value.cell(), count) {
                Some(values) => OutputColumn::of_values(values, None),
                None => column(&mut self.groups, output.value),
            });
        }
        allowance.take(count, size_of::<u32>())?;
        let kept = order(plan, &self.values, &self.groups, &outputs, cancel)?;
        let truncated = self.groups.len() > kept.len();
        // No order is asked by lists, so they are made for the rows that stay alone.
        for (output, column) in plan.outputs.iter().zip(&mut outputs) {
            list_leaders(&mut self.groups, output.value, &kept, column, &mut allowance)?;
        }
        let rows = Rows { values: &self.values, groups: &self.groups, outputs: &outputs, kept: &kept };
        Answer::new(plan, &rows, truncated, self.stats, &mut allowance)
    }
}

/// Memory that the merged groups and the strings of their keys take.
fn bytes_of(values: &[Values], groups: &Groups) -> usize {
    values.iter().map(Values::bytes).sum::<usize>() + groups.bytes()
}

/// Merges partials in the order of their partitions.
fn merge(
    plan: &Plan,
    mut partials: Vec<Partial>,
    cancel: &Cancel<'_>,
) -> Result<(Vec<Values>, Groups, Named, ScanStats), ApiError> {
    partials.sort_by_key(Partial::partition);
    let mut stats = ScanStats::default();
    partials.iter().for_each(|partial| stats.add(partial.stats));
    if partials.len() == 1
        && let Some(Partial { values, groups, floor, .. }) = partials.pop()
    {
        let mut named = Named::default();
        let all: Vec<u32> = (0..groups.len() as u32).collect();
        named.add(floor, &all, groups.len());
        return Ok((values, groups, named, stats));
    }
    let (values, groups, named) = merge_partitions(plan, &partials, cancel)?;
    Ok((values, groups, named, stats))
}

/// An output's value in every group.
pub(crate) struct OutputColumn {
    pub(crate) cells: Vec<Cell>,
    /// Whether some value was too large for a number, and is null instead.
    pub(crate) overflow: bool,
    /// How far the worst cell can be off; `None` where all are exact.
    pub(crate) bound: Option<Bound>,
    /// The lists that cells refer to.
    pub(crate) lists: Vec<Leaders>,
}

impl OutputColumn {
    fn exact(cells: Vec<Cell>) -> Self {
        Self { cells, overflow: false, bound: None, lists: Vec::new() }
    }

    /// Of values of which NaN stands for none, and an infinite one for one that is too large for a number.
    fn of_values(values: Vec<f64>, bound: Option<Bound>) -> Self {
        let overflow = values.iter().any(|value| value.is_infinite());
        let cell = |value: f64| if value.is_finite() { Cell::Float(value + 0.0) } else { Cell::Null };
        Self { bound, overflow, ..Self::exact(values.into_iter().map(cell).collect()) }
    }
}

/// An output's value in every group.
fn column(groups: &mut Groups, value: Value) -> OutputColumn {
    let count = groups.len();
    match (value, value.cell().map(|at| &mut groups.states[at])) {
        (Value::Percentile { q, .. }, Some(State::Quantiles(quantiles))) => {
            let (values, bound) = quantiles.quantiles(count, q);
            OutputColumn::of_values(values, bound)
        }
        (Value::Percentile { q, .. }, Some(State::Digests(digests))) => {
            OutputColumn::of_values(digests.quantiles(count, q), Some(TDigest::BOUND))
        }
        (Value::Distinct(_), Some(State::Distinct(distinct))) => {
            let (counts, bound) = distinct.counts(count);
            OutputColumn { bound, ..OutputColumn::exact(counts.into_iter().map(Cell::Integer).collect()) }
        }
        // Lists wait until it is known which rows stay.
        (Value::Top { .. }, Some(State::Top(_))) => OutputColumn::exact(vec![Cell::Null; count]),
        _ => plain_column(groups, value),
    }
}

/// The lists of the groups that stay, where an output has lists.
fn list_leaders(
    groups: &mut Groups,
    value: Value,
    kept: &[u32],
    column: &mut OutputColumn,
    allowance: &mut Allowance<'_>,
) -> Result<(), ApiError> {
    let Value::Top { cell, k } = value else { return Ok(()) };
    let State::Top(top) = &mut groups.states[cell] else { unreachable!("the planner chose it for lists") };
    (column.lists, column.bound) = top.leaders(&groups.rows, k, kept, |bytes| allowance.step(bytes))?;
    for (at, &group) in kept.iter().enumerate() {
        column.cells[group as usize] = Cell::List(at as u32);
    }
    Ok(())
}

/// The same where each group has a number or two.
fn plain_column(groups: &Groups, value: Value) -> OutputColumn {
    let mut overflow = false;
    let mut float = |count: u64, value: f64| match (count, value.is_finite()) {
        (0, _) => Cell::Null,
        // Adding zero makes -0.0 plain: which of two equal zeros came first is nobody's business.
        (_, true) => Cell::Float(value + 0.0),
        (_, false) => {
            overflow = true;
            Cell::Null
        }
    };
    let cells = match (value, value.cell().map(|at| &groups.states[at])) {
        (Value::Rows, _) => groups.rows.iter().map(|&rows| Cell::Integer(rows)).collect(),
        (Value::Present(_), Some(State::Count(counts) | State::Sum { counts, .. })) => {
            counts.iter().map(|&count| Cell::Integer(count)).collect()
        }
        (Value::Sum(_), Some(State::Sum { sums, counts })) => {
            sums.iter().zip(counts).map(|(&sum, &count)| float(count, sum)).collect()
        }
        (Value::Avg(_), Some(State::Sum { sums, counts })) => {
            sums.iter().zip(counts).map(|(&sum, &count)| float(count, sum / count as f64)).collect()
        }
        // Values are finite, so an infinite extreme is that of no value.
        (Value::Min(_) | Value::Max(_), Some(State::Min(values) | State::Max(values))) => {
            values.iter().map(|&value| float(u64::from(value.is_finite()), value)).collect()
        }
        (Value::Variance(_) | Value::Stddev(_), Some(State::Moments { counts, means, deviations })) => {
            let root = matches!(value, Value::Stddev(_));
            let moments = counts.iter().zip(means).zip(deviations);
            moments
                .map(|((&count, &mean), &deviation)| {
                    let variance = deviation / count as f64;
                    // Where the mean overflowed, the deviations from it mean nothing.
                    let variance = if mean.is_finite() { variance } else { mean };
                    float(count, if root { variance.sqrt() } else { variance })
                })
                .collect()
        }
        _ => unreachable!("an output's cell has the state that the planner chose for it"),
    };
    OutputColumn { overflow, ..OutputColumn::exact(cells) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a percentile that is too large for a number is null and says so, and is never written.
    #[test]
    fn infinite_values_are_an_overflow() {
        let column = OutputColumn::of_values(vec![1.0, f64::INFINITY, f64::NAN], None);
        assert_eq!((&column.cells[..], column.overflow), (&[Cell::Float(1.0), Cell::Null, Cell::Null][..], true));
        assert!(!OutputColumn::of_values(vec![1.0, f64::NAN], None).overflow);
    }
}
