//! What the control plane does by itself: announcing what could not be announced, and saying that this node lives.

use std::time::Duration;

use service::{Health, Shutdown};
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::{Clock, ControlPlane};

/// How often announcements that failed are tried again.
const REPAIR_INTERVAL: Duration = Duration::from_secs(1);
/// After how many repairs this node says that it lives; each is a commit to disk.
const REPAIRS_PER_HEARTBEAT: u32 = 10;
/// Under this name the health tells of tables that wait to be announced.
const ANNOUNCEMENTS: &str = "announcements";
/// Under this name the health tells of metadata that cannot be written.
const METADATA: &str = "metadata";

/// The task that does it.
pub(crate) struct Upkeep {
    stop: Shutdown,
    task: JoinHandle<()>,
}

impl Upkeep {
    /// Waits for the round under way.
    pub(crate) async fn stop(self) {
        self.stop.trigger();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "upkeep of the control plane ended early");
        }
    }
}

pub(crate) fn spawn(plane: ControlPlane, clock: Clock, health: Health) -> Upkeep {
    let stop = Shutdown::new();
    let stopped = stop.clone();
    let task = tokio::spawn(async move {
        let mut ticks = interval(REPAIR_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for round in 0_u32.. {
            tokio::select! {
                () = stopped.wait() => return,
                _ = ticks.tick() => {}
            }
            one_round(&plane, &clock, &health, round).await;
        }
    });
    Upkeep { stop, task }
}

async fn one_round(plane: &ControlPlane, clock: &Clock, health: &Health, round: u32) {
    if plane.repair().await {
        health.recover(ANNOUNCEMENTS);
    } else {
        health.degrade(ANNOUNCEMENTS, "the log does not take changes of tables, they wait");
    }
    if round.is_multiple_of(REPAIRS_PER_HEARTBEAT) {
        match plane.heartbeat(clock()).await {
            Ok(()) => health.recover(METADATA),
            Err(error) => health.degrade(METADATA, error.to_string()),
        }
    }
}
