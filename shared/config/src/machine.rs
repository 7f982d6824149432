//! The size of the machine: processor cores and the memory that this process may use (its cgroup's limit counts).

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What defaults are derived from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Cores that this process may run on; at least 1.
    pub cores: u32,
    /// Memory that this process may use, bytes.
    pub memory_bytes: u64,
}

impl Machine {
    /// Looks at the machine that this process runs on.
    #[must_use]
    pub fn detect() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
        let page = rustix::param::page_size() as u64;
        let physical = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_memory(&text));
        let own_groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let limit = cgroup_limit(Path::new("/sys/fs/cgroup"), &own_groups);
        let memory_bytes = [physical, limit].into_iter().flatten().min();
        // A system that tells nothing at all gets the least that a node is useful with.
        Self { cores, memory_bytes: memory_bytes.unwrap_or(1 << 30).max(page) }
    }
}

/// `MemTotal` of `/proc/meminfo`, bytes.
fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// The least memory limit of the process's cgroups and their parents, bytes; version 1 and 2. `own_groups`: the text
/// of `/proc/self/cgroup`. A limit may be set at any level, and in a container the mount shows only the inner ones.
fn cgroup_limit(root: &Path, own_groups: &str) -> Option<u64> {
    let mut least: Option<u64> = None;
    for line in own_groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (mount, file) = match controllers {
            "" => (root.to_path_buf(), "memory.max"),
            controllers if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let limits = levels(&mount, group).into_iter().filter_map(|level| read_limit(&level.join(file)));
        least = limits.chain(least).min();
    }
    least
}

/// The directory of `group` below `mount` and all its parents up to the mount.
fn levels(mount: &Path, group: &str) -> Vec<PathBuf> {
    let inner = Path::new(group.trim_start_matches('/'));
    inner.ancestors().map(|part| mount.join(part)).collect()
}

/// A limit in bytes; `max` (version 2) and values near 2^63 (version 1) mean none.
fn read_limit(file: &Path) -> Option<u64> {
    let limit: u64 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (limit < 1 << 60).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the tightest limit among a group and its parents counts, in both versions, and "max" is none.
    #[test]
    fn the_tightest_limit_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("memory.max", "max\n");
        write("a/memory.max", "4096\n");
        write("a/b/memory.max", "8192\n");
        assert_eq!(cgroup_limit(root.path(), "0::/a/b\n"), Some(4096));
        assert_eq!(cgroup_limit(root.path(), "0::/\n"), None);

        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/c/memory.limit_in_bytes", "1000\n");
        assert_eq!(cgroup_limit(root.path(), "3:cpu,memory:/c\n2:pids:/a\n"), Some(1000));
        assert_eq!(cgroup_limit(root.path(), "3:cpu,memory:/hidden-outside\n"), None);
        assert_eq!(cgroup_limit(root.path(), "garbage"), None);
    }

    /// Goal: physical memory is read in bytes.
    #[test]
    fn total_memory_is_in_bytes() {
        assert_eq!(total_memory("MemTotal:       16 kB\nMemFree: 1 kB\n"), Some(16_384));
        assert_eq!(total_memory("nothing"), None);
    }
}
