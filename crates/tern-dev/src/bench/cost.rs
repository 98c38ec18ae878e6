//! Reads the processor time and the memory of processes from /proc.
//!
//! `utime` and `stime` of `/proc/<pid>/stat` add up to the time that the scheduler measured (as in
//! `/proc/<pid>/schedstat`), in ticks. They include threads and children that have ended, which schedstat does not.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use nix::unistd::{SysconfVar, sysconf};

/// A process to measure, and the name under which its cost is counted.
#[derive(Debug, Clone)]
pub struct Watched {
    /// The name, which several processes may share.
    pub name: String,
    /// The process id.
    pub pid: i32,
    /// True if its children are counted too, as for Postgres, which has a process for each connection.
    pub family: bool,
}

/// The processor seconds by name at one moment. The cost of a load is the difference of two snapshots.
#[derive(Debug, Clone)]
pub struct Snapshot {
    at: Instant,
    seconds: BTreeMap<String, f64>,
}

impl Snapshot {
    /// Reads the processor time of these processes. Processes that have ended count as 0.
    pub fn take(watched: &[Watched]) -> Self {
        let tick = 1.0 / sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64;
        let all = processes();
        let mut seconds: BTreeMap<String, f64> = BTreeMap::new();
        for process in watched {
            let ticks = match process.family {
                true => ticks_below(&all, process.pid),
                false => all.get(&process.pid).map_or(0, |process| process.own),
            };
            *seconds.entry(process.name.clone()).or_default() += ticks as f64 * tick;
        }
        Self {
            at: Instant::now(),
            seconds,
        }
    }

    /// Returns the seconds since an earlier snapshot, and the processor seconds that were spent in them, by name.
    pub fn since(&self, earlier: &Self) -> (f64, BTreeMap<String, f64>) {
        let spent = self.seconds.iter().map(|(name, seconds)| {
            let before = earlier.seconds.get(name).copied().unwrap_or_default();
            (name.clone(), (seconds - before).max(0.0))
        });
        (self.at.duration_since(earlier.at).as_secs_f64(), spent.collect())
    }
}

/// Returns this process's peak of resident memory since [`forget_peak`], in KiB. `None` if /proc does not say.
pub fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

/// Resets the peak of resident memory to its present size.
pub fn forget_peak() {
    // An error is ignored; the peak is then that of the whole run.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Returns the resident memory of a process in KiB, or `None` if it has ended.
pub fn resident_kib(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Returns the ids of all threads of the processes. Threads and processes that are started later inherit the processors
/// of the one that starts them.
pub fn threads(watched: &[Watched]) -> Vec<i32> {
    let all = processes();
    let pids = watched.iter().flat_map(|process| match process.family {
        true => family(&all, process.pid),
        false => vec![process.pid],
    });
    let tasks = pids.flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten());
    tasks
        .filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// Returns a process and all its descendants.
fn family(all: &BTreeMap<i32, Process>, pid: i32) -> Vec<i32> {
    let children = all
        .iter()
        .filter(|(child, process)| process.parent == pid && **child != pid);
    let descendants = children.flat_map(|(child, _)| family(all, *child));
    std::iter::once(pid).chain(descendants).collect()
}

/// Finds every `tern serve` and every Postgres server on this machine, to measure a platform that was started
/// elsewhere.
pub fn find() -> Vec<Watched> {
    let mut found = Vec::new();
    for (pid, process) in processes() {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let arguments: Vec<&str> = command
            .split(|byte| *byte == 0)
            .filter_map(|argument| std::str::from_utf8(argument).ok())
            .collect();
        let program = arguments.first().and_then(|path| path.rsplit('/').next());
        let name = match (program, arguments.get(1), arguments.get(2)) {
            (Some("tern"), Some(&"serve"), Some(roles)) => (*roles).to_owned(),
            (Some("postgres"), ..) if arguments.contains(&"-D") && process.parent_is_not_postgres => {
                "postgres".to_owned()
            }
            _ => continue,
        };
        let family = name == "postgres";
        found.push(Watched { name, pid, family });
    }
    found
}

/// The part of a process's `/proc/<pid>/stat` that is needed.
#[derive(Debug)]
struct Process {
    parent: i32,
    /// The processor time of the process itself, in ticks.
    own: u64,
    /// The processor time in ticks, including children that have ended and that this process has waited for.
    ticks: u64,
    parent_is_not_postgres: bool,
}

/// Returns all processes of this machine, by pid.
fn processes() -> BTreeMap<i32, Process> {
    let mut all = BTreeMap::new();
    let mut postgres = Vec::new();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        if let Some(process) = parse(&stat) {
            if stat.contains("(postgres)") {
                postgres.push(pid);
            }
            all.insert(pid, process);
        }
    }
    for process in all.values_mut() {
        process.parent_is_not_postgres = !postgres.contains(&process.parent);
    }
    all
}

/// Parses a line of `/proc/<pid>/stat` (proc(5)): fields 4 and 14 to 17. Field 2, the name, may contain anything,
/// even blanks and brackets.
fn parse(stat: &str) -> Option<Process> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<i64>().ok();
    let sum = |fields: std::ops::RangeInclusive<usize>| {
        let ticks: i64 = fields.filter_map(number).sum();
        u64::try_from(ticks).unwrap_or(0)
    };
    Some(Process {
        parent: i32::try_from(number(4)?).ok()?,
        own: sum(14..=15),
        ticks: sum(14..=17),
        parent_is_not_postgres: true,
    })
}

/// Returns the processor time of a process and all its descendants, in ticks.
fn ticks_below(all: &BTreeMap<i32, Process>, pid: i32) -> u64 {
    let family = family(all, pid);
    family
        .iter()
        .filter_map(|pid| all.get(pid))
        .map(|process| process.ticks)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_a_difficult_name_is_read() {
        let stat = "7 (a) b (c) S 3 7 7 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 5 6 7";
        let process = parse(stat).unwrap();
        assert_eq!((process.parent, process.own, process.ticks), (3, 30, 100));
        assert!(parse("nonsense").is_none());
    }

    #[test]
    fn work_done_here_is_counted() {
        let watched = [Watched {
            name: "this".to_owned(),
            pid: nix::unistd::getpid().as_raw(),
            family: false,
        }];
        let before = Snapshot::take(&watched);
        // The machine decides how much work takes so long. All of it takes longer on any.
        let mut sum = 0_u64;
        let counted = (0..10_000).any(|_| {
            for _ in 0..1_000_000 {
                sum = std::hint::black_box(sum.wrapping_add(1));
            }
            let (_, spent) = Snapshot::take(&watched).since(&before);
            spent["this"] > 0.02
        });
        assert!(counted);
        assert!(resident_kib(watched[0].pid).unwrap() > 1000);
    }
}
