//! Says to the control plane that this process lives, and what it serves where.

use std::{sync::Arc, time::Duration};

use proto::members::{Life, Member, Membership};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};
use types::{ApiError, ErrorCode};

/// How often; who is silent for three times as long counts as lost.
const INTERVAL: Duration = Duration::from_secs(1);

/// The task that says so.
pub(crate) struct Reporter {
    membership: Arc<dyn Membership>,
    life: watch::Receiver<Option<Life>>,
    /// Ends when another process has taken this one's place.
    task: JoinHandle<ApiError>,
}

impl Reporter {
    /// Registers a process, and then says that it lives.
    pub(crate) fn start(membership: Arc<dyn Membership>, member: Member) -> Self {
        let (registered, life) = watch::channel(None);
        let task = tokio::spawn(report(Arc::clone(&membership), member, registered));
        Self { membership, life, task }
    }

    /// Waits until another process has taken this one's place.
    pub(crate) async fn replaced(&mut self) -> ApiError {
        (&mut self.task).await.expect("reporting does not panic")
    }

    /// Says that this process leaves, so that nobody asks it any more; where that cannot be said, others notice.
    pub(crate) async fn leave(self) {
        self.task.abort();
        let life = *self.life.borrow();
        if let Some(life) = life
            && let Err(error) = self.membership.leave(life).await
        {
            tracing::debug!(%error, "the control plane does not hear that this process leaves");
        }
    }

    /// Says nothing any more, as a process that was killed.
    #[cfg(test)]
    pub(crate) fn fall_silent(self) {
        self.task.abort();
    }
}

async fn report(membership: Arc<dyn Membership>, member: Member, registered: watch::Sender<Option<Life>>) -> ApiError {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = true;
    loop {
        ticks.tick().await;
        let life = *registered.borrow();
        let said = match life {
            Some(life) => membership.heartbeat(life).await,
            None => membership.register(&member).await.map(|life| {
                registered.send_replace(Some(life));
            }),
        };
        match said {
            Ok(()) => heard = true,
            Err(error) if error.code == ErrorCode::FailedPrecondition => return error,
            // Once for each time that it is away.
            Err(error) if heard => {
                heard = false;
                tracing::warn!(%error, "the control plane does not hear that this process lives");
            }
            Err(_) => {}
        }
    }
}
