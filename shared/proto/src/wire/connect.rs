//! Connections to other processes of the cluster, one for each address, made when they are first needed and again when lost.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use codec::{CLUSTER_HEADER, ClusterKey};
use tonic::{
    GrpcMethod, Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use types::ApiError;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a connection is asked whether the other side is still there, and how long that may take to answer.
const PING_INTERVAL: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// All headers of an answer together, bytes: errors travel in them.
const HEADER_BYTES_MAX: u32 = 64 << 10;
/// What a peer may send before it is read: per stream, and per connection.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Calls that were given up and whose answers may be on their way: so many are known for a moment, and what comes of them is passed
/// over. Queries give up calls by the thousand in a second, as of two replicas the first to answer counts.
const GIVEN_UP_KNOWN: usize = 8 << 10;

/// A connection whose calls show the cluster's key.
pub type Signed = InterceptedService<Channel, Signer>;

/// Adds to each call what shows the cluster's key, where there is one.
#[derive(Debug, Clone)]
pub struct Signer(Option<ClusterKey>);

impl Signer {
    /// Signs with a key; `None`: calls stay within a machine where nobody asks for it.
    #[must_use]
    pub fn new(key: Option<ClusterKey>) -> Self {
        Self(key)
    }
}

impl Interceptor for Signer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let Some(key) = &self.0 else { return Ok(request) };
        let method = request.extensions().get::<GrpcMethod<'static>>();
        let method = method.ok_or_else(|| Status::internal("a call without a method"))?;
        let path = format!("/{}/{}", method.service(), method.method());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let value = key.sign(&path, u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        let value = value.parse().map_err(|_| Status::internal("a signature that is no header"))?;
        request.metadata_mut().insert(CLUSTER_HEADER, value);
        Ok(request)
    }
}

/// Connects to other processes. Cloning shares the connections.
#[derive(Clone)]
pub struct Connector {
    signer: Signer,
    open: Arc<Mutex<HashMap<String, Channel>>>,
}

impl Connector {
    /// Connects with the cluster's key.
    #[must_use]
    pub fn new(key: Option<ClusterKey>) -> Self {
        Self { signer: Signer::new(key), open: Arc::default() }
    }

    /// The connection to `host:port`. Nothing is sent before the first call; while the other side is away, calls fail with
    /// `UNAVAILABLE` and connect anew.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: that is no address.
    pub fn to(&self, address: &str) -> Result<Signed, ApiError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = match open.get(address) {
            Some(channel) => channel.clone(),
            None => {
                let channel = channel(address)?;
                open.insert(address.to_owned(), channel.clone());
                channel
            }
        };
        Ok(InterceptedService::new(channel, self.signer.clone()))
    }
}

fn channel(address: &str) -> Result<Channel, ApiError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| ApiError::invalid("address", format!("{address:?} is no address such as 10.0.0.1:9080")))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_concurrent_reset_streams(GIVEN_UP_KNOWN)
        // Else a connection on which 1,024 late answers came is closed, and all calls on it fail at once. Members of a cluster are trusted.
        .http2_max_local_error_reset_streams(None);
    Ok(endpoint.connect_lazy())
}
