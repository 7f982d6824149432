//! Clients that write by every way in and ask questions meanwhile, whatever is done to the server or the cluster, and an oracle
//! that knows what every answer must be.
//!
//! 1. Writers send until they have an ack, the same identity each time, however long it takes; they also send again what was
//!    acked, and send one batch on two connections at once, to two gateways where there are several.
//! 2. While all goes on, every complete answer counts at least what its tokens, or the acks before a single server's last start,
//!    cover, and nothing that was never sent.
//! 3. In a check all writers pause; then every answer and every ledger must be exactly the oracle's.

mod asking;
mod checks;
mod event;
mod oracle;
mod question;
mod requests;
mod scene;
mod writers;

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use hyper::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;

pub(crate) use self::{
    checks::Totals,
    event::NAMESPACE,
    scene::{Addresses, Conduct, Scene},
};
use self::{
    event::{Lane, Table},
    scene::Counts,
};
use crate::{Failure, http::Http, random::Random};

/// Tasks that ask questions.
const ASKERS: usize = 2;
/// Clients have this long to settle what they have under way.
const SETTLED_WITHIN: Duration = Duration::from_secs(90);

/// All clients at work.
#[derive(Debug)]
pub(crate) struct Traffic {
    scene: Arc<Scene>,
    http: Http,
    random: Random,
    tasks: JoinSet<()>,
    /// The first number of each lane that no check has looked at.
    checked: [u64; Lane::ALL.len()],
}

impl Traffic {
    /// Creates the tables at a control plane, and sets all clients to work.
    ///
    /// # Errors
    /// A table cannot be created.
    pub(crate) async fn start(
        scene: Arc<Scene>,
        http: Http,
        mut random: Random,
        control_plane: &str,
        dedup_window_us: u64,
    ) -> Result<Self, Failure> {
        create_tables(&http, control_plane, dedup_window_us).await?;
        let mut tasks = JoinSet::new();
        for lane in Lane::ALL {
            let (scene, random) = (Arc::clone(&scene), random.fork());
            match lane {
                Lane::Columns | Lane::Rows => tasks.spawn(writers::run(scene, lane, random)),
                Lane::Lines | Lane::Idempotent | Lane::Unary => tasks.spawn(requests::run(scene, lane, random)),
            };
        }
        for _ in 0..ASKERS {
            tasks.spawn(asking::run(Arc::clone(&scene), random.fork()));
        }
        let checked = checks::unsent(&scene);
        Ok(Self { scene, http, random, tasks, checked })
    }

    /// What all clients share.
    pub(crate) fn scene(&self) -> &Scene {
        &self.scene
    }

    /// Lets everything settle, and checks it exactly: of tables that clients created the newest. Nobody sends until `also` has
    /// ended.
    ///
    /// # Errors
    /// Something is, or was meanwhile, not as promised, or does not settle; or what `also` fails with.
    pub(crate) async fn check(&mut self, also: impl Future<Output = Result<(), Failure>>) -> Result<Totals, Failure> {
        self.check_tables(false, also).await
    }

    async fn check_tables(
        &mut self,
        every_table: bool,
        also: impl Future<Output = Result<(), Failure>>,
    ) -> Result<Totals, Failure> {
        // Relaxed: clients look at it before each batch.
        self.scene.hush.store(true, Relaxed);
        let began = Instant::now();
        let quiet = tokio::time::timeout(SETTLED_WITHIN, self.scene.gate.write()).await;
        let quiet = quiet.map_err(|_elapsed| format!("clients had no ack within {:?}", began.elapsed()))?;
        self.scene.hush.store(false, Relaxed);
        self.nothing_wrong()?;
        let totals = checks::all(&self.scene, &self.http, self.checked, every_table, &mut self.random).await?;
        self.checked = checks::unsent(&self.scene);
        also.await?;
        drop(quiet);
        Ok(totals)
    }

    /// Ends all clients, and checks everything.
    ///
    /// # Errors
    /// As [`Self::check`], or a client did not end well.
    pub(crate) async fn end(&mut self) -> Result<Totals, Failure> {
        // Relaxed: tasks look at it now and then.
        self.scene.over.store(true, Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        self.check_tables(true, std::future::ready(Ok(()))).await
    }

    /// Fails with the first thing that was not as promised.
    ///
    /// # Errors
    /// What that is.
    pub(crate) fn nothing_wrong(&self) -> Result<(), Failure> {
        self.scene.violations().into_iter().next().map_or(Ok(()), |first| Err(first.into()))
    }

    /// What happened so far.
    pub(crate) fn tally(&self) -> Tally {
        // Relaxed: only counts.
        let of = |which: fn(&Counts) -> &std::sync::atomic::AtomicU64| which(&self.scene.counts).load(Relaxed);
        Tally {
            acked: self.scene.oracle().certain().len(),
            retried: of(|counts| &counts.retried),
            events_refused: of(|counts| &counts.events_refused),
            given_up: of(|counts| &counts.given_up),
            repeated: of(|counts| &counts.repeated),
            twins: of(|counts| &counts.twins),
            answered: of(|counts| &counts.answered),
            with_tokens: of(|counts| &counts.with_tokens),
            partial: of(|counts| &counts.partial),
            refused: of(|counts| &counts.refused),
            early: of(|counts| &counts.early),
            asked_again: of(|counts| &counts.asked_again),
        }
    }
}

/// [`Counts`] at a moment, and events acked until then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) acked: u64,
    pub(crate) retried: u64,
    pub(crate) events_refused: u64,
    pub(crate) given_up: u64,
    pub(crate) repeated: u64,
    pub(crate) twins: u64,
    pub(crate) answered: u64,
    pub(crate) with_tokens: u64,
    pub(crate) partial: u64,
    pub(crate) refused: u64,
    pub(crate) early: u64,
    pub(crate) asked_again: u64,
}

async fn create_tables(http: &Http, control_plane: &str, dedup_window_us: u64) -> Result<(), Failure> {
    for (table, key) in [(Table::Keyed, Some("user")), (Table::Plain, None)] {
        let body = json!({
            "namespace": NAMESPACE, "table": table.name(), "partition_by": key,
            "dimensions": ["lane", "region", "user"], "metrics": ["n", "size"], "dedup_window_us": dedup_window_us,
        });
        let reply = http.post(&format!("{control_plane}/v1/tables"), &body).await;
        let reply = reply.ok_or("no answer to the creation of a table")?;
        if reply.status != StatusCode::CREATED {
            return Err(reply.text().into());
        }
    }
    Ok(())
}
