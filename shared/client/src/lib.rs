//! Client of TrueNow: rows to columns, batching, idempotent retry, several batches in flight.
//!
//! 1. Rows become blocks here, one per partition of the table, so that the server takes them as they are: its cheapest
//!    way in. [`ColumnsWriter`] does that for one table; [`RowsWriter`] sends rows of any tables over one stream.
//! 2. A batch is sent until it is acked, with the same identity (producer and sequence) each time, so that it counts once
//!    however often it had to be sent. What the server refuses for good is an error, and nothing is sent after it.
//! 3. The number of batches under way is bounded: who pushes faster than the server acks, waits.
//! 4. What becomes a batch follows from the rows and the options alone, never from the clock, unless the caller flushes by
//!    [`ColumnsWriter::deadline`]. So a program that sends the same rows again after a crash sends the same batches.
//!
//! ```no_run
//! use truenow_client::{Client, Options, Row};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("http://127.0.0.1:9088", None).await?;
//! let mut writer = client.columns("shop", "events", Options::new("orders-import-7")).await?;
//! for n in 0..100_000_u64 {
//!     let id = n.to_string();
//!     writer
//!         .push(&Row {
//!             event_time: 1_754_772_362_000_000 + n as i64,
//!             event_id: Some(id.as_bytes()),
//!             dimensions: &[("region", "us-east"), ("product", "widget-a")],
//!             metrics: &[("revenue", 12.5)],
//!         })
//!         .await?;
//! }
//! let summary = writer.finish().await?;
//! println!("{} accepted; query with \"after\": {:?}", summary.accepted, summary.tokens);
//! # Ok(())
//! # }
//! ```

mod batch;
mod blocks;
mod columns;
mod connection;
mod error;
mod options;
mod retry;
mod rows;
mod summary;
mod tokens;
mod under_way;

pub use batch::Row;
pub use blocks::{BlocksWriter, IdentifiedBlock};
pub use columns::ColumnsWriter;
pub use connection::Client;
pub use error::{ClientError, PushError};
pub use options::Options;
pub use proto::v1::Event;
pub use retry::RetryPolicy;
pub use rows::RowsWriter;
pub use summary::{RejectedRow, Summary};
