//! The contract between services: protocol buffers, generated code, one trait per boundary.
//!
//! In one process a service gets the other's trait object and calls it directly; between processes the same trait is a
//! network client.

pub mod catalog;
pub mod checkpoints;
pub mod dead_letters;
pub mod hot_tier;
pub mod members;
pub mod node_state;
pub mod progress;
pub mod wire;

/// Generated from `proto/truenow/internal/v1/*.proto`: what processes of one cluster say to each other.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines, reason = "generated code")]
pub mod internal {
    tonic::include_proto!("truenow.internal.v1");
}

/// Generated from `proto/truenow/v1/*.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("truenow.v1");

    /// Descriptors of all messages and services, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("truenow_descriptor");
}
