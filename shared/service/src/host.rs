//! Starting and stopping a service: two ports, health, metrics, reflection around the routes that it brings.
//!
//! The order of a shutdown: health says draining → the ports close → requests under way finish, or are cut after the
//! drain timeout → what the service registered with [`Running::on_stopped`] runs, in the order of registration.

use std::{future::Future, io, net::SocketAddr, pin::Pin, sync::Arc};

use axum::Router;
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::service::Routes;

use crate::{
    Authenticator, Calls, Direct, Health, HttpLimits, Metrics, Protocol, Shutdown,
    bind::{BindError, bind},
    direct::{DirectPort, PortService},
    edge::{Edge, behind_edge},
    request_metrics::RequestMetrics,
    serve::serve,
};

/// What the services of one process share.
#[derive(Clone)]
pub struct Host {
    /// Limits of each port.
    pub limits: HttpLimits,
    /// Whose request it is.
    pub authenticator: Authenticator,
    /// The recorder.
    pub metrics: Metrics,
}

/// What a service brings.
pub struct Parts {
    /// Its name and state.
    pub health: Health,
    /// Where to serve HTTP; port 0: any.
    pub http: SocketAddr,
    /// Where to serve gRPC; port 0: any.
    pub grpc: SocketAddr,
    /// Its HTTP routes; every request that reaches them has a [`types::TenantId`] and a [`crate::RequestId`] among its
    /// extensions.
    pub router: Router,
    /// Its gRPC services (`Routes::default()` where it has none); their requests have the same extensions.
    pub grpc_routes: Routes,
    /// Where its gRPC calls run.
    pub grpc_calls: Calls,
    /// Methods of its gRPC services that are called past their routes, which know them too.
    pub direct: Option<Arc<dyn Direct>>,
    /// Names of its gRPC services, for the health service (`truenow.v1.Ingest`).
    pub grpc_names: Vec<String>,
    /// Encoded descriptor sets of its gRPC services, for reflection.
    pub descriptors: Vec<&'static [u8]>,
}

/// Why a service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A descriptor set that cannot be read.
    #[error("gRPC reflection of {service}")]
    Reflection {
        /// The service.
        service: &'static str,
        /// Why.
        #[source]
        source: tonic_reflection::server::Error,
    },
    /// The system does not say where it listens.
    #[error("read the bound address")]
    Address(#[source] io::Error),
}

impl Host {
    /// Opens both ports and serves. The service is reachable from here on; it says by its health when it is ready.
    ///
    /// # Errors
    /// A port cannot be opened, or a descriptor set cannot be read.
    pub async fn start(&self, parts: Parts) -> Result<Running, StartError> {
        let service = parts.health.service();
        let http = self.listen(service, "http_port", parts.http).await?;
        let grpc = self.listen(service, "grpc_port", parts.grpc).await?;
        let (http_address, grpc_address) = (address_of(&http)?, address_of(&grpc)?);

        let (reporter, health_service) = tonic_health::server::health_reporter();
        let mut grpc_routes = parts.grpc_routes.add_service(health_service);
        let mut reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        for descriptors in parts.descriptors {
            reflection = reflection.register_encoded_file_descriptor_set(descriptors);
        }
        let reflection = reflection.build_v1().map_err(|source| StartError::Reflection { service, source })?;
        grpc_routes = grpc_routes.add_service(reflection);
        let http_router = parts.router.merge(parts.health.routes()).merge(self.metrics.routes());

        let metrics = Arc::new(RequestMetrics::new(service));
        let stop = Shutdown::new();
        let edge = |protocol| Edge {
            service,
            protocol,
            authenticator: self.authenticator.clone(),
            body_timeout: self.limits.body_timeout,
            metrics: metrics.clone(),
        };
        let serve_on = |listener, router, direct, (protocol, calls)| {
            let answers = PortService::new(behind_edge(router, edge(protocol)), direct);
            tokio::spawn(serve(listener, answers, service, (protocol, calls), self.limits.clone(), stop.clone()))
        };
        let direct = parts.direct.map(|methods| DirectPort { methods, edge: edge(Protocol::Grpc) });
        let ports = [
            serve_on(http, http_router, None, (Protocol::Http, Calls::Spawned)),
            serve_on(grpc, grpc_routes.into_axum_router(), direct, (Protocol::Grpc, parts.grpc_calls)),
        ];
        let reporting = tokio::spawn(parts.health.clone().report_to(reporter, parts.grpc_names));
        tracing::info!(service, http = %http_address, grpc = %grpc_address, "listening");
        Ok(Running { health: parts.health, http_address, grpc_address, stop, ports, reporting, on_stopped: Vec::new() })
    }

    async fn listen(&self, service: &str, port: &str, address: SocketAddr) -> Result<TcpListener, BindError> {
        let setting = format!("{}.{port}", service.replace('-', "_"));
        bind(address, &setting, self.authenticator.is_required()).await
    }
}

fn address_of(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(StartError::Address)
}

type Step = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A service that runs. Dropping it does not stop the service; [`Running::shutdown`] does.
pub struct Running {
    health: Health,
    http_address: SocketAddr,
    grpc_address: SocketAddr,
    stop: Shutdown,
    ports: [JoinHandle<usize>; 2],
    reporting: JoinHandle<()>,
    on_stopped: Vec<Step>,
}

/// How a shutdown went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Drained {
    /// Connections that were cut because they did not finish in time.
    pub connections_cut: usize,
}

impl Running {
    /// The service's name.
    #[must_use]
    pub fn service(&self) -> &'static str {
        self.health.service()
    }

    /// Where it serves HTTP.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Where it serves gRPC.
    #[must_use]
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// Its health.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Adds a step that runs once no request is under way any more: stopping own threads, flushing.
    #[must_use]
    pub fn on_stopped(mut self, step: impl Future<Output = ()> + Send + 'static) -> Self {
        self.on_stopped.push(Box::pin(step));
        self
    }

    /// Stops in the order that the module describes. Bounded by the drain timeout and the registered steps.
    pub async fn shutdown(self) -> Drained {
        let service = self.health.service();
        self.health.set_draining();
        self.stop.trigger();
        let mut connections_cut = 0;
        for port in self.ports {
            // A port that panicked has no connections left to count; its panic is logged.
            connections_cut += port.await.unwrap_or_default();
        }
        for step in self.on_stopped {
            step.await;
        }
        self.reporting.abort();
        tracing::info!(service, connections_cut, "stopped");
        Drained { connections_cut }
    }
}
