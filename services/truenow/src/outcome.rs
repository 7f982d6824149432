//! How a command ended, as an exit code.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use crate::failure::Failure;

/// How a command ended that ran to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All went well.
    Well,
    /// It ran, and what it reported is not all well: rejected events, a probe that failed.
    NotAllWell,
}

/// The exit code of a command; a failure is written to stderr.
pub(crate) fn exit_code(result: Result<Outcome, Failure>) -> ExitCode {
    match result {
        Ok(Outcome::Well) => ExitCode::SUCCESS,
        Ok(Outcome::NotAllWell) => ExitCode::FAILURE,
        Err(failure) => {
            note(&failure.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Writes a line about how it goes to stderr. A closed stderr is nobody's loss.
pub(crate) fn note(line: &str) {
    let _closed = writeln!(io::stderr(), "{line}");
}

/// Writes an answer to stdout.
///
/// # Errors
/// Stdout cannot be written, a pipe closed by its reader apart: that reader has seen enough.
pub(crate) fn answer(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// A runtime for a command that talks to services.
///
/// # Errors
/// The system gives no threads.
pub(crate) fn runtime(threads: usize) -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start worker threads: {error}")))
}
