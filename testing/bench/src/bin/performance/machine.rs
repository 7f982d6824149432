//! The machine and what else it has to do.

use std::{fs, process::Command, thread, time::Duration};

/// Averages of the load, tasks that run, and all tasks.
pub(crate) fn load() -> String {
    fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').take(4).collect::<Vec<_>>().join(" ")
}

/// The share of all cores' time that is taken, looked at for a second in which this process does nothing.
pub(crate) fn taken() -> f64 {
    let before = ticks();
    thread::sleep(Duration::from_secs(1));
    let after = ticks();
    let (all, idle) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
    1.0 - idle as f64 / all.max(1) as f64
}

/// Ticks of all cores since the system began, and those of them without work (`/proc/stat`: idle and waiting for a disk).
fn ticks() -> (u64, u64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let of_all = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = of_all.split_whitespace().skip(1).take(8).filter_map(|ticks| ticks.parse().ok()).collect();
    (ticks.iter().sum(), ticks.iter().skip(3).take(2).sum())
}

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What it is, a line each: name and value.
pub(crate) fn description() -> Vec<(&'static str, String)> {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    let memory = field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0.0) / f64::from(1 << 20);
    let flags = field("/proc/cpuinfo", "flags");
    let vectors = ["avx512f", "avx2", "sse4_2"].into_iter().find(|name| flags.split(' ').any(|flag| flag == *name));
    let hypervisor = if flags.split(' ').any(|flag| flag == "hypervisor") { ", virtual" } else { "" };
    vec![
        ("processor", format!("{} cores of {}{hypervisor}", cores(), field("/proc/cpuinfo", "model name"))),
        ("widest vectors", vectors.unwrap_or("none known").to_owned()),
        ("memory", format!("{memory:.1} GiB")),
        ("system", said("uname", &["-sr"])),
        ("compiler", said("rustc", &["--version"])),
        ("commit", said("git", &["log", "-1", "--format=%h of %cs"])),
        ("measured", said("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
    ]
}

/// What a program says, or that it does not.
fn said(program: &str, args: &[&str]) -> String {
    match Command::new(program).args(args).output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "not known".to_owned(),
    }
}
