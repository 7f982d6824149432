//! The server as a child process with a directory of its own.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Connection, Failure};

/// A start, a rest and an end may each take so long.
const WAIT_MAX: Duration = Duration::from_secs(120);
/// A server is at rest that takes less than this share of a core.
const REST_SHARE: f64 = 0.02;

/// Which server.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerArgs {
    /// The program [default: target/release/truenow, as build.sh leaves it].
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/truenow"))]
    bin: PathBuf,
    /// Added to every port of the server.
    #[arg(long, value_name = "N", default_value_t = 27_000)]
    port_offset: u16,
    /// Where the directory of the server is made [default: the system's].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// A setting of the server, as its environment has it.
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// The first so many cores alone.
    #[arg(skip)]
    cores: Option<usize>,
}

impl ServerArgs {
    /// Adds settings, before those that the user asked for.
    pub fn add(&mut self, settings: &[(&str, &str)]) {
        let owned = settings.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        self.set.splice(0..0, owned);
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.bin
    }

    /// These settings as options of a command line.
    #[must_use]
    pub fn options(&self) -> Vec<OsString> {
        let mut options: Vec<OsString> = vec!["--bin".into(), self.bin.clone().into()];
        options.extend(["--port-offset".into(), self.port_offset.to_string().into()]);
        options.extend(self.dir.iter().flat_map(|dir| ["--dir".into(), dir.clone().into()]));
        options.extend(self.set.iter().flat_map(|(name, value)| ["--set".into(), format!("{name}={value}").into()]));
        options
    }

    /// Lets servers run on the first `cores` cores alone.
    pub fn limit_cores(&mut self, cores: usize) {
        self.cores = Some(cores);
    }

    /// A command that runs on as many cores as servers of these settings do.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        match self.cores {
            None => Command::new(program),
            Some(cores) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &format!("0-{}", cores.saturating_sub(1))]).arg(program);
                command
            }
        }
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a setting is NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A running server. Dropped, it is killed, and its directory goes.
#[derive(Debug)]
pub struct Server {
    process: Child,
    args: ServerArgs,
    home: tempfile::TempDir,
}

impl Server {
    /// Starts a server whose limits and cache do not stand in the way.
    ///
    /// # Errors
    /// There is no such program, or its port is taken.
    pub fn start(args: &ServerArgs) -> Result<Self, Failure> {
        let mut name = tempfile::Builder::new();
        name.prefix("truenow-bench-");
        let home = match &args.dir {
            Some(dir) => name.tempdir_in(dir)?,
            None => name.tempdir()?,
        };
        Ok(Self { process: spawn(args, home.path())?, args: args.clone(), home })
    }

    /// Ends it and starts another over its data.
    ///
    /// # Errors
    /// It does not end in time, or another cannot be started.
    pub async fn restart(&mut self) -> Result<(), Failure> {
        self.end().await?;
        self.process = spawn(&self.args, self.home.path())?;
        Ok(())
    }

    /// Host and port of one of its services.
    #[must_use]
    pub fn address(&self, port: u16) -> String {
        format!("127.0.0.1:{}", port + self.args.port_offset)
    }

    /// What is added to each of its ports.
    #[must_use]
    pub fn port_offset(&self) -> u16 {
        self.args.port_offset
    }

    /// Its settings.
    #[must_use]
    pub fn args(&self) -> &ServerArgs {
        &self.args
    }

    /// Its directory.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Waits until it is healthy.
    ///
    /// # Errors
    /// It ended, or does not become healthy.
    pub async fn healthy(&mut self) -> Result<(), Failure> {
        self.answers(&[8001, 8088, 8081, 9090, 8100]).await
    }

    /// Waits until its gateway is there, whatever the others do.
    ///
    /// # Errors
    /// As [`Server::healthy`].
    pub async fn healthy_gateway(&mut self) -> Result<(), Failure> {
        self.answers(&[8088]).await
    }

    async fn answers(&mut self, ports: &[u16]) -> Result<(), Failure> {
        let began = Instant::now();
        for &port in ports {
            while !self.is_healthy(port).await {
                if let Some(status) = self.process.try_wait()? {
                    let log = std::fs::read_to_string(self.home.path().join("server.log"))?;
                    return Err(format!("the server ended with {status}:\n{log}").into());
                }
                if began.elapsed() > WAIT_MAX {
                    return Err(format!("the server is not healthy after {WAIT_MAX:?}").into());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    async fn is_healthy(&self, port: u16) -> bool {
        match Connection::open(&self.address(port)).await {
            Ok(mut connection) => connection.get("/health").await.is_ok(),
            Err(_refused) => false,
        }
    }

    /// Waits until it does next to nothing, after checkpoints and housekeeping.
    ///
    /// # Errors
    /// It does not come to rest.
    pub async fn at_rest(&self) -> Result<(), Failure> {
        let began = Instant::now();
        while began.elapsed() < WAIT_MAX {
            let (from, before) = (Instant::now(), self.cpu()?);
            tokio::time::sleep(Duration::from_secs(2)).await;
            let share = self.cpu()?.saturating_sub(before).as_secs_f64() / from.elapsed().as_secs_f64();
            if share < REST_SHARE && began.elapsed() > Duration::from_secs(12) {
                return Ok(());
            }
        }
        Err("the server does not come to rest".into())
    }

    /// CPU time of all its threads that still run.
    ///
    /// # Errors
    /// The system does not say.
    pub fn cpu(&self) -> Result<Duration, Failure> {
        let mut nanos = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            // A thread that ended meanwhile is left out.
            let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
            nanos += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// Memory that it has in use, mapped files included.
    ///
    /// # Errors
    /// The system does not say.
    pub fn resident_gib(&self) -> Result<f64, Failure> {
        Ok(self.status_bytes(&["VmRSS"])? / f64::from(1 << 30))
    }

    /// Memory that is no file.
    ///
    /// # Errors
    /// The system does not say.
    pub fn anonymous_bytes(&self) -> Result<f64, Failure> {
        self.status_bytes(&["RssAnon", "RssShmem"])
    }

    /// The sum of fields of `/proc/PID/status`.
    fn status_bytes(&self, names: &[&str]) -> Result<f64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let fields: HashMap<_, _> = status.lines().filter_map(|line| line.split_once(':')).collect();
        let mut bytes = 0.0;
        for name in names {
            let field = fields.get(name).ok_or_else(|| format!("the process has no {name}"))?;
            bytes += field.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0;
        }
        Ok(bytes)
    }

    /// Ends it by SIGTERM.
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn stop(mut self) -> Result<(), Failure> {
        self.end().await
    }

    async fn end(&mut self) -> Result<(), Failure> {
        kill_process(Pid::from_child(&self.process), Signal::TERM)?;
        let asked = Instant::now();
        while asked.elapsed() < WAIT_MAX {
            if self.process.try_wait()?.is_some() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(format!("the server did not end within {WAIT_MAX:?} of SIGTERM").into())
    }
}

/// Starts the program over the data of a directory.
fn spawn(args: &ServerArgs, home: &Path) -> Result<Child, Failure> {
    if !args.bin.is_file() {
        return Err(format!("{} is not there; ./build.sh builds it", args.bin.display()).into());
    }
    if std::net::TcpStream::connect(("127.0.0.1", 8081 + args.port_offset)).is_ok() {
        return Err(format!("something answers on port {} already", 8081 + args.port_offset).into());
    }
    let log = File::create(home.join("server.log"))?;
    let process = args
        .command(&std::path::absolute(&args.bin)?)
        .arg("serve")
        .args(["--port-offset", &args.port_offset.to_string(), "--data-dir"])
        .arg(home.join("data"))
        .env("GATEWAY_RATE_LIMIT", "1000000000")
        .env("TRUENOW_GATEWAY_TENANT_RATE_LIMIT", "1000000000")
        .env("QUERY_CACHE_TTL", "0")
        .env("TRUENOW_HOT_TIER_CACHE_BYTES", "0")
        .envs(args.set.iter().map(|(name, value)| (name, value)))
        .current_dir(home)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    Ok(process)
}

impl Drop for Server {
    fn drop(&mut self) {
        // Killing what has ended already fails, which is fine.
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}
