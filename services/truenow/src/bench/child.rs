//! A server of the benchmark's own: a child process on free ports with a directory that goes with it.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{addresses::Addresses, failure::Failure, http::Http};

/// The ports of all services, which move together.
const PORTS: [u16; 14] = [8001, 9080, 8088, 9088, 8100, 9100, 9090, 9091, 8081, 9081, 8084, 9084, 8086, 9086];
/// Offsets that are tried, in steps that keep any two apart; all ports stay below those that the system gives to outgoing
/// connections.
const OFFSETS: std::ops::Range<u16> = 2..21;
const OFFSET_STEP: u16 = 1_100;
/// The server has this long to become healthy, and to end.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A running child. Dropped, it is killed and its directory removed.
#[derive(Debug)]
pub(crate) struct Server {
    process: Child,
    dir: PathBuf,
    offset: u16,
}

impl Server {
    /// Starts a server whose limits do not stand in the way of a measurement, under `base`.
    ///
    /// # Errors
    /// There are no free ports, the directory cannot be made, or the server does not become healthy.
    pub(crate) async fn start(base: &Path) -> Result<Self, Failure> {
        let offset = free_offset().ok_or_else(|| Failure::new("no free ports for a server of its own"))?;
        let dir = base.join(format!("truenow-bench-{}", std::process::id()));
        let failed =
            |what: &str, error: std::io::Error| Failure::new(format!("cannot {what} {}: {error}", dir.display()));
        std::fs::create_dir(&dir).map_err(|error| failed("make", error))?;
        let log = std::fs::File::create(dir.join("server.log")).map_err(|error| failed("write to", error))?;
        let program = std::env::current_exe().map_err(|error| Failure::new(format!("where am I? {error}")))?;
        let process = Command::new(program)
            .arg("serve")
            .args(["--port-offset", &offset.to_string(), "--data-dir"])
            .arg(dir.join("data"))
            .env("GATEWAY_RATE_LIMIT", "1000000000")
            .env("TRUENOW_GATEWAY_TENANT_RATE_LIMIT", "1000000000")
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|error| failed("write to", error))?)
            .stderr(log)
            .spawn()
            .map_err(|error| Failure::new(format!("cannot start a server: {error}")))?;
        let server = Self { process, dir, offset };
        server.wait_healthy().await?;
        Ok(server)
    }

    /// Where it is.
    pub(crate) fn addresses(&self) -> Addresses {
        Addresses::local(self.offset)
    }

    async fn wait_healthy(&self) -> Result<(), Failure> {
        let addresses = self.addresses();
        let http = Http::new(&addresses)?;
        let (began, mut last) = (Instant::now(), None);
        let services = [addresses.control(), addresses.gateway(), addresses.query_api(), addresses.watermark()];
        while began.elapsed() < WAIT_MAX {
            last = None;
            for service in &services {
                if let Err(failure) = http.get_text(&format!("{service}/health")).await {
                    last = Some(failure);
                    break;
                }
            }
            if last.is_none() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let log = std::fs::read_to_string(self.dir.join("server.log")).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(10).collect();
        let why = last.map_or(String::new(), |failure| failure.to_string());
        Err(Failure::new(format!("the server did not become healthy: {why}"))
            .hint(tail.into_iter().rev().collect::<Vec<_>>().join("\n  ")))
    }

    /// Ends it by SIGTERM.
    ///
    /// # Errors
    /// It did not end with exit code 0 in time.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, Signal::TERM).map_err(|error| Failure::new(format!("cannot stop the server: {error}")))?;
        let began = Instant::now();
        while began.elapsed() < WAIT_MAX {
            match self.process.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(Failure::new(format!("the server ended with {status}"))),
                Ok(None) => std::thread::sleep(Duration::from_millis(50)),
                Err(error) => return Err(Failure::new(format!("cannot wait for the server: {error}"))),
            }
        }
        Err(Failure::new(format!("the server did not end within {} s of SIGTERM", WAIT_MAX.as_secs())))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Killing what has ended already fails, which is fine; so is a directory that is gone.
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
        let _gone = std::fs::remove_dir_all(&self.dir);
    }
}

/// A port offset at which all ports are free just now.
fn free_offset() -> Option<u16> {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    OFFSETS
        .filter_map(|step| step.checked_mul(OFFSET_STEP))
        .find(|offset| PORTS.iter().all(|port| port.checked_add(*offset).is_some_and(free)))
}
