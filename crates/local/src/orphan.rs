//! Children that die with their parent, also when it is killed.

use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};

use nix::sys::signal::Signal;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

/// Starts `command`; the kernel sends `when_we_die` to it when we end. Elsewhere than on Linux a killed parent leaves
/// its children behind.
pub fn spawn(mut command: Command, when_we_die: Option<Signal>) -> io::Result<Child> {
    let Some(signal) = when_we_die else {
        return command.spawn();
    };
    arm(&mut command, signal);
    let runtime = Handle::current();
    let (done, result) = sync_channel(1);
    nursery()
        .send(Box::new(move || {
            let _entered = runtime.enter();
            // The receiver waits below.
            let _ = done.send(command.spawn());
        }))
        .map_err(|_| io::Error::other("the thread that starts children has ended"))?;
    result
        .recv()
        .map_err(|_| io::Error::other("the thread that starts children has ended"))?
}

type Job = Box<dyn FnOnce() + Send>;

/// "Parent" is a thread to the kernel, so all children are started by one that never ends. Those of a runtime may.
fn nursery() -> &'static SyncSender<Job> {
    static NURSERY: OnceLock<SyncSender<Job>> = OnceLock::new();
    NURSERY.get_or_init(|| {
        // Rendezvous: who sends waits for the result anyway.
        let (jobs, inbox) = sync_channel::<Job>(0);
        std::thread::spawn(move || inbox.iter().for_each(|job| job()));
        jobs
    })
}

#[cfg(target_os = "linux")]
#[allow(
    unsafe_code,
    reason = "what runs between fork and exec cannot be made safe; it is two system calls"
)]
fn arm(command: &mut Command, signal: Signal) {
    let parent = nix::unistd::getpid();
    let arm = move || {
        nix::sys::prctl::set_pdeathsig(signal)?;
        // The parent may have gone before the line above.
        if nix::unistd::getppid() == parent {
            Ok(())
        } else {
            Err(io::ErrorKind::NotConnected.into())
        }
    };
    // SAFETY: the closure calls prctl and getppid only, which are async-signal-safe, and does not allocate.
    unsafe {
        command.pre_exec(arm);
    }
}

#[cfg(not(target_os = "linux"))]
fn arm(_command: &mut Command, _signal: Signal) {}
