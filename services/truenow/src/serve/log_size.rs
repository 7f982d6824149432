//! How much disk the event log takes, as a metric: it only grows, so somebody has to see it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use metrics::{describe_gauge, gauge};
use tokio::time::MissedTickBehavior;

/// How often the directory is looked at.
const INTERVAL: Duration = Duration::from_secs(10);

/// Keeps the metric up to date; never returns.
pub(crate) async fn report(dir: PathBuf) {
    describe_gauge!("truenow_event_log_bytes", "Bytes of the event log's files.");
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let dir = dir.clone();
        // The disk is not waited for on a network thread.
        match tokio::task::spawn_blocking(move || bytes_in(&dir)).await {
            Ok(Ok(bytes)) => gauge!("truenow_event_log_bytes").set(bytes as f64),
            Ok(Err(error)) => tracing::warn!(%error, "look at the size of the event log"),
            // The process ends.
            Err(_) => return,
        }
    }
}

/// Bytes of the files of a directory. One that goes meanwhile counts nothing.
fn bytes_in(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        match entry?.metadata() {
            Ok(metadata) if metadata.is_file() => bytes += metadata.len(),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: all files count, and a directory that is not there is an error and not an empty log.
    #[test]
    fn all_files_count() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("1.log"), [0; 1_000]).unwrap();
        fs::write(dir.path().join("1.idx"), [0; 24]).unwrap();
        fs::create_dir(dir.path().join("other")).unwrap();
        assert_eq!(bytes_in(dir.path()).unwrap(), 1_024);
        assert!(bytes_in(&dir.path().join("none")).is_err());
    }
}
