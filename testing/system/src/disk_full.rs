//! A disk that fills up under the server. Until there is room again ingest is refused with 503 and questions are answered; then
//! it goes on by itself. Nothing that was acked is lost, also not by a kill -9 while the disk is full.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde_json::json;

use crate::{
    Failure,
    http::Http,
    ledger::at_rest,
    say,
    server::{Server, ServerArgs, Site},
};

/// Events of a batch.
const BATCH: u64 = 500;
/// Most bytes that the disk of this proof may have: more would take too long to fill.
const DISK_BYTES_MAX: u64 = 512 << 20;
/// What is freed later on, bytes.
const BALLAST_BYTES: usize = 24 << 20;
/// Refusals in a row after which the disk counts as full.
const REFUSALS: u32 = 20;
/// Ingest goes on within this after there is room.
const GOES_ON_WITHIN: Duration = Duration::from_secs(20);
const APPLIED_WITHIN: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

/// `disk-full`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// A file system of its own, of at most 512 MiB, which is filled; scripts/test_disk_full.sh mounts one.
    #[arg(long, value_name = "DIR")]
    disk: PathBuf,
    /// The server.
    #[command(flatten)]
    server: ServerArgs,
}

/// Leads the proof.
///
/// # Errors
/// The server does not keep what it promises, or the disk is none that can be filled.
pub(crate) async fn run(args: &Args) -> Result<(), Failure> {
    let disk = rustix::fs::statvfs(&args.disk)?;
    let size = disk.f_blocks * disk.f_frsize;
    if size > DISK_BYTES_MAX || size < 2 * BALLAST_BYTES as u64 {
        return Err(format!("{} has {size} bytes, which is no disk to fill", args.disk.display()).into());
    }
    let mut site = Site::new(&args.server)?;
    site.put_data(args.disk.join("data"));
    // Small files, so that a small disk holds several.
    site.set("TRUENOW_EVENT_LOG_SEGMENT_BYTES", "4194304");
    let mut filling = Filling { site, http: Http::new(), acked: 0, refused: 0, restarts: 0 };
    let led = filling.lead(&args.disk).await;
    led.inspect_err(|_| say(&format!("kept {}", filling.site.keep().display())))
}

struct Filling {
    site: Site,
    http: Http,
    /// Batches that were acked: each before the next is sent.
    acked: u64,
    refused: u32,
    restarts: u32,
}

impl Filling {
    async fn lead(&mut self, disk: &Path) -> Result<(), Failure> {
        let ballast = disk.join("ballast");
        fs::write(&ballast, vec![1; BALLAST_BYTES])?;
        let mut server = self.site.start()?;
        server.healthy(&self.http).await?;
        self.fill().await?;
        let full_at = self.acked;
        say(&format!("full      after {full_at} batches of {BATCH} events; refused with 503"));
        self.all_there("on the full disk").await?;
        server = self.kill(server).await?;
        self.all_there("after kill -9 on the full disk").await?;
        fs::remove_file(&ballast)?;
        let began = Instant::now();
        while !self.send().await? {
            if began.elapsed() > GOES_ON_WITHIN {
                return Err(format!("refused {GOES_ON_WITHIN:?} after there was room").into());
            }
            tokio::time::sleep(PAUSE).await;
        }
        say(&format!("room      {:.1?} later ingest goes on by itself", began.elapsed()));
        self.fill().await?;
        if self.acked < full_at + 10 {
            return Err("the room that was made is not used".into());
        }
        self.all_there("on the disk that is full again").await?;
        server = self.kill(server).await?;
        self.all_there("after another kill -9").await?;
        server.stop().await?;
        say(&format!(
            "acked     {} events, all there, each once; {} requests refused, {} times killed",
            self.acked * BATCH,
            self.refused,
            self.restarts
        ));
        say("1 passed, 0 failed");
        Ok(())
    }

    async fn kill(&mut self, server: Server) -> Result<Server, Failure> {
        server.kill()?;
        self.restarts += 1;
        let mut server = self.site.start()?;
        server.healthy(&self.http).await?;
        Ok(server)
    }

    /// Sends until nothing is taken any more.
    async fn fill(&mut self) -> Result<(), Failure> {
        let mut in_a_row = 0;
        while in_a_row < REFUSALS {
            if self.send().await? {
                in_a_row = 0;
            } else {
                in_a_row += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    /// Sends the next batch, the same until it is acked; whether it was.
    async fn send(&mut self) -> Result<bool, Failure> {
        let lines = (self.acked * BATCH..(self.acked + 1) * BATCH).map(|number| {
            let event = json!({
                "namespace": "disk", "table": "full", "event_time": 1_700_000_000_000_000_u64 + number,
                "event_id": format!("event-{number}"), "dimensions": {"kind": format!("kind-{}", number % 7)},
                "metrics": {"n": number},
            });
            format!("{event}\n")
        });
        let body = Bytes::from(lines.collect::<String>());
        let url = format!("{}/v1/events", self.site.url(8088));
        let headers = [("content-type", "application/x-ndjson")];
        let reply = self.http.exchange(Method::POST, &url, &headers, body).await;
        let reply = reply.ok_or("the server does not answer on a full disk")?;
        match reply.status {
            StatusCode::OK if reply.json()["accepted"] == json!(BATCH) => {
                self.acked += 1;
                Ok(true)
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                self.refused += 1;
                Ok(false)
            }
            _ => Err(reply.text().into()),
        }
    }

    /// Every acked event counts once; of the batch under way each event may, once.
    async fn all_there(&self, when: &str) -> Result<(), Failure> {
        let events = self.acked * BATCH;
        let question = json!({
            "namespace": "disk", "table": "full", "start_time": 0, "end_time": 1_700_000_000_000_000_u64 + events,
            "aggregates": [{"fn": "count"}, {"fn": "sum", "metric": "n"}],
        });
        let began = Instant::now();
        let reply = loop {
            // What is acked last may not be applied yet; who wants to be sure presents the token.
            let reply = self.http.post(&format!("{}/v1/query", self.site.url(8081)), &question).await;
            let reply = reply.ok_or_else(|| format!("no answer {when}"))?;
            let row = &reply.json()["rows"][0];
            let right = row["count"] == events && row["sum_n"].as_f64() == Some((events * (events - 1) / 2) as f64);
            if right || began.elapsed() > APPLIED_WITHIN {
                break if right { None } else { Some(reply) };
            }
            tokio::time::sleep(PAUSE).await;
        };
        if let Some(reply) = reply {
            return Err(format!("{when}: {events} events were acked, the answer is {}", reply.text()).into());
        }
        let (ledger, _) = at_rest(&self.site, &self.http, "disk/full", APPLIED_WITHIN).await?;
        if !(events..=events + BATCH).contains(&ledger.live) {
            return Err(format!("{when}: {events} events were acked, the ledger says {ledger:?}").into());
        }
        Ok(())
    }
}
