//! `truenow serve`: any set of services in one process.
//!
//! Start of all services, in the order of dependence: metadata and log → catalog → hot tier → stream ingester → watermark →
//! query API → rebalancer → control plane → gateway: the way in opens last. Checkpoints are read beside that, so that events are
//! taken meanwhile; where they may not be gone on without, everything stops again. Stop: the same backwards, so that the gateway
//! drains first and what it acked is in the log before the log closes; the partitions' threads end last, wherever in the log
//! they are. The process of a cluster is in [`member`].

mod assigned;
mod compose;
mod data_dir;
mod engines;
mod log_size;
mod member;
mod nodes;
mod open_files;
mod reporter;
mod sources;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use config::{Config, ConfigError, Machine, Sources};
use service::{LevelFilter, LogsError, Metrics, Shutdown, init_logs};

use crate::{args::ServeArgs, outcome::note};
use compose::{ComposeError, Composed};
use data_dir::{DataDir, DataDirError};
use engines::Engines;

/// Why the process did not run.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Logs(#[from] LogsError),
    #[error("start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Compose(#[from] ComposeError),
}

/// Runs services until SIGTERM.
pub(crate) fn run(args: ServeArgs) -> ExitCode {
    match try_run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("error: {}", with_causes(&error)));
            ExitCode::FAILURE
        }
    }
}

fn try_run(args: ServeArgs) -> Result<(), ServeError> {
    let config = configuration(args)?;
    init_logs(log_format(&config), log_level(&config))?;
    open_files::allow_all();
    let _held = DataDir::hold(&config.data_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("network").build();
    let runtime = runtime.map_err(ServeError::Runtime)?;
    let opened = runtime.block_on(async {
        let shutdown = Shutdown::on_signals().map_err(ServeError::Runtime)?;
        let engines = tokio::select! {
            engines = Engines::open(&config) => Some(engines?),
            () = shutdown.wait() => None,
        };
        Ok::<_, ServeError>((shutdown, engines))
    });
    let (shutdown, engines) = opened?;
    let Some(engines) = engines else {
        // An engine is waited for on a thread that nothing can end, and so is the runtime by whoever drops it. What an engine does
        // while it opens outlives a crash.
        runtime.shutdown_background();
        return Ok(());
    };
    runtime.block_on(serve(&config, engines, &shutdown))
}

async fn serve(config: &Config, engines: Engines, shutdown: &Shutdown) -> Result<(), ServeError> {
    let mut composed = tokio::select! {
        composed = Composed::start(config, Metrics::install(), engines) => composed?,
        // A process of a cluster may wait for others at its start.
        () = shutdown.wait() => return Ok(()),
    };
    let outcome = tokio::select! {
        () = shutdown.wait() => Ok(()),
        error = composed.failed() => Err(error.into()),
    };
    composed.shutdown().await;
    outcome
}

fn configuration(args: ServeArgs) -> Result<Config, ConfigError> {
    let mut flags = Vec::new();
    let mut flag = |key: &str, value: Option<String>| flags.extend(value.map(|value| (key.to_owned(), value)));
    flag("data_dir", args.data_dir.map(|dir| dir.display().to_string()));
    flag("services", args.services.map(|services| services.join(",")));
    flag("port_offset", args.port_offset.map(|offset| offset.to_string()));
    Sources::read(args.config.as_deref(), std::env::vars(), flags)?.into_config(&Machine::detect())
}

fn log_format(config: &Config) -> service::LogFormat {
    match config.log.format {
        config::LogFormat::Json => service::LogFormat::Json,
        config::LogFormat::Text => service::LogFormat::Text,
    }
}

fn log_level(config: &Config) -> LevelFilter {
    match config.log.level {
        config::LogLevel::Error => LevelFilter::ERROR,
        config::LogLevel::Warn => LevelFilter::WARN,
        config::LogLevel::Info => LevelFilter::INFO,
        config::LogLevel::Debug => LevelFilter::DEBUG,
        config::LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// An error with all that caused it, on one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.ends_with(&cause) { text } else { format!("{text}: {cause}") }
    })
}
