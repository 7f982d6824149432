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

/// What it means that this process's number is not its own any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Number {
    /// It was given by configuration: another process has taken its place.
    Given,
    /// It was drawn, so that nobody else has it: the process was forgotten, and registers anew.
    Drawn,
}

/// The task that says so.
pub(crate) struct Reporter {
    membership: Arc<dyn Membership>,
    life: watch::Receiver<Option<Life>>,
    /// Ends when another process has taken this one's place.
    task: JoinHandle<ApiError>,
}

impl Reporter {
    /// Registers a process, and then says that it lives. `drawn`: a random number, for the names of its registrations.
    pub(crate) fn start(membership: Arc<dyn Membership>, member: Member, number: Number, drawn: u64) -> Self {
        let (registered, life) = watch::channel(None);
        let task = tokio::spawn(report(Arc::clone(&membership), member, number, drawn, registered));
        Self { membership, life, task }
    }

    /// Waits until another process has taken this one's place, which that of one with a drawn number never is.
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

async fn report(
    membership: Arc<dyn Membership>,
    member: Member,
    number: Number,
    drawn: u64,
    registered: watch::Sender<Option<Life>>,
) -> ApiError {
    let mut registration = drawn;
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = true;
    loop {
        ticks.tick().await;
        let life = *registered.borrow();
        let said = match life {
            Some(life) => membership.heartbeat(life).await,
            None => membership.register(&member, registration).await.map(|life| {
                registered.send_replace(Some(life));
            }),
        };
        match said {
            Ok(()) => heard = true,
            Err(error) if error.code == ErrorCode::FailedPrecondition => match number {
                Number::Given => return error,
                Number::Drawn => {
                    tracing::warn!(
                        node = member.node.0,
                        "the control plane has forgotten this process; it registers anew"
                    );
                    registered.send_replace(None);
                    registration = registration.wrapping_add(1);
                    ticks.reset_immediately();
                }
            },
            // Once for each time that it is away.
            Err(error) if heard => {
                heard = false;
                tracing::warn!(%error, "the control plane does not hear that this process lives");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use proto::members::Members;
    use types::NodeId;

    use super::*;

    /// Forgets whoever registered for the first time after his first word; each word and registration in order.
    #[derive(Default)]
    struct Forgetful {
        said: Mutex<Vec<(&'static str, u64)>>,
    }

    #[async_trait]
    impl Membership for Forgetful {
        async fn register(&self, member: &Member, registration: u64) -> Result<Life, ApiError> {
            let mut said = self.said.lock().unwrap();
            let epoch = 1 + said.iter().filter(|(what, _)| *what == "registers").count() as u64;
            assert_eq!(registration, 40 + epoch, "each life has its own");
            said.push(("registers", epoch));
            Ok(Life { node: member.node, epoch })
        }

        async fn heartbeat(&self, life: Life) -> Result<(), ApiError> {
            let mut said = self.said.lock().unwrap();
            said.push(("lives", life.epoch));
            let words = said.iter().filter(|(what, _)| *what == "lives").count();
            let forgotten = life.epoch == 1 && words > 1;
            let error = || ApiError::new(ErrorCode::FailedPrecondition, "another process registered as this node");
            if forgotten { Err(error()) } else { Ok(()) }
        }

        async fn leave(&self, _: Life) -> Result<(), ApiError> {
            Ok(())
        }

        fn members(&self) -> watch::Receiver<Members> {
            watch::Sender::default().subscribe()
        }
    }

    fn report_to(forgetful: &Arc<Forgetful>, number: Number) -> Reporter {
        let member = Member { node: NodeId(7), zone: None, services: [].into() };
        Reporter::start(Arc::clone(forgetful) as Arc<dyn Membership>, member, number, 41)
    }

    /// Goal: a process that drew its number and was forgotten registers anew and goes on.
    #[tokio::test(start_paused = true)]
    async fn who_drew_his_number_registers_anew() {
        let forgetful = Arc::new(Forgetful::default());
        let mut reporter = report_to(&forgetful, Number::Drawn);
        let ended = tokio::time::timeout(Duration::from_secs(5), reporter.replaced()).await;
        assert!(ended.is_err(), "{ended:?}");
        let said = forgetful.said.lock().unwrap().clone();
        let begin = [("registers", 1), ("lives", 1), ("lives", 1), ("registers", 2), ("lives", 2)];
        assert_eq!(said[..5], begin);
        assert!(said[5..].iter().all(|word| *word == ("lives", 2)), "{said:?}");
    }

    /// Goal: one whose number is given ends, for another has taken its place.
    #[tokio::test(start_paused = true)]
    async fn whose_number_is_given_ends() {
        let mut reporter = report_to(&Arc::default(), Number::Given);
        assert_eq!(reporter.replaced().await.code, ErrorCode::FailedPrecondition);
    }
}
