//! Results of tasks, kept for the queries that come again.
//!
//! A key says all that a result depends on, segments and their rows among it, so nothing kept is ever stale; what has left
//! or grown is not asked for any more and leaves as others come. A result is kept when its task is met for the second time:
//! what is asked once only leaves a mark.

use std::sync::Arc;

use cache::{Bounded, Uses};
use query::{Cancel, KeptTask, Plan, Task, TaskKey, TaskPartial};
use types::ApiError;

/// What a result may take per row that it spares, bytes; one that takes more costs about as much to merge as to make.
const ROW_BYTES_MAX: usize = 2;
/// What any result may take, bytes.
const RESULT_BYTES_LEAST: usize = 64 << 10;
/// What a plan may put into each of its tasks' keys, bytes: a longer list of values would be hashed for every task.
const FORM_BYTES_MAX: usize = 64 << 10;

/// A task that was met before.
#[derive(Clone)]
enum Met {
    Once,
    Kept(KeptTask),
}

/// The results that a node keeps.
pub(crate) struct KeptResults {
    met: Bounded<TaskKey, Met>,
    uses: Uses,
}

impl KeptResults {
    /// None yet, and so many bytes at most; 0: none ever.
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { met: Bounded::new("tasks", bytes_max), uses: Uses::of("tasks") }
    }

    /// What the keys of a plan's tasks have in common, where its results may be kept.
    pub(crate) fn form(&self, plan: &Plan) -> Option<Arc<[u8]>> {
        let form = if self.met.is_on() { plan.task_form() } else { None };
        form.filter(|form| form.len() <= FORM_BYTES_MAX)
    }

    /// The result of a task, kept or made now. `form`: that of the plan.
    ///
    /// # Errors
    /// Those of [`query::run`].
    pub(crate) fn run(
        &self,
        plan: &Plan,
        form: Option<&Arc<[u8]>>,
        task: &Task,
        cancel: &Cancel<'_>,
    ) -> Result<TaskPartial, ApiError> {
        // Without rows there is nothing to spare.
        let Some(form) = form.filter(|_| task.rows() > 0) else { return query::run(plan, task, cancel) };
        let key = task.key(plan, form);
        let met = self.met.get(&key);
        self.uses.count(matches!(met, Some(Met::Kept(_))));
        if let Some(Met::Kept(kept)) = met {
            return Ok(task.reuse(plan, &kept));
        }
        let result = query::run(plan, task, cancel)?;
        let key_bytes = key.bytes() as u64;
        if met.is_none() {
            self.met.put(key, Met::Once, key_bytes);
        } else if result.bytes() <= RESULT_BYTES_LEAST.max(task.rows() * ROW_BYTES_MAX)
            && let Some(kept) = result.keep()
        {
            let bytes = key_bytes + kept.bytes() as u64;
            self.met.put(key, Met::Kept(kept), bytes);
        }
        Ok(result)
    }
}

#[cfg(test)]
mod tests;
