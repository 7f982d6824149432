//! The settings of a process of a cluster.

use std::{net::IpAddr, time::Duration};

use types::NodeId;

use super::{out_of_range, secret};
use crate::{ConfigError, Secret, ServiceName, settings::RawConfig};

/// Replicas of a partition where nothing is said, and at most.
const REPLICAS_DEFAULT: u32 = 2;
const REPLICAS_MAX: u32 = 16;
/// How long the source of a move holds what it gave away: longer than the longest query, and than a map takes to be heard of.
const HANDOVER_GRACE_MS_DEFAULT: u64 = 65_000;
const HANDOVER_GRACE_MS_MAX: u64 = 3_600_000;
/// Nodes of the hot tier, at most.
const NODES_MAX: u32 = 100_000;

/// What a process is told of the cluster that it belongs to.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// The secret that all its processes share.
    pub key: Secret,
    /// `host:port` of the gRPC of each control plane; empty where this process is one.
    pub control_planes: Vec<String>,
    /// Which node of the hot tier this is, where it is one.
    pub node: Option<NodeId>,
    /// Where it stands; what stands in one zone may fail together.
    pub zone: Option<String>,
    /// The host under which other processes reach this one.
    pub advertise: String,
    /// How many nodes hold each partition, as far as there are so many.
    pub replicas: usize,
    /// How many nodes must be there before partitions are placed for the first time.
    pub nodes_first: usize,
    /// How long the source of a move holds its partition after the target has taken over.
    pub handover_grace: Duration,
}

/// The cluster, if this process belongs to one: it runs some of the services alone, or names a control plane.
pub(super) fn cluster(
    raw: &RawConfig,
    bind: IpAddr,
    services: &[ServiceName],
) -> Result<Option<ClusterConfig>, ConfigError> {
    let key = secret("cluster_key", raw.general.cluster_key.clone())?;
    let raw = &raw.cluster;
    let is_part = services.len() < ServiceName::ALL.len();
    if !is_part && raw.control_plane.is_none() {
        return Ok(None);
    }
    let runs = |service: ServiceName| services.contains(&service);
    if runs(ServiceName::HotTier) != runs(ServiceName::StreamIngester) {
        let names = services.iter().map(|service| service.name()).collect::<Vec<_>>().join(",");
        return Err(out_of_range("", "services", names, "hot-tier and stream-ingester must run in one process"));
    }
    let missing = |section, name, expected: &str| Err(out_of_range(section, name, "not set", expected));
    let Some(key) = key else {
        return missing("", "cluster_key", "every process of a cluster must have the cluster's key");
    };
    let control_planes: Vec<String> = raw
        .control_plane
        .iter()
        .flat_map(|list| list.split(','))
        .map(|address| address.trim().to_owned())
        .filter(|address| !address.is_empty())
        .collect();
    if control_planes.is_empty() && !runs(ServiceName::ControlPlane) {
        let expected = "a process without a control plane must be told where one is, such as 10.0.0.1:9080";
        return missing("cluster", "control_plane", expected);
    }
    if runs(ServiceName::HotTier) && raw.node_id.is_none() {
        return missing("cluster", "node_id", "a process with a hot tier must have a number of its own in the cluster");
    }
    Ok(Some(ClusterConfig {
        key,
        control_planes,
        node: raw.node_id.filter(|_| runs(ServiceName::HotTier)).map(NodeId),
        zone: raw.zone.clone().filter(|zone| !zone.is_empty()),
        advertise: advertise(raw.advertise.clone(), bind)?,
        replicas: count("replicas", raw.replicas, REPLICAS_DEFAULT, REPLICAS_MAX)?,
        nodes_first: count("nodes_first", raw.nodes_first, 1, NODES_MAX)?,
        handover_grace: handover_grace(raw.handover_grace_ms)?,
    }))
}

fn advertise(given: Option<String>, bind: IpAddr) -> Result<String, ConfigError> {
    match given {
        Some(host) if !host.is_empty() => Ok(host),
        _ if bind.is_unspecified() => {
            let expected =
                "with an address of bind that stands for all, others must be told the host to reach this one by";
            Err(out_of_range("cluster", "advertise", "not set", expected))
        }
        _ if bind.is_ipv6() => Ok(format!("[{bind}]")),
        _ => Ok(bind.to_string()),
    }
}

fn handover_grace(given: Option<u64>) -> Result<Duration, ConfigError> {
    let value = given.unwrap_or(HANDOVER_GRACE_MS_DEFAULT);
    if value > HANDOVER_GRACE_MS_MAX {
        let expected = format!("must be at most {HANDOVER_GRACE_MS_MAX}");
        return Err(out_of_range("cluster", "handover_grace_ms", value, expected));
    }
    Ok(Duration::from_millis(value))
}

fn count(name: &'static str, given: Option<u32>, default: u32, max: u32) -> Result<usize, ConfigError> {
    let value = given.unwrap_or(default);
    if !(1..=max).contains(&value) {
        return Err(out_of_range("cluster", name, value, format!("must be from 1 to {max}")));
    }
    Ok(value as usize)
}
