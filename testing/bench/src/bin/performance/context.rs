//! What all parts share: settings, servers, the load generator, and where raw output goes.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::PathBuf,
    process::Stdio,
};

use bench::{Failure, Server, ServerArgs};
use serde_json::Value;

use crate::Cli;

/// Settings of a run and of the part that runs.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) quick: bool,
    pub(crate) server: ServerArgs,
    pub(crate) data: Option<PathBuf>,
    pub(crate) peer: Vec<String>,
    pub(crate) peers: Option<PathBuf>,
    pub(crate) python: PathBuf,
    raw: PathBuf,
}

/// What the load generator reported, figures by their names in its JSON.
#[derive(Debug, Clone)]
pub(crate) struct Driven(pub(crate) Value);

impl Driven {
    /// A figure; 0 where it is not there.
    pub(crate) fn number(&self, name: &str) -> f64 {
        self.0[name].as_f64().unwrap_or_default()
    }

    /// Events acked per second.
    pub(crate) fn rate(&self) -> f64 {
        self.number("events_per_s")
    }

    /// A quantile of what is given in µs, in ms.
    pub(crate) fn ms(&self, of: &str, quantile: &str) -> f64 {
        self.0[of][quantile].as_f64().unwrap_or(f64::NAN) / 1e3
    }

    /// CPU time of the generator per event, ns.
    pub(crate) fn client_ns(&self) -> f64 {
        self.number("client_cpu_s") * 1e9 / self.number("events").max(1.0)
    }
}

impl Context {
    /// The context of a part.
    ///
    /// # Errors
    /// The file of its raw output cannot be made.
    pub(crate) fn new(cli: &Cli, part: &str) -> Result<Self, Failure> {
        let raw = cli.out.join("raw").join(format!("{part}.jsonl"));
        File::create(&raw)?;
        Ok(Self {
            quick: cli.quick,
            server: cli.server.clone(),
            data: cli.data.clone(),
            peer: cli.peer.clone(),
            peers: cli.peers.clone(),
            python: cli.python.clone(),
            raw,
        })
    }

    /// `full`, or a fifth of it, at least 2, in a quick run.
    pub(crate) fn seconds(&self, full: u64) -> u64 {
        if self.quick { (full / 5).max(2) } else { full }
    }

    /// `full`, or a fifth of it in a quick run.
    pub(crate) fn rows(&self, full: u64) -> u64 {
        if self.quick { full / 5 } else { full }
    }

    /// A healthy server, with these settings besides those that a benchmark has.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) async fn start(&self, settings: &[(&str, &str)]) -> Result<Server, Failure> {
        let mut args = self.server.clone();
        args.add(settings);
        let mut server = Server::start(&args)?;
        server.healthy().await?;
        Ok(server)
    }

    /// Runs the load generator against a server.
    ///
    /// # Errors
    /// It fails; what it said is in the error.
    pub(crate) async fn drive(&self, server: &Server, options: &str) -> Result<Driven, Failure> {
        let mut command = server.args().command(server.args().program());
        command
            .args(["bench", "--json", "--port-offset", &server.port_offset().to_string()])
            .args(options.split_whitespace())
            .current_dir(server.home())
            .stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("bench {options}: {}: {}", output.status, said.trim()).into());
        }
        let report: Value = serde_json::from_slice(&output.stdout)?;
        self.keep(&report)?;
        Ok(Driven(report))
    }

    /// Starts a server, drives it and ends it.
    ///
    /// # Errors
    /// As [`Context::start`] and [`Context::drive`].
    pub(crate) async fn drive_anew(&self, settings: &[(&str, &str)], options: &str) -> Result<Driven, Failure> {
        let server = self.start(settings).await?;
        let driven = self.drive(&server, options).await?;
        server.stop().await?;
        Ok(driven)
    }

    /// Keeps raw output, a line of JSON each.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn keep(&self, value: &Value) -> Result<(), Failure> {
        let mut file = OpenOptions::new().append(true).open(&self.raw)?;
        Ok(writeln!(file, "{value}")?)
    }
}
