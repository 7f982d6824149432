//! The identity of a source, so that the same file sent again with the same options is known to be the same.

use std::{path::Path, time::SystemTime};

use super::source::is_stdin;
use crate::{args::IngestArgs, failure::Failure};

/// The producer id of a source: a hash of the file's path, size and time of change and of the options; random for stdin,
/// whose content cannot be known beforehand.
///
/// # Errors
/// The file cannot be looked at, or there is no randomness.
pub(crate) fn producer_id(args: &IngestArgs) -> Result<String, Failure> {
    if is_stdin(&args.file) {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| Failure::new(format!("no randomness: {error}")))?;
        return Ok(format!("stdin-{:032x}", u128::from_le_bytes(random)));
    }
    let hash = xxhash_rust::xxh3::xxh3_128(described(args)?.as_bytes());
    Ok(format!("file-{hash:032x}"))
}

/// All that makes a batch of this source what it is. Debug form: quoted and escaped, so that no two differ unseen.
fn described(args: &IngestArgs) -> Result<String, Failure> {
    let failed = |error| Failure::new(format!("cannot read {}: {error}", args.file.display()));
    let path = std::fs::canonicalize(&args.file).map_err(failed)?;
    let (size, changed) = state(&path).map_err(failed)?;
    let IngestArgs { namespace, table, format, time, id, dimensions, metrics, source, shift_to_now, batch, .. } = args;
    let options = (namespace, table, format, time, id, dimensions, metrics, source, shift_to_now, batch);
    Ok(format!("{path:?} {size} {changed:?} {options:?}"))
}

fn state(path: &Path) -> std::io::Result<(u64, SystemTime)> {
    let meta = std::fs::metadata(path)?;
    Ok((meta.len(), meta.modified()?))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn id(path: &Path, flags: &[&str]) -> String {
        let line = [&["truenow", "ingest", path.to_str().unwrap()], flags].concat();
        match Cli::parse_from(line).command {
            Command::Ingest(args) => producer_id(&args).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Goal: the identity stays while file and options do, and differs as soon as one of them does.
    #[test]
    fn identity_follows_file_and_options() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.ndjson");
        std::fs::write(&path, "{}\n").unwrap();
        let first = id(&path, &["--table", "t"]);
        assert_eq!(first, id(&path, &["--table", "t"]));
        assert_ne!(first, id(&path, &["--table", "u"]));
        assert_ne!(first, id(&path, &["--table", "t", "--batch", "7"]));
        std::fs::write(&path, "{}\n{}\n").unwrap();
        assert_ne!(first, id(&path, &["--table", "t"]));
        assert_ne!(id(Path::new("-"), &[]), id(Path::new("-"), &[]), "stdin is new each time");
    }
}
