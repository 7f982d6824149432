//! Calls of a database on another machine: each ends in a bounded time, and requests do not wait for one that is away.

use std::{
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use admission::{Breaker, BreakerConfig, BreakerState, Monotonic};
use metrics::{Counter, Gauge, counter, gauge};
use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::MetadataError;

/// How long a call may take, waiting for a connection included.
pub(super) const CALL_MAX: Duration = Duration::from_secs(5);

/// The way to the database.
pub(super) struct Guard {
    breaker: Mutex<Breaker>,
    /// The breaker's time is the time since then.
    began: Instant,
    state: Gauge,
    refused: Counter,
}

impl Guard {
    pub(super) fn new() -> Self {
        let guard = Self {
            breaker: Mutex::new(Breaker::new(BreakerConfig::default())),
            began: Instant::now(),
            state: gauge!("truenow_breaker_state", "to" => "postgresql"),
            refused: counter!("truenow_breaker_refused_total", "to" => "postgresql"),
        };
        guard.show(BreakerState::Closed);
        guard
    }

    /// Makes a call for somebody who waits for it, unless the database is away.
    pub(super) async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, MetadataError>>,
    ) -> Result<T, MetadataError> {
        let admitted = self.breaker().admit(self.now());
        let permit = admitted.map_err(|retry_after| {
            self.refused.increment(1);
            MetadataError::Away { retry_after }
        })?;
        let result = bounded(call).await;
        let mut breaker = self.breaker();
        match &result {
            Err(error) if is_of_the_way(error) => breaker.failed(permit, self.now()),
            _ => breaker.succeeded(permit),
        }
        self.show(breaker.state());
        result
    }

    /// Makes a call that comes at a pace of its own and keeps something alive: it is always made, and tells the others when the
    /// database is back.
    pub(super) async fn attempt<T>(
        &self,
        call: impl Future<Output = Result<T, MetadataError>>,
    ) -> Result<T, MetadataError> {
        let result = bounded(call).await;
        if !result.as_ref().is_err_and(is_of_the_way) {
            let mut breaker = self.breaker();
            breaker.recovered();
            self.show(breaker.state());
        }
        result
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().expect("nothing panics under this lock")
    }

    fn now(&self) -> Monotonic {
        Monotonic::from_elapsed(self.began.elapsed())
    }

    fn show(&self, state: BreakerState) {
        self.state.set(state.as_number());
    }
}

async fn bounded<T>(call: impl Future<Output = Result<T, MetadataError>>) -> Result<T, MetadataError> {
    tokio::time::timeout(CALL_MAX, call).await.unwrap_or(Err(MetadataError::TimedOut(CALL_MAX)))
}

/// Whether the database could not be reached or could not work, other than having answered that something cannot be.
pub(super) fn is_of_the_way(error: &MetadataError) -> bool {
    match error {
        MetadataError::TimedOut(_) => true,
        MetadataError::Database(sqlx::Error::Database(error)) => {
            // What ends a session, and the classes of SQLSTATE of connections, lack of resources, interventions (shutdown, a
            // time limit) and the system. An error of a statement alone says that the database works.
            let ended =
                error.try_downcast_ref::<PgDatabaseError>().is_some_and(|error| !is_of_statement(error.severity()));
            let code = error.code().unwrap_or_default();
            ended || ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class))
        }
        MetadataError::Database(error) => matches!(
            error,
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed
        ),
        _ => false,
    }
}

fn is_of_statement(severity: PgSeverity) -> bool {
    !matches!(severity, PgSeverity::Fatal | PgSeverity::Panic)
}
