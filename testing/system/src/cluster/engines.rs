//! The engines below a cluster: Kafka, PostgreSQL and Redis of its own, started and stopped by the scripts that people use.

use std::{
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{Pid, Signal, kill_process};

use super::links::Links;
use crate::Failure;

/// Processes that can reach the engines by ways of their own.
const WAYS: u8 = 12;
/// The port of the first such way to Kafka after the broker's.
const WAYS_FIRST: u16 = 10;
/// Where the scripts are.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts");

/// An engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Kafka,
    Postgres,
    Redis,
}

impl Engine {
    const fn script(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
        }
    }
}

/// All three. Dropped, they are stopped, and what Kafka holds is removed.
#[derive(Debug)]
pub(crate) struct Engines {
    home: PathBuf,
    /// A small file system of its own for the log, where there is one.
    log_disk: Option<PathBuf>,
    pub(crate) addresses: Addresses,
}

/// Where the engines listen, all at 127.0.0.1.
#[derive(Debug, Clone, Default)]
pub(crate) struct Addresses {
    /// `host:port` of the broker.
    kafka: String,
    /// URL with the password.
    postgres: String,
    /// URL with the password.
    redis: String,
}

impl Addresses {
    /// The same as the process of a number knows them, by way of its own address: each as a setting, and its port.
    ///
    /// # Errors
    /// There are not so many ways, or an address has no port.
    pub(crate) fn by_way_of(&self, host: Ipv4Addr, number: u8) -> Result<[(&'static str, String, u16); 3], Failure> {
        if number >= WAYS {
            return Err(format!("there are only {WAYS} ways to Kafka").into());
        }
        let broker = port(&self.kafka)? + WAYS_FIRST + u16::from(number);
        let at = |url: &str| url.replace(&Ipv4Addr::LOCALHOST.to_string(), &host.to_string());
        Ok([
            ("TRUENOW_EVENT_LOG_KAFKA_BROKERS", format!("{host}:{broker}"), broker),
            ("TRUENOW_METADATA_URL", at(&self.postgres), port(&self.postgres)?),
            ("TRUENOW_QUERY_API_CACHE_URL", at(&self.redis), port(&self.redis)?),
        ])
    }
}

/// The port of `HOST:PORT`, or of a URL.
fn port(address: &str) -> Result<u16, Failure> {
    let last = address.rsplit(':').next().unwrap_or_default();
    Ok(last.split('/').next().unwrap_or_default().parse()?)
}

impl Engines {
    /// Starts all three with their files below `home`, which other users may enter: PostgreSQL runs as one of them.
    ///
    /// # Errors
    /// One does not start.
    pub(crate) fn start(home: PathBuf, log_disk: Option<PathBuf>) -> Result<Self, Failure> {
        fs::create_dir_all(&home)?;
        let mut engines = Self { home, log_disk, addresses: Addresses::default() };
        // What a broker says of itself decides by which way its clients come.
        let ways = (0..WAYS).flat_map(|number| ["--way".to_owned(), Links::host(number).to_string()]);
        let ways: Vec<String> = ways.collect();
        let kafka = engines.script("start", Engine::Kafka, &ways.iter().map(String::as_str).collect::<Vec<_>>())?;
        engines.addresses.kafka = kafka;
        engines.addresses.postgres = engines.script("start", Engine::Postgres, &[])?;
        engines.addresses.redis = engines.script("start", Engine::Redis, &[])?;
        Ok(engines)
    }

    /// Stops PostgreSQL, as its administrator does.
    ///
    /// # Errors
    /// It does not stop.
    pub(crate) fn stop_postgres(&self) -> Result<(), Failure> {
        self.script("stop", Engine::Postgres, &[]).map(drop)
    }

    /// Starts it again where it was.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn start_postgres(&self) -> Result<(), Failure> {
        let port = port(&self.addresses.postgres)?.to_string();
        self.script("start", Engine::Postgres, &["--port", &port]).map(drop)
    }

    /// Starts Kafka again, if it has ended, with what it has.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn start_kafka(&self) -> Result<(), Failure> {
        self.script("start", Engine::Kafka, &[]).map(drop)
    }

    /// The file system of the log, where it has one of its own.
    pub(crate) fn log_disk(&self) -> Option<&Path> {
        self.log_disk.as_deref()
    }

    /// Sends Kafka or Redis a signal.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) fn signal(&self, engine: Engine, signal: Signal) -> Result<(), Failure> {
        let file = match engine {
            Engine::Kafka => self.dir(engine).join("broker-1.pid"),
            Engine::Postgres => return Err("PostgreSQL is several processes".into()),
            Engine::Redis => self.dir(engine).join("redis.pid"),
        };
        let pid = fs::read_to_string(&file)?.trim().parse().ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.ok_or_else(|| format!("{} names no process", file.display()))?, signal)?)
    }

    fn dir(&self, engine: Engine) -> PathBuf {
        match (engine, &self.log_disk) {
            (Engine::Kafka, Some(disk)) => disk.join(engine.script()),
            _ => self.home.join(engine.script()),
        }
    }

    /// Runs `scripts/VERB_ENGINE.sh`; the last line that it prints.
    fn script(&self, verb: &str, engine: Engine, more: &[&str]) -> Result<String, Failure> {
        let script = Path::new(SCRIPTS).join(format!("{verb}_{}.sh", engine.script()));
        let ran = Command::new(&script).arg("--home").arg(self.dir(engine)).args(more).output()?;
        if !ran.status.success() {
            let why = String::from_utf8_lossy(&ran.stderr).into_owned();
            return Err(format!("{} ended with {}: {why}", script.display(), ran.status).into());
        }
        Ok(String::from_utf8(ran.stdout)?.lines().last().unwrap_or_default().to_owned())
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        for engine in [Engine::Kafka, Engine::Redis] {
            // One that stands still would not end; one that never started has no process.
            let _gone: Result<(), Failure> = self.signal(engine, Signal::CONT);
        }
        for engine in [Engine::Kafka, Engine::Postgres, Engine::Redis] {
            let remove: &[&str] = if engine == Engine::Kafka { &["--remove"] } else { &[] };
            if self.dir(engine).exists()
                && let Err(why) = self.script("stop", engine, remove)
            {
                crate::say(&format!("not stopped: {why}"));
            }
        }
    }
}

/// Lets other users enter a directory, though not list it.
pub(crate) fn let_enter(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o711))
}
