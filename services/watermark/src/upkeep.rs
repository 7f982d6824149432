//! Looks at all partitions each second, for the gauges and the health.

use std::time::Duration;

use service::{Health, Shutdown};
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::{
    Clock,
    monitor::{Monitor, publish},
};

/// How often to look.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Under this name the health tells of lag.
const LAG: &str = "lag";
/// Reasons that the health names; of more only their number.
const REASONS_MAX: usize = 4;

/// The task that does it.
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

pub(crate) fn spawn(mut monitor: Monitor, clock: Clock, health: Health) -> Upkeep {
    let stop = Shutdown::new();
    let stopped = stop.clone();
    let task = tokio::spawn(async move {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopped.wait() => return,
                _ = ticks.tick() => one_round(&mut monitor, &clock, &health).await,
            }
        }
    });
    Upkeep { stop, task }
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
