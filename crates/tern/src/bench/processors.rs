//! Processors of their own for the platform and for the load generator, so that what is overloaded is the platform.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::cost::{self, Watched};
use super::target::GENERATOR;

/// The lower half of the machine's processors for the servers, the upper for this process. Says how many each has.
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

fn confine(watched: &[Watched], processors: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    for number in processors {
        set.set(*number)?;
    }
    // Twice: a thread that was begun meanwhile.
    for _ in 0..2 {
        for thread in cost::threads(watched) {
            // One that has ended needs none.
            let _ = sched_setaffinity(Pid::from_raw(thread), &set);
        }
    }
    Ok(())
}
