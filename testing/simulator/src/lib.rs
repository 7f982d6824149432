//! The write path, from the append to the rows that a reader sees, under a virtual clock and a disk that fails; one seed, one
//! history; the oracle is a plain map. README.md beside this crate says what is real in it and what is not.

mod catalog;
mod check;
mod clients;
mod disk;
mod events;
mod failure;
mod life;
mod oracle;
mod plant;
mod profile;
mod random;
mod report;
mod rollups;
mod run;
pub mod scale;

pub use failure::Failure;
pub use plant::Plant;
pub use report::Report;
pub use run::run;
