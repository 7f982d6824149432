//! A benchmark for every stage, with its cost per event; and what those share that ask a real server.

mod connection;
pub mod report;
mod server;
pub mod svg;
pub mod workload;

use std::error::Error;

pub use connection::Connection;
pub use report::line;
pub use server::{Server, ServerArgs};

/// Why there is no result.
pub type Failure = Box<dyn Error + Send + Sync>;
