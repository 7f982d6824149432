//! The real server as a child process: started, asked how it is, killed.

use std::{
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Failure, http::Http};

/// A start and an end by SIGTERM may take so long.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The HTTP ports of all services.
const PORTS: [u16; 7] = [8001, 9090, 8100, 8088, 8084, 8081, 8086];

/// Which server a proof starts, and where it lives.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ServerArgs {
    /// The program to prove [default: target/release/truenow, as build.sh leaves it].
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/truenow"))]
    pub(crate) bin: PathBuf,
    /// Added to every port of the server.
    #[arg(long, value_name = "N", default_value_t = 21_200)]
    pub(crate) port_offset: u16,
    /// Where the directory of the server is made; it is removed unless the proof fails [default: the system's].
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// A setting of the server, as its environment has it.
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    pub(crate) set: Vec<(String, String)>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a setting is NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A server that can be started again and again on the same directory.
#[derive(Debug)]
pub(crate) struct Site {
    bin: PathBuf,
    offset: u16,
    home: tempfile::TempDir,
    data: PathBuf,
    environment: Vec<(String, String)>,
    wrapper: Vec<String>,
}

impl Site {
    /// A site with an empty directory.
    ///
    /// # Errors
    /// The directory cannot be made, there is no such program, or its ports are taken.
    pub(crate) fn new(args: &ServerArgs) -> Result<Self, Failure> {
        if !args.bin.is_file() {
            return Err(format!("{} is not there; ./build.sh builds it", args.bin.display()).into());
        }
        let mut name = tempfile::Builder::new();
        name.prefix("truenow-system-");
        let home = match &args.dir {
            Some(dir) => name.tempdir_in(dir)?,
            None => name.tempdir()?,
        };
        let site = Self {
            bin: args.bin.clone(),
            offset: args.port_offset,
            data: home.path().join("data"),
            home,
            environment: args.set.clone(),
            wrapper: Vec::new(),
        };
        for port in PORTS {
            // A server that an earlier run left behind would answer in the place of the one that is to be proved.
            let port = port + site.offset;
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Err(format!("something answers on port {port} already").into());
            }
        }
        Ok(site)
    }

    /// Sets a variable of the server's environment.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Runs the server by way of another program, which takes it as its last arguments.
    pub(crate) fn wrap(&mut self, command: &[String]) {
        self.wrapper = command.to_vec();
    }

    /// The program.
    pub(crate) fn bin(&self) -> &Path {
        &self.bin
    }

    /// What is added to every port.
    pub(crate) const fn offset(&self) -> u16 {
        self.offset
    }

    /// Base URL of one of its ports.
    pub(crate) fn url(&self, port: u16) -> String {
        format!("http://127.0.0.1:{}", port + self.offset)
    }

    /// The directory of its data.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Puts the data elsewhere than into the server's own directory.
    pub(crate) fn put_data(&mut self, dir: PathBuf) {
        self.data = dir;
    }

    /// What all its runs logged.
    pub(crate) fn log(&self) -> PathBuf {
        self.home.path().join("server.log")
    }

    /// Keeps the directory, for whoever looks into a failure.
    pub(crate) fn keep(&mut self) -> &Path {
        self.home.disable_cleanup(true);
        self.home.path()
    }

    /// Starts the server.
    ///
    /// # Errors
    /// The system does not start it.
    pub(crate) fn start(&self) -> Result<Server, Failure> {
        let mut words = self.wrapper.iter().map(String::as_str);
        let mut command = match words.next() {
            Some(program) => {
                let mut command = Command::new(program);
                command.args(words).arg(&self.bin);
                command
            }
            None => Command::new(&self.bin),
        };
        command
            .arg("serve")
            .args(["--port-offset", &self.offset.to_string(), "--data-dir"])
            .arg(&self.data)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.home.path());
        let health = PORTS.map(|port| format!("{}/health", self.url(port)));
        Server::start(&mut command, health.to_vec(), self.log())
    }

    /// Lines of the log that say that something is wrong with the server.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(crate) fn errors_logged(&self) -> io::Result<Vec<String>> {
        lines_logged(&self.log(), &[r#""level":"ERROR""#, PANICKED])
    }
}

/// Where a thread of a server has panicked.
pub(crate) const PANICKED: &str = "panicked";

/// Lines of a log with any of these words.
///
/// # Errors
/// The log cannot be read.
pub(crate) fn lines_logged(log: &Path, words: &[&str]) -> io::Result<Vec<String>> {
    let text = std::fs::read_to_string(log)?;
    let with = |line: &&str| words.iter().any(|word| line.contains(word));
    Ok(text.lines().filter(with).map(str::to_owned).collect())
}

/// Bytes of memory in use.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// What only its end gives back.
    pub(crate) own: u64,
    /// Of files, the program's and those of runs of ids: the system's cache, which it takes back when it needs it.
    pub(crate) files: u64,
}

/// A running server. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Server {
    process: Child,
    began: Instant,
    /// Where its services say how they are.
    health: Vec<String>,
    log: PathBuf,
}

impl Server {
    /// Starts a command whose output goes to the end of `log`; its services tell at `health` how they are.
    ///
    /// # Errors
    /// The system does not start it.
    pub(crate) fn start(command: &mut Command, health: Vec<String>, log: PathBuf) -> Result<Self, Failure> {
        let output: File = OpenOptions::new().create(true).append(true).open(&log)?;
        let process = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn()?;
        Ok(Self { process, began: Instant::now(), health, log })
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.process), signal)?)
    }

    /// Waits until it is healthy; how long that took from its start.
    ///
    /// # Errors
    /// It ended, or does not become healthy.
    pub(crate) async fn healthy(&mut self, http: &Http) -> Result<Duration, Failure> {
        let mut asked = 0;
        while asked < self.health.len() {
            if http.get(&self.health[asked]).await.is_some_and(|reply| reply.status.is_success()) {
                asked += 1;
                continue;
            }
            if let Some(status) = self.process.try_wait()? {
                return Err(format!("the server ended with {status}; see {}", self.log.display()).into());
            }
            if self.began.elapsed() > WAIT_MAX {
                return Err(format!("the server is not healthy after {WAIT_MAX:?}; see {}", self.log.display()).into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(self.began.elapsed())
    }

    /// kill -9, and waits until it is gone.
    ///
    /// # Errors
    /// It had ended by itself before.
    pub(crate) fn kill(mut self) -> Result<(), Failure> {
        if let Some(status) = self.process.try_wait()? {
            return Err(format!("the server had ended with {status}; see {}", self.log.display()).into());
        }
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Ends it by SIGTERM.
    ///
    /// # Errors
    /// It does not end, or not with exit code 0.
    pub(crate) async fn stop(mut self) -> Result<(), Failure> {
        self.signal(Signal::TERM)?;
        let asked = Instant::now();
        while asked.elapsed() < WAIT_MAX {
            match self.process.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("the server ended with {status} after SIGTERM").into()),
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        Err(format!("the server did not end within {WAIT_MAX:?} of SIGTERM").into())
    }

    /// Memory that it has in use.
    ///
    /// # Errors
    /// The system does not say.
    pub(crate) fn memory(&self) -> Result<Memory, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let bytes = |name: &str| -> Result<u64, Failure> {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kilobytes: u64 =
                value.ok_or_else(|| format!("the process has no {name}"))?.trim().trim_end_matches(" kB").parse()?;
            Ok(kilobytes * 1024)
        };
        Ok(Memory { own: bytes("RssAnon")? + bytes("RssShmem")?, files: bytes("RssFile")? })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Killing what has ended already fails, which is fine.
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}
