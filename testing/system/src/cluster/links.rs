//! The network between the processes of a cluster, as far as the proof can make it bad: whatever goes to one process passes a
//! proxy of its own, and so does what it says to the control plane and to the engines.
//!
//! Each process has a loopback address of its own (127.0.0.11 and on), under which the others know it; the proxy listens there
//! and connects to the same port of 127.0.0.1, where the process, or the engine, really is. The connections of clients are left
//! alone.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Runtime,
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use crate::Failure;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks under way in one direction of a connection.
const CHUNKS: usize = 64;

/// What becomes of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Weather {
    /// From when they come to when they go on.
    delay: Duration,
    /// None go on, and nobody is told.
    cut: bool,
    /// Connections of an earlier number are lost.
    storm: u64,
}

/// Whom a process talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum To {
    Processes,
    Engines,
}

/// The proxies of all processes; they run on a thread of their own, so that the proof's own work does not delay anybody.
#[derive(Debug)]
pub(crate) struct Links {
    runtime: Option<Runtime>,
    weather: BTreeMap<(Ipv4Addr, To), watch::Sender<Weather>>,
}

impl Links {
    /// No proxy yet.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn new() -> Result<Self, Failure> {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).thread_name("links").enable_all().build()?;
        Ok(Self { runtime: Some(runtime), weather: BTreeMap::new() })
    }

    /// The address under which the others know a process.
    pub(crate) fn host(process: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, 0, 11 + process)
    }

    /// Lets what comes to `host` at `port` go on to who is there.
    ///
    /// # Errors
    /// The address cannot be listened at.
    pub(crate) fn open(&mut self, host: Ipv4Addr, whom: To, port: u16) -> Result<(), Failure> {
        let clear = || watch::Sender::new(Weather { delay: Duration::ZERO, cut: false, storm: 0 });
        let weather = self.weather.entry((host, whom)).or_insert_with(clear).subscribe();
        let runtime = self.runtime.as_ref().ok_or("the proxies have ended")?;
        let at = std::net::TcpListener::bind((host, port)).map_err(|error| format!("{host}:{port}: {error}"))?;
        at.set_nonblocking(true)?;
        let _entered = runtime.enter();
        let listener = TcpListener::from_std(at)?;
        let to = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        runtime.spawn(serve(listener, to, weather));
        Ok(())
    }

    /// What goes to or from a process takes so much longer.
    pub(crate) fn delay(&self, delay: Duration) {
        self.weather.values().for_each(|weather| weather.send_modify(|weather| weather.delay = delay));
    }

    /// Cuts a process off from some, or ends that; what was under way arrives then.
    pub(crate) fn cut(&self, host: Ipv4Addr, from: To, cut: bool) {
        self.weather[&(host, from)].send_modify(|weather| weather.cut = cut);
    }

    /// All connections of a process are lost.
    pub(crate) fn lose(&self, host: Ipv4Addr) {
        let its = self.weather.iter().filter(|((of, _), _)| *of == host);
        its.for_each(|(_, weather)| weather.send_modify(|weather| weather.storm += 1));
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        // Within another runtime nothing may be waited for.
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

async fn serve(listener: TcpListener, to: SocketAddr, weather: watch::Receiver<Weather>) {
    loop {
        // Where the system has no more sockets for now, clients come again.
        let Ok((client, _)) = listener.accept().await else { continue };
        let weather = weather.clone();
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(to).await else { return };
            let _quick = (client.set_nodelay(true), server.set_nodelay(true));
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            let mut storms = weather.clone();
            let now = storms.borrow().storm;
            tokio::select! {
                () = pass(from_client, to_server, weather.clone()) => {}
                () = pass(from_server, to_client, weather) => {}
                _lost = storms.wait_for(|weather| weather.storm != now) => {}
            }
        });
    }
}

/// Passes bytes on in one direction until either side ends it.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut weather: watch::Receiver<Weather>) {
    let (chunks, mut due) = mpsc::channel::<(Instant, Bytes)>(CHUNKS);
    let seen = weather.clone();
    let read = async move {
        let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
        while let Ok(1..) = from.read_buf(&mut buffer).await {
            let at = Instant::now() + seen.borrow().delay;
            if chunks.send((at, buffer.split().freeze())).await.is_err() {
                return;
            }
            buffer.reserve(CHUNK_BYTES);
        }
    };
    let write = async {
        while let Some((at, chunk)) = due.recv().await {
            sleep_until(at).await;
            let open = weather.wait_for(|weather| !weather.cut).await.is_ok();
            if !open || to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    tokio::pin!(write);
    tokio::select! {
        () = &mut write => {}
        // What was read until its side ended is still written.
        () = read => write.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection to an echo through a proxy.
    fn echo(links: &mut Links, host: Ipv4Addr) -> std::net::TcpStream {
        use std::io::{Read as _, Write as _};
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        links.open(host, To::Processes, port).unwrap();
        std::thread::spawn(move || {
            for connection in server.incoming() {
                let mut connection = connection.unwrap();
                std::thread::spawn(move || {
                    let mut bytes = [0; 64];
                    while let Ok(1..) = connection.read(&mut bytes[..1]) {
                        if connection.write_all(&bytes[..1]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        std::net::TcpStream::connect((host, port)).unwrap()
    }

    /// Goal: bytes pass; those of a cut arrive when it ends, in their order; a lost connection ends.
    #[test]
    fn bytes_pass_wait_and_are_lost() {
        use std::io::{ErrorKind, Read as _, Write as _};
        let host = Links::host(200);
        let mut links = Links::new().unwrap();
        let mut connection = echo(&mut links, host);
        let mut bytes = [0; 3];
        connection.write_all(b"abc").unwrap();
        connection.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"abc");
        links.cut(host, To::Processes, true);
        connection.write_all(b"def").unwrap();
        connection.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let waits = connection.read(&mut bytes).unwrap_err().kind();
        assert!([ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&waits), "{waits:?}");
        connection.set_read_timeout(None).unwrap();
        links.cut(host, To::Processes, false);
        connection.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"def");
        links.lose(host);
        assert!(matches!(connection.read(&mut bytes), Ok(0) | Err(_)));
    }
}
