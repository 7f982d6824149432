//! Lifecycle of a service: sockets, limits, logs, metrics, health, ordered shutdown.
