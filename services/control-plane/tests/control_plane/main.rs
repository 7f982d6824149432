//! The control plane over a log and a hot tier that stand in for the real ones.

mod catalog;
mod cluster;
mod following;
mod http;
mod support;
