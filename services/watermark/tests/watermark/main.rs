//! The watermark service, started, between a log and a hot tier that stand in for the real ones.

mod ledger;
mod progress;
mod world;
