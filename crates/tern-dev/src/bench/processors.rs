//! Gives the platform and the load generator processors of their own, so that only the platform is overloaded.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::cost::{self, Watched};
use super::target::GENERATOR;

/// Confines the servers to the lower half of this process's processors, and this process to the upper half. Returns a
/// text that says how many each has. Fails if there are fewer than two.
pub fn part(watched: &[Watched]) -> anyhow::Result<String> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let allowed: Vec<usize> = (0..CpuSet::count())
        .filter(|number| allowed.is_set(*number).unwrap_or(false))
        .collect();
    anyhow::ensure!(
        allowed.len() >= 2,
        "two processors are needed: one is the load generator's"
    );
    let (servers, generator) = allowed.split_at(allowed.len() / 2);
    let (load, platform): (Vec<Watched>, Vec<Watched>) = watched
        .iter()
        .cloned()
        .partition(|process| process.name == GENERATOR);
    confine(&platform, servers)?;
    confine(&load, generator)?;
    Ok(format!(
        "{} processors for the platform, {} for the load generator",
        servers.len(),
        generator.len()
    ))
}

/// Confines all threads of these processes to these processors.
fn confine(watched: &[Watched], processors: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    for number in processors {
        set.set(*number)?;
    }
    // There are two passes, because threads may be started during the first one.
    for _ in 0..2 {
        for thread in cost::threads(watched) {
            // An error is ignored, because it means that the thread has ended.
            let _ = sched_setaffinity(Pid::from_raw(thread), &set);
        }
    }
    Ok(())
}
