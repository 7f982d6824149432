//! How many files the process may have open: connections, the log, and identities that have left memory.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit that the process begins with to the one that its user may set. Shells begin at about a thousand for the sake of
/// programs that use `select`, which none of ours does.
pub(super) fn allow_all() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::debug!(from = current, to = maximum, "open files: limit raised"),
        Err(error) => tracing::warn!(%error, limit = current, "open files: the limit cannot be raised"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: whatever limit the process begins with, it has all that it may have.
    #[test]
    fn the_limit_is_raised() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let most = maximum.unwrap_or(1 << 20);
        setrlimit(Resource::Nofile, Rlimit { current: Some(most - 1), maximum }).unwrap();
        allow_all();
        assert_eq!(getrlimit(Resource::Nofile).current, maximum);
    }
}
