//! What every scenario plays on: the processes, their engines and the clients at work.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hyper::StatusCode;
use serde_json::{Value, json};

use super::{
    engines::Engines,
    members::{Kind, Members},
    view,
};
use crate::{
    Failure,
    http::{Http, Reply},
    random::Random,
    traffic::{NAMESPACE, Tally, Totals, Traffic},
};

const PAUSE: Duration = Duration::from_millis(50);
/// What was away serves again within this.
const BACK_WITHIN: Duration = Duration::from_secs(60);

/// The cluster under proof.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) members: Members,
    pub(super) engines: Engines,
    pub(super) traffic: Traffic,
    pub(super) http: Http,
    pub(super) random: Random,
    /// Probes sent, each an event of its own.
    pub(super) probes: u64,
}

/// How things stood at a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    pub(super) tally: Tally,
    map_version: u64,
}

impl Stage {
    /// Brings everything back, and checks everything exactly.
    ///
    /// # Errors
    /// Something is, or was meanwhile, not as promised.
    pub(super) async fn settle(&mut self) -> Result<Totals, Failure> {
        self.members.start_all(&self.http).await?;
        self.until_whole(&[]).await?;
        let (members, http) = (&self.members, &self.http);
        let verified = async {
            view::same(members, http).await?;
            members.verify().await
        };
        let totals = self.traffic.check(verified).await?;
        self.members.none_panicked()?;
        Ok(totals)
    }

    /// Waits until each partition lies on two nodes, none of them of `without`, and these have all of it; how long each took.
    ///
    /// # Errors
    /// It does not come to that.
    pub(super) async fn until_whole(&self, without: &[u64]) -> Result<(Duration, Duration), Failure> {
        let began = Instant::now();
        view::placed(&self.members, &self.http, without).await?;
        let placed = began.elapsed();
        view::restored(&self.members, &self.http).await?;
        Ok((placed, began.elapsed()))
    }

    /// The node that holds the most partitions, and how many.
    ///
    /// # Errors
    /// There is no map.
    pub(super) async fn busiest(&self) -> Result<(u64, usize), Failure> {
        let mut held = BTreeMap::<u64, usize>::new();
        for node in view::map(&self.members, &self.http).await?.into_values().flatten() {
            *held.entry(node).or_default() += 1;
        }
        held.into_iter().max_by_key(|(_, partitions)| *partitions).ok_or_else(|| "nothing is placed".into())
    }

    /// Lets the clients go on for a while; fails as soon as an answer is wrong.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) async fn go_on(&self, time: Duration) -> Result<(), Failure> {
        let began = Instant::now();
        while began.elapsed() < time {
            tokio::time::sleep(PAUSE).await;
            self.traffic.nothing_wrong()?;
        }
        Ok(())
    }

    /// How things stand before something is done to the cluster.
    ///
    /// # Errors
    /// There is no map.
    pub(super) async fn before(&self) -> Result<Before, Failure> {
        Ok(Before { tally: self.traffic.tally(), map_version: view::map_version(&self.members, &self.http).await? })
    }

    /// Fails where a question was refused since `before`, or none was answered.
    ///
    /// # Errors
    /// How many were, and why the last was.
    pub(super) fn none_refused(&self, before: &Before) -> Result<(), Failure> {
        let now = self.traffic.tally();
        if now.refused > before.tally.refused {
            let why = self.traffic.scene().last_refusal().unwrap_or_default();
            return Err(
                format!("{} questions were refused, the last: {why}", now.refused - before.tally.refused).into()
            );
        }
        if now.answered == before.tally.answered {
            return Err("no question was answered meanwhile".into());
        }
        Ok(())
    }

    /// Fails where events were refused since `before`, or none were acked.
    ///
    /// # Errors
    /// How many requests were, and why the last was.
    pub(super) fn all_taken(&self, before: &Before) -> Result<(), Failure> {
        let now = self.traffic.tally();
        let refused = now.events_refused - before.tally.events_refused;
        if refused > 0 {
            let why = self.traffic.scene().last_events_refusal().unwrap_or_default();
            return Err(format!("{refused} requests with events were refused, the last: {why}").into());
        }
        if now.acked == before.tally.acked {
            return Err("no event was acked meanwhile".into());
        }
        Ok(())
    }

    /// Fails where a partition was moved since `before`.
    ///
    /// # Errors
    /// The map is a newer one.
    pub(super) async fn none_moved(&self, before: &Before) -> Result<(), Failure> {
        let now = view::map_version(&self.members, &self.http).await?;
        if now != before.map_version {
            return Err(format!("the map was changed from version {} to {now}", before.map_version).into());
        }
        Ok(())
    }

    /// Sends an event of its own, not one of the clients', to a gateway.
    pub(super) async fn probe(&mut self) -> Option<StatusCode> {
        self.probes += 1;
        let gateway = *self.random.choose(&self.members.of(|kind| kind == Kind::Gateway));
        let event = json!({"namespace": NAMESPACE, "table": "probes", "event_id": self.probes.to_string(),
            "event_time": 1_000_000 + self.probes, "dimensions": {"region": "here"}});
        let url = format!("{}/v1/events", self.members.all[gateway].http());
        Some(self.http.post(&url, &event).await?.status)
    }

    /// Sends probes until one is acked; how long that took.
    ///
    /// # Errors
    /// None is.
    pub(super) async fn until_acked(&mut self) -> Result<Duration, Failure> {
        let began = Instant::now();
        loop {
            let status = self.probe().await;
            if status == Some(StatusCode::OK) {
                return Ok(began.elapsed());
            }
            if began.elapsed() > BACK_WITHIN {
                return Err(format!("events are not taken after {BACK_WITHIN:?}: {status:?}").into());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Creates a table that nobody writes to.
    pub(super) async fn create(&self, table: &str) -> Option<StatusCode> {
        let url = format!("{}/v1/tables", self.members.url(Kind::ControlPlane));
        Some(self.http.post(&url, &json!({"namespace": NAMESPACE, "table": table})).await?.status)
    }

    /// Creates a table as soon as that goes; how long it took.
    ///
    /// # Errors
    /// It does not go.
    pub(super) async fn until_created(&self, table: &str) -> Result<Duration, Failure> {
        let began = Instant::now();
        loop {
            let status = self.create(table).await;
            if status.is_some_and(|status| status.is_success() || status == StatusCode::CONFLICT) {
                return Ok(began.elapsed());
            }
            if began.elapsed() > BACK_WITHIN {
                return Err(format!("tables are not created after {BACK_WITHIN:?}: {status:?}").into());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Counts all events of a table by way of the first query API.
    pub(super) async fn count(&self, allow_partial: bool) -> Option<Reply> {
        let question: Value = json!({"namespace": NAMESPACE, "table": "keyed", "start_time": 0,
            "end_time": i64::MAX / 2, "aggregates": [{"fn": "count"}], "timeout_ms": 5_000, "allow_partial": allow_partial});
        self.http.post(&format!("{}/v1/query", self.members.url(Kind::QueryApi)), &question).await
    }
}
