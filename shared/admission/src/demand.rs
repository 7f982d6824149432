//! What a process wants of the budgets that it shares: the rates at which events are asked of it.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use crate::limiter::{Budget, Limiter};

/// How fast a rate follows what is asked: what came in this time before now counts for two thirds.
const FOLLOWS_IN: Duration = Duration::from_millis(500);
/// A tenant of which nothing came for so long is no longer named, and its share is free.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);
/// The least that is wanted, as a part of the whole: who asks for little meets a share when it asks for more.
const LEAST_PART: f64 = 1e-3;

/// What is wanted of each budget.
#[derive(Debug, Default)]
pub struct Demand {
    budgets: HashMap<Budget, Asked>,
}

#[derive(Debug)]
struct Asked {
    /// Events per second.
    rate: f64,
    silent: Duration,
}

impl Demand {
    /// Takes in what was asked of `limiter` in the `elapsed` time since the last call, and gives what is wanted now of each budget,
    /// in events per second, none of them 0.
    pub fn observe(&mut self, limiter: &Limiter, elapsed: Duration) -> Vec<(Budget, u64)> {
        let weight = 1.0 - (-elapsed.as_secs_f64() / FOLLOWS_IN.as_secs_f64()).exp();
        limiter.take_asked(|budget, events| {
            let rate = events as f64 / elapsed.as_secs_f64().max(1e-3);
            match self.budgets.entry(budget) {
                // What is new is wanted at once.
                Entry::Vacant(entry) if events > 0 || budget == Budget::Global => {
                    entry.insert(Asked { rate, silent: Duration::ZERO });
                }
                Entry::Vacant(_) => {}
                Entry::Occupied(mut entry) => {
                    let asked = entry.get_mut();
                    asked.rate += (rate - asked.rate) * weight;
                    asked.silent = if events > 0 { Duration::ZERO } else { asked.silent + elapsed };
                }
            }
        });
        self.budgets.retain(|budget, asked| *budget == Budget::Global || asked.silent < FORGOTTEN_AFTER);
        let config = limiter.config();
        let wants = self.budgets.iter().map(|(budget, asked)| {
            let limit = match budget {
                Budget::Global => config.global,
                Budget::Tenant(_) => config.tenant,
            };
            let least = (limit.per_second() as f64 * LEAST_PART).max(1.0);
            (*budget, asked.rate.max(least) as u64)
        });
        wants.collect()
    }

    /// Whether something is wanted of a budget.
    #[must_use]
    pub fn names(&self, budget: Budget) -> bool {
        self.budgets.contains_key(&budget)
    }
}
