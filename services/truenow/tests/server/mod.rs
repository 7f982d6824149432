//! The real server, for as long as the value lives, and plain HTTP requests to it.
#![allow(dead_code, reason = "no test needs all of it")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::Mutex,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use serde_json::Value;
use tempfile::TempDir;

/// All ports of the services, without an offset.
const PORTS: [u16; 14] = [8001, 8081, 8084, 8086, 8088, 8100, 9080, 9081, 9084, 9086, 9088, 9090, 9091, 9100];
const POLLS_MAX: u32 = 600;
const POLL: Duration = Duration::from_millis(100);

pub(crate) struct Server {
    child: Child,
    offset: u16,
    settings: Vec<(&'static str, &'static str)>,
    /// Removed with the server.
    directory: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        self.child.wait().expect("it is our child");
    }
}

impl Server {
    /// Starts it on ports that are free, and waits until events and questions are taken.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`Server::start`], with settings of the environment.
    pub(crate) fn start_with(settings: &[(&'static str, &'static str)]) -> Self {
        let server = Self::spawned(settings);
        [8001, 8088, 8081].into_iter().for_each(|port| server.wait_for(port));
        server
    }

    /// Starts it and waits for nothing.
    pub(crate) fn spawned(settings: &[(&'static str, &'static str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (offset, settings) = (free_offset(), settings.to_vec());
        let child = spawn(&directory, offset, &settings);
        Self { child, offset, settings, directory }
    }

    /// Starts another on the same data and other ports, and gives how it ended and what it wrote.
    pub(crate) fn second_on_its_data(&self) -> (ExitStatus, String) {
        let mut command = command(&self.directory, free_offset(), &self.settings);
        let output = command.stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
        (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Starts it again, after its end.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.directory, self.offset, &self.settings);
    }

    /// Its data.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is our child");
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
    }

    /// Waits for its end, and does something again and again until then.
    pub(crate) fn ended(&mut self, meanwhile: impl Fn()) -> ExitStatus {
        for _ in 0..POLLS_MAX {
            meanwhile();
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            thread::sleep(POLL);
        }
        panic!("the server does not end:\n{}", self.log());
    }

    /// Waits until nobody takes connections on a port.
    pub(crate) fn wait_for_silence(&self, port: u16) {
        for _ in 0..POLLS_MAX {
            if TcpStream::connect(("127.0.0.1", port + self.offset)).is_err() {
                return;
            }
            thread::sleep(POLL);
        }
        panic!("port {port} stays open:\n{}", self.log());
    }

    /// What it wrote to its log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// What is added to every port.
    pub(crate) fn offset(&self) -> u16 {
        self.offset
    }

    /// Sends a request, and gives status and body.
    pub(crate) fn request(&self, port: u16, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (status, text) = self.try_request(port, method, path, body).unwrap();
        let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{method} {path}: {error}: {text}"));
        (status, body)
    }

    fn try_request(&self, port: u16, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", port + self.offset))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        let malformed = || std::io::Error::other(format!("no reply of HTTP: {reply}"));
        let (head, body) = reply.split_once("\r\n\r\n").ok_or_else(malformed)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(malformed)?;
        Ok((status, body.to_owned()))
    }

    /// Waits until a service is healthy.
    pub(crate) fn wait_for(&self, port: u16) {
        for _ in 0..POLLS_MAX {
            if matches!(self.try_request(port, "GET", "/health", ""), Ok((200, _))) {
                return;
            }
            thread::sleep(POLL);
        }
        panic!("the service on port {port} does not become healthy:\n{}", self.log());
    }
}

fn spawn(directory: &TempDir, offset: u16, settings: &[(&str, &str)]) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(directory.path().join("log")).unwrap();
    command(directory, offset, settings).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

fn command(directory: &TempDir, offset: u16, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_truenow"));
    command.current_dir(directory.path()).envs(settings.iter().copied());
    command.args(["serve", "--data-dir", "data", "--port-offset", &offset.to_string()]);
    command
}

/// An offset at which all ports are free, tried from one that other processes hardly choose; another for each server of this
/// one, which may not have opened its ports yet.
fn free_offset() -> u16 {
    static TRIED: Mutex<u16> = Mutex::new(0);
    let mut tried = TRIED.lock().unwrap();
    let start = (std::process::id() % 400) as u16;
    let free = |offset: &u16| PORTS.iter().all(|port| TcpListener::bind(("127.0.0.1", port + offset)).is_ok());
    loop {
        assert!(*tried < 400, "no ports are free");
        let offset = 15_000 + (start + *tried) % 400 * 17;
        *tried += 1;
        if free(&offset) {
            return offset;
        }
    }
}
