//! Starts child processes that die with their parent, even if the parent is killed.

use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};

use nix::sys::signal::Signal;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

/// Starts `command`. If `when_we_die` is given, the kernel sends the child this signal when this process ends. On other
/// systems than Linux, a killed parent leaves its children behind.
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
            // The receiver waits below, so the send succeeds.
            let _ = done.send(command.spawn());
        }))
        .map_err(|_| io::Error::other("the thread that starts children has ended"))?;
    result
        .recv()
        .map_err(|_| io::Error::other("the thread that starts children has ended"))?
}

type Job = Box<dyn FnOnce() + Send>;

/// Returns the channel to the thread that starts the children. For the kernel, the parent of a process is the thread
/// that started it. All children are therefore started by one thread that never ends; a thread of a runtime may end.
fn nursery() -> &'static SyncSender<Job> {
    static NURSERY: OnceLock<SyncSender<Job>> = OnceLock::new();
    NURSERY.get_or_init(|| {
        // A rendezvous channel: the sender waits for the result anyway.
        let (jobs, inbox) = sync_channel::<Job>(0);
        std::thread::spawn(move || inbox.iter().for_each(|job| job()));
        jobs
    })
}

/// Makes the child ask the kernel for `signal` at the death of its parent, before it runs its program.
#[cfg(target_os = "linux")]
#[allow(
    unsafe_code,
    reason = "what runs between fork and exec cannot be made safe; it is two system calls"
)]
fn arm(command: &mut Command, signal: Signal) {
    let parent = nix::unistd::getpid();
    let arm = move || {
        nix::sys::prctl::set_pdeathsig(signal)?;
        // The parent may have ended before the line above.
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
