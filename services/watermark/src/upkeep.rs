//! Looks at all partitions each second and at all ledgers every ten, for the gauges and the health.

use std::time::Duration;

use service::{Health, Shutdown};
use tokio::{
    task::JoinHandle,
    time::{Interval, MissedTickBehavior, interval},
};

use crate::{
    Clock,
    audit::Audit,
    monitor::{Monitor, publish},
};

/// How often to look at the partitions.
const LAG_INTERVAL: Duration = Duration::from_secs(1);
/// How often to look at the ledgers.
const LEDGER_INTERVAL: Duration = Duration::from_secs(10);
/// Under this name the health tells of lag.
const LAG: &str = "lag";
/// Under this name the health tells of ledgers.
const LEDGER: &str = "ledger";
/// Reasons that the health names; of more only their number.
const REASONS_MAX: usize = 4;

/// A task that goes on until it is stopped.
pub(crate) struct Upkeep {
    stop: Shutdown,
    task: JoinHandle<()>,
}

impl Upkeep {
    /// Waits for the look under way.
    pub(crate) async fn stop(self) {
        self.stop.trigger();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "watching the partitions ended early");
        }
    }
}

/// Looks at the lag of all partitions.
pub(crate) fn watch_lag(mut monitor: Monitor, clock: Clock, health: Health) -> Upkeep {
    let stop = Shutdown::new();
    let stopped = stop.clone();
    let task = tokio::spawn(async move {
        let mut ticks = ticks(LAG_INTERVAL);
        loop {
            tokio::select! {
                () = stopped.wait() => return,
                _ = ticks.tick() => one_round(&mut monitor, &clock, &health).await,
            }
        }
    });
    Upkeep { stop, task }
}

/// Looks at the ledgers of all tables. A round is given up where it is stopped: there may be many tables.
pub(crate) fn watch_ledgers(mut audit: Audit, health: Health) -> Upkeep {
    let stop = Shutdown::new();
    let stopped = stop.clone();
    let task = tokio::spawn(async move {
        let rounds = async {
            let mut ticks = ticks(LEDGER_INTERVAL);
            loop {
                ticks.tick().await;
                match audit.round().await {
                    alarms if alarms.is_empty() => health.recover(LEDGER),
                    alarms => {
                        let reasons = alarms.iter().map(|table| format!("the ledger of {table} does not balance"));
                        health.degrade(LEDGER, summary(&reasons.collect::<Vec<_>>()));
                    }
                }
            }
        };
        tokio::select! {
            () = stopped.wait() => {}
            () = rounds => {}
        }
    });
    Upkeep { stop, task }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

pub(crate) async fn one_round(monitor: &mut Monitor, clock: &Clock, health: &Health) {
    let observation = monitor.observe(clock.as_ref()).await;
    publish(&observation);
    if observation.reasons.is_empty() {
        health.recover(LAG);
    } else {
        health.degrade(LAG, summary(&observation.reasons));
    }
}

fn summary(reasons: &[String]) -> String {
    let named = reasons.iter().take(REASONS_MAX).cloned().collect::<Vec<_>>().join("; ");
    match reasons.len().saturating_sub(REASONS_MAX) {
        0 => named,
        more => format!("{named}; and {more} more"),
    }
}
