//! Typed configuration, read once: defaults < `truenow.toml` < environment < flags.
//!
//! 1. Only this crate reads configuration, and only at the start; all others get plain, valid values.
//! 2. An unknown key or a bad value stops the start with an error that names the key, the value and what is right.
//! 3. The environment, the file's text and the machine's size are arguments, so that every case can be tested.

mod config;
mod error;
mod load;
mod machine;
mod names;
mod secret;
mod settings;

pub use config::{
    ClusterConfig, Config, ControlPlaneConfig, EventLogConfig, GatewayConfig, HotTierConfig, HttpConfig, KafkaConfig,
    LogConfig, MetadataLocation, QueryApiConfig, ServiceAddresses, StreamIngesterConfig,
};
pub use error::ConfigError;
pub use load::{FILE_DEFAULT, Sources};
pub use machine::Machine;
pub use names::{Compression, LogFormat, LogLevel, ServiceName};
pub use secret::Secret;
pub use settings::{Key, keys};
