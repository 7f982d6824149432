//! What the control plane does by itself: taking in what other processes changed, announcing what could not be announced, and
//! saying that this node lives.

use std::time::Duration;

use service::{Health, Shutdown};
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::ControlPlane;

/// How often changes of others and who lives are taken in, and announcements that failed are tried again.
const INTERVAL: Duration = Duration::from_millis(500);
/// After how many rounds this node says that it lives, which is a commit to disk, and looks for what others left half-done.
const ROUNDS_PER_HEARTBEAT: u32 = 20;
/// Under this name the health tells of tables that wait to be announced.
const ANNOUNCEMENTS: &str = "announcements";
/// Under this name the health tells of metadata that cannot be read or written.
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

pub(crate) fn spawn(plane: ControlPlane, health: Health) -> Upkeep {
    let stop = Shutdown::new();
    let stopped = stop.clone();
    let task = tokio::spawn(async move {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for round in 0_u32.. {
            tokio::select! {
                () = stopped.wait() => return,
                _ = ticks.tick() => {}
            }
            one_round(&plane, &health, round).await;
        }
    });
    Upkeep { stop, task }
}

async fn one_round(plane: &ControlPlane, health: &Health, round: u32) {
    if plane.repair().await {
        health.recover(ANNOUNCEMENTS);
    } else {
        health.degrade(ANNOUNCEMENTS, "the log does not take changes of tables, they wait");
    }
    let mut reached = plane.follow().await;
    if round.is_multiple_of(ROUNDS_PER_HEARTBEAT) {
        plane.expect_repair();
        reached = reached.and(plane.stay_alive().await);
    }
    match reached {
        Ok(()) => health.recover(METADATA),
        Err(error) => health.degrade(METADATA, error.to_string()),
    }
}
