//! How a service is: starting, healthy, degraded or draining; over HTTP and over gRPC.
//!
//! 1. Draining is the end: no other state follows.
//! 2. A reason to be degraded has a name, and where several parts may give the same one a number, so that who gave it can take
//!    it back without touching the others. What the parts say under one name is one line.
//! 3. Degraded still serves (200); starting and draining do not (503).

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use axum::{
    Json, Router,
    response::{IntoResponse, Response},
    routing::get,
};
use http::StatusCode;
use serde::Serialize;
use tokio::sync::watch;
use tonic_health::{ServingStatus, server::HealthReporter};

/// A service's health, as its parts set it and as the world sees it.
#[derive(Debug, Clone)]
pub struct Health {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    service: &'static str,
    version: &'static str,
    started: Instant,
    state: watch::Sender<State>,
    ends: watch::Sender<bool>,
}

#[derive(Debug, Clone, PartialEq)]
struct State {
    phase: Phase,
    /// By name and part.
    reasons: BTreeMap<&'static str, BTreeMap<u32, String>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Starting { progress: f64 },
    Serving,
    Draining,
}

/// What `GET /health` says.
#[derive(Debug, Clone, PartialEq)]
pub enum HealthStatus {
    /// Not ready yet.
    Starting {
        /// How far it is, 0 to 1.
        progress: f64,
    },
    /// All is well.
    Healthy,
    /// It serves, but something is wrong.
    Degraded {
        /// What is wrong.
        reasons: Vec<String>,
    },
    /// It finishes what is under way and takes nothing new.
    Draining,
}

impl HealthStatus {
    /// Its name in the contract.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Starting { .. } => "starting",
            Self::Healthy => "healthy",
            Self::Degraded { .. } => "degraded",
            Self::Draining => "draining",
        }
    }

    /// Whether the service answers requests.
    #[must_use]
    pub const fn is_serving(&self) -> bool {
        matches!(self, Self::Healthy | Self::Degraded { .. })
    }
}

impl Health {
    /// The health of a service that begins to start now. `version`: the caller's `CARGO_PKG_VERSION`.
    #[must_use]
    pub fn starting(service: &'static str, version: &'static str) -> Self {
        let state = State { phase: Phase::Starting { progress: 0.0 }, reasons: BTreeMap::new() };
        Self {
            inner: Arc::new(Inner {
                service,
                version,
                started: Instant::now(),
                state: watch::Sender::new(state),
                ends: watch::Sender::new(false),
            }),
        }
    }

    /// The service's name.
    #[must_use]
    pub fn service(&self) -> &'static str {
        self.inner.service
    }

    /// Says how far the start is, 0 to 1; no effect once it is over.
    pub fn set_progress(&self, progress: f64) {
        let progress = if progress.is_finite() { progress.clamp(0.0, 1.0) } else { 0.0 };
        self.change(|state| {
            if let Phase::Starting { progress: known } = &mut state.phase {
                *known = progress;
            }
        });
    }

    /// The start is over.
    pub fn set_serving(&self) {
        self.change(|state| {
            if state.phase != Phase::Draining {
                state.phase = Phase::Serving;
            }
        });
    }

    /// Nothing new is taken any more.
    pub fn set_draining(&self) {
        self.change(|state| state.phase = Phase::Draining);
        self.inner.ends.send_replace(true);
    }

    /// Turns true when nothing new is taken any more: streams that have no end of their own are to end then, else they would hold
    /// up the shutdown.
    #[must_use]
    pub fn ends(&self) -> watch::Receiver<bool> {
        self.inner.ends.subscribe()
    }

    /// Something is wrong; `reason` replaces what was said before under this `name`.
    pub fn degrade(&self, name: &'static str, reason: impl Into<String>) {
        self.degrade_part(name, 0, reason);
    }

    /// What was wrong under this `name` is right again.
    pub fn recover(&self, name: &'static str) {
        self.recover_part(name, 0);
    }

    /// As [`Health::degrade`], for one of several parts that may say something under the same `name`.
    pub fn degrade_part(&self, name: &'static str, part: u32, reason: impl Into<String>) {
        let reason = reason.into();
        self.change(|state| drop(state.reasons.entry(name).or_default().insert(part, reason)));
    }

    /// What was wrong with one of several parts under this `name` is right again.
    pub fn recover_part(&self, name: &'static str, part: u32) {
        self.change(|state| {
            if let Some(parts) = state.reasons.get_mut(name) {
                parts.remove(&part);
            }
            state.reasons.retain(|_, parts| !parts.is_empty());
        });
    }

    /// How it is now.
    #[must_use]
    pub fn status(&self) -> HealthStatus {
        status_of(&self.inner.state.borrow())
    }

    /// `GET /health` and `GET /live`.
    pub(crate) fn routes(&self) -> Router {
        let health = self.clone();
        Router::new()
            .route("/health", get(move || std::future::ready(health.page())))
            .route("/live", get(|| std::future::ready(Json(serde_json::json!({"status": "live"})))))
    }

    /// Follows the state in the gRPC health service, for the whole server and for each of `names`; never returns.
    pub(crate) async fn report_to(self, reporter: HealthReporter, names: Vec<String>) {
        let mut states = self.inner.state.subscribe();
        loop {
            let serving = status_of(&states.borrow_and_update()).is_serving();
            let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
            for name in std::iter::once("").chain(names.iter().map(String::as_str)) {
                reporter.set_service_status(name, status).await;
            }
            if states.changed().await.is_err() {
                return;
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        self.inner.state.send_if_modified(|state| {
            let before = state.clone();
            change(state);
            *state != before
        });
    }

    fn page(&self) -> Response {
        let status = self.status();
        let code = if status.is_serving() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let page = Page {
            status: status.name(),
            service: self.inner.service,
            uptime: self.inner.started.elapsed().as_secs(),
            version: self.inner.version,
            progress: match &status {
                HealthStatus::Starting { progress } => Some(*progress),
                _ => None,
            },
            reasons: match status {
                HealthStatus::Degraded { reasons } => Some(reasons),
                _ => None,
            },
        };
        (code, Json(page)).into_response()
    }
}

#[derive(Serialize)]
struct Page {
    status: &'static str,
    service: &'static str,
    uptime: u64,
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasons: Option<Vec<String>>,
}

fn status_of(state: &State) -> HealthStatus {
    match state.phase {
        Phase::Starting { progress } => HealthStatus::Starting { progress },
        Phase::Draining => HealthStatus::Draining,
        Phase::Serving if state.reasons.is_empty() => HealthStatus::Healthy,
        Phase::Serving => {
            let line =
                |parts: &BTreeMap<u32, String>| parts.values().map(String::as_str).collect::<Vec<_>>().join("; ");
            HealthStatus::Degraded { reasons: state.reasons.values().map(line).collect() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: reasons come and go by name, and nothing follows draining.
    #[test]
    fn states_follow_the_rules() {
        let health = Health::starting("gateway", "1.2.3");
        health.set_progress(f64::NAN);
        health.set_progress(0.5);
        assert_eq!(health.status(), HealthStatus::Starting { progress: 0.5 });
        health.degrade("disk", "full");
        assert!(!health.status().is_serving(), "a reason does not end the start");
        health.set_serving();
        health.degrade("lag", "12 s behind");
        health.degrade("lag", "13 s behind");
        let reasons = vec!["full".to_owned(), "13 s behind".to_owned()];
        assert_eq!(health.status(), HealthStatus::Degraded { reasons });
        health.recover("disk");
        health.recover("lag");
        health.degrade_part("partition", 3, "3 waits");
        health.degrade_part("partition", 1, "1 waits");
        health.recover_part("partition", 2);
        let reasons = vec!["1 waits; 3 waits".to_owned()];
        assert_eq!(health.status(), HealthStatus::Degraded { reasons }, "one line of all parts");
        health.recover_part("partition", 1);
        assert_eq!(health.status(), HealthStatus::Degraded { reasons: vec!["3 waits".to_owned()] });
        health.recover_part("partition", 3);
        assert_eq!(health.status(), HealthStatus::Healthy);
        health.set_draining();
        health.set_serving();
        health.set_progress(0.1);
        assert_eq!(health.status(), HealthStatus::Draining);
    }
}
