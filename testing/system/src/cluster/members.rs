//! The processes of a cluster: each with its own ports, directory, log, and address under which the others know it.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;

use super::{
    engines::{self, Engines},
    links::{Links, To},
};
use crate::{
    Failure,
    http::Http,
    server::{PANICKED, Server, ServerArgs, lines_logged},
    traffic::NAMESPACE,
};

/// Shown by all internal calls.
pub(super) const KEY: &str = "the-key-of-the-cluster-under-proof";
/// Partitions of the log.
pub(super) const PARTITIONS: u32 = 8;
/// Nodes that there are before the first partition is placed.
pub(super) const NODES: u64 = 3;
/// First of the ports, before the offset.
const PORT_FIRST: u16 = 8000;
/// More ports than all processes have.
const PORTS: u16 = 64;

/// What a process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    ControlPlane,
    Watermark,
    Rebalancer,
    /// With its stream ingester; its number.
    Node(u64),
    Gateway,
    QueryApi,
}

impl Kind {
    const fn services(self) -> &'static [&'static str] {
        match self {
            Self::ControlPlane => &["control-plane"],
            Self::Watermark => &["watermark"],
            Self::Rebalancer => &["rebalancer"],
            Self::Node(_) => &["hot-tier", "stream-ingester"],
            Self::Gateway => &["gateway"],
            Self::QueryApi => &["query-api"],
        }
    }
}

/// A process, whether it runs or not.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) kind: Kind,
    pub(super) name: String,
    /// Under which the others know it.
    pub(super) host: Ipv4Addr,
    /// HTTP and gRPC ports, by service.
    ports: Vec<(u16, u16)>,
    environment: Vec<(String, String)>,
    dir: PathBuf,
    running: Option<Server>,
}

impl Member {
    /// Base URL of its (first) service.
    pub(super) fn http(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0].0)
    }

    /// Where its (first) service takes gRPC, past the proxy.
    pub(super) fn grpc(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0].1)
    }

    fn log(&self) -> PathBuf {
        self.dir.with_extension("log")
    }

    fn server(&self) -> Result<&Server, Failure> {
        Ok(self.running.as_ref().ok_or_else(|| format!("{} does not run", self.name))?)
    }

    /// kill -9.
    ///
    /// # Errors
    /// It had ended by itself.
    pub(super) fn kill(&mut self) -> Result<(), Failure> {
        self.server()?;
        self.running.take().map_or(Ok(()), Server::kill)
    }

    /// Ends it by SIGTERM.
    ///
    /// # Errors
    /// It does not end well.
    pub(super) async fn stop(&mut self) -> Result<(), Failure> {
        let Some(server) = self.running.take() else { return Ok(()) };
        server.stop().await.map_err(|why| format!("{}: {why}", self.name).into())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It does not run.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), Failure> {
        Ok(self.server()?.signal(signal)?)
    }
}

/// All processes.
#[derive(Debug)]
pub(super) struct Members {
    bin: PathBuf,
    home: PathBuf,
    port: u16,
    control_port: u16,
    environment: Vec<(String, String)>,
    engines: engines::Addresses,
    pub(super) links: Links,
    pub(super) all: Vec<Member>,
}

impl Members {
    /// The processes of a cluster of [`NODES`] nodes below `home`; none runs yet.
    ///
    /// # Errors
    /// There is no such program, or there are no ports.
    pub(super) fn new(args: &ServerArgs, home: &Path, engines: &Engines) -> Result<Self, Failure> {
        if !args.bin.is_file() {
            return Err(format!("{} is not there; ./build.sh builds it", args.bin.display()).into());
        }
        let port = free_ports(PORT_FIRST + args.port_offset)?;
        let shared = [
            ("TRUENOW_CLUSTER_KEY", KEY.to_owned()),
            ("TRUENOW_PARTITIONS", PARTITIONS.to_string()),
            ("TRUENOW_CLUSTER_NODES_FIRST", NODES.to_string()),
            ("TRUENOW_HOT_TIER_MEMORY_GB", "0.5".to_owned()),
            // The default has room for a cluster's event rates, which nobody sends here.
            ("TRUENOW_EVENT_LOG_QUEUE_BYTES", (32 << 20).to_string()),
        ];
        let environment = shared.into_iter().map(|(name, value)| (name.to_owned(), value));
        let mut members = Self {
            bin: args.bin.clone(),
            home: home.to_owned(),
            port,
            // The control plane is the first process.
            control_port: port + 1,
            environment: environment.chain(args.set.iter().cloned()).collect(),
            engines: engines.addresses.clone(),
            links: Links::new()?,
            all: Vec::new(),
        };
        members.add(Kind::ControlPlane, "control-plane")?;
        members.add(Kind::Watermark, "watermark")?;
        for at in ["a", "b"] {
            members.add(Kind::Rebalancer, &format!("rebalancer-{at}"))?;
        }
        for node in 1..=NODES {
            members.add_node(node)?;
        }
        for at in ["a", "b"] {
            members.add(Kind::Gateway, &format!("gateway-{at}"))?;
            members.add(Kind::QueryApi, &format!("query-api-{at}"))?;
        }
        Ok(members)
    }

    /// Adds another node; its place among the processes.
    ///
    /// # Errors
    /// Its ports are taken.
    pub(super) fn add_node(&mut self, node: u64) -> Result<usize, Failure> {
        self.add(Kind::Node(node), &format!("node-{node}"))
    }

    fn add(&mut self, kind: Kind, name: &str) -> Result<usize, Failure> {
        let number = u8::try_from(self.all.len())?;
        let host = Links::host(number);
        let mut environment = self.environment.clone();
        let mut set = |name: String, value: String| environment.push((name, value));
        set("TRUENOW_SERVICES".to_owned(), kind.services().join(","));
        set("TRUENOW_CLUSTER_ADVERTISE".to_owned(), host.to_string());
        if let Kind::Node(node) = kind {
            set("TRUENOW_CLUSTER_NODE_ID".to_owned(), node.to_string());
        }
        let mut ports = Vec::new();
        for service in kind.services() {
            let of = (self.port, self.port + 1);
            self.port += 2;
            let variable = service.replace('-', "_").to_uppercase();
            set(format!("TRUENOW_{variable}_HTTP_PORT"), of.0.to_string());
            set(format!("TRUENOW_{variable}_GRPC_PORT"), of.1.to_string());
            self.links.open(host, To::Processes, of.1)?;
            ports.push(of);
        }
        if kind != Kind::ControlPlane {
            self.links.open(host, To::Processes, self.control_port)?;
            set("TRUENOW_CLUSTER_CONTROL_PLANE".to_owned(), format!("{host}:{}", self.control_port));
        }
        for (variable, address, port) in self.engines.by_way_of(host, number)? {
            self.links.open(host, To::Engines, port)?;
            set(variable.to_owned(), address);
        }
        let dir = self.home.join(name);
        self.all.push(Member { kind, name: name.to_owned(), host, ports, environment, dir, running: None });
        Ok(self.all.len() - 1)
    }

    /// Starts a process, without waiting for it.
    ///
    /// # Errors
    /// The system does not start it.
    pub(super) fn start(&mut self, at: usize) -> Result<(), Failure> {
        let member = &mut self.all[at];
        let mut command = Command::new(&self.bin);
        command.arg("serve").arg("--data-dir").arg(&member.dir).current_dir(&self.home);
        command.envs(member.environment.iter().map(|(name, value)| (name, value)));
        let health = member.ports.iter().map(|(http, _)| format!("http://127.0.0.1:{http}/health"));
        member.running = Some(Server::start(&mut command, health.collect(), member.log())?);
        Ok(())
    }

    /// Waits until a process is healthy; how long that took from its start.
    ///
    /// # Errors
    /// It does not become healthy.
    pub(super) async fn healthy(&mut self, at: usize, http: &Http) -> Result<Duration, Failure> {
        let member = &mut self.all[at];
        let server = member.running.as_mut().ok_or_else(|| format!("{} does not run", member.name))?;
        server.healthy(http).await
    }

    /// Starts what does not run, and waits until all are healthy.
    ///
    /// # Errors
    /// One does not become healthy.
    pub(super) async fn start_all(&mut self, http: &Http) -> Result<(), Failure> {
        for at in 0..self.all.len() {
            if self.all[at].running.is_none() {
                self.start(at)?;
            }
        }
        for at in 0..self.all.len() {
            self.healthy(at, http).await?;
        }
        Ok(())
    }

    /// Places of the processes of a kind.
    pub(super) fn of(&self, kind: impl Fn(Kind) -> bool) -> Vec<usize> {
        (0..self.all.len()).filter(|&at| kind(self.all[at].kind)).collect()
    }

    /// The process of a node.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn node(&self, node: u64) -> Result<usize, Failure> {
        let found = self.of(|kind| kind == Kind::Node(node)).first().copied();
        found.ok_or_else(|| format!("there is no node {node}").into())
    }

    /// Base URL of the first process of a kind.
    pub(super) fn url(&self, kind: Kind) -> String {
        self.of(|of| of == kind).first().map(|&at| self.all[at].http()).unwrap_or_default()
    }

    /// Asks `truenow verify` whether all ledgers balance and all replicas hold the same rows.
    ///
    /// # Errors
    /// What it says if not.
    pub(super) async fn verify(&self) -> Result<(), Failure> {
        let mut command = Command::new(&self.bin);
        command.args(["verify", "--namespace", NAMESPACE]);
        for (flag, kind) in
            [("--control", Kind::ControlPlane), ("--watermark", Kind::Watermark), ("--query-api", Kind::QueryApi)]
        {
            command.args([flag, &self.url(kind)]);
        }
        // It takes its time, and clients are to go on.
        let said = tokio::task::spawn_blocking(move || command.output()).await??;
        if !said.status.success() {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            return Err(format!("truenow verify: {}{}", text(&said.stdout), text(&said.stderr)).into());
        }
        Ok(())
    }

    /// Fails where a thread of any process has panicked.
    ///
    /// # Errors
    /// Which, and where.
    pub(super) fn none_panicked(&self) -> Result<(), Failure> {
        for member in &self.all {
            if let Some(line) = lines_logged(&member.log(), &[PANICKED])?.first() {
                return Err(format!("{} logged: {line}", member.name).into());
            }
        }
        Ok(())
    }
}

/// The first of [`PORTS`] ports from `first` on at which nobody answers: engines take what is free.
fn free_ports(first: u16) -> Result<u16, Failure> {
    let free = |port: u16| std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err();
    let mut ranges = (first..u16::MAX - PORTS).step_by(PORTS as usize);
    ranges
        .find(|&from| (from..from + PORTS).all(free))
        .ok_or_else(|| format!("no ports are free from {first} on").into())
}
