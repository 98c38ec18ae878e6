//! Runs a child process with a log file and a process group of its own, so that a terminal's Ctrl-C reaches only its
//! owner. The process is killed when its handle is dropped and when its owner dies.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::sync::watch;

use crate::{orphan, secrets, until};

/// A child process. Dropping it kills it, unless it was started detached or [`Process::leave`] was called.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    log: PathBuf,
    exit: watch::Receiver<Option<ExitStatus>>,
    kill_on_drop: bool,
}

impl Process {
    /// Starts `command`, whose output is appended to the file `log`. The process dies with this one.
    pub fn spawn(name: &str, command: Command, log: &Path) -> anyhow::Result<Self> {
        Self::start(name, command, log, Some(Signal::SIGKILL))
    }

    /// Starts a process as [`Process::spawn`] does, but when this process dies the kernel sends it the signal
    /// `when_we_die` instead of SIGKILL.
    pub fn spawn_with(name: &str, command: Command, log: &Path, when_we_die: Signal) -> anyhow::Result<Self> {
        Self::start(name, command, log, Some(when_we_die))
    }

    /// Starts a process that outlives this one. Another process has to end it.
    pub fn spawn_detached(name: &str, command: Command, log: &Path) -> anyhow::Result<Self> {
        Self::start(name, command, log, None)
    }

    fn start(
        name: &str,
        mut command: Command,
        log: &Path,
        when_we_die: Option<Signal>,
    ) -> anyhow::Result<Self> {
        if let Some(dir) = log.parent() {
            secrets::private_dir(dir)?;
        }
        let out = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(log)
            .with_context(|| format!("open {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0);
        let program = command.as_std().get_program().to_owned();
        let mut child =
            orphan::spawn(command, when_we_die).with_context(|| format!("start {}", program.display()))?;
        let pid = child.id().context("a child just started has a pid")?;
        let (exited, exit) = watch::channel(None);
        tokio::spawn(async move {
            // An error means that somebody else has waited for the child: it has ended all the same.
            let status = child.wait().await.unwrap_or_default();
            exited.send_replace(Some(status));
        });
        Ok(Self {
            name: name.to_owned(),
            pid: Pid::from_raw(i32::try_from(pid)?),
            log: log.to_owned(),
            exit,
            kill_on_drop: when_we_die.is_some(),
        })
    }

    /// Returns the name given at the start.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Returns the path of the log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Returns the exit status, or `None` while the process runs.
    pub fn exited(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Waits until the process has ended, and returns its exit status.
    pub fn wait(&self) -> impl Future<Output = ExitStatus> + Send + use<> {
        let mut exit = self.exit.clone();
        async move {
            match exit.wait_for(Option::is_some).await {
                Ok(status) => status.unwrap_or_default(),
                Err(_) => ExitStatus::default(),
            }
        }
    }

    /// Sends a signal. Fails if the process has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        anyhow::ensure!(self.exited().is_none(), "{} has ended", self.name);
        kill(self.pid, signal).with_context(|| format!("{signal} to {}", self.name))
    }

    /// Sends SIGKILL, and waits until the process is gone.
    pub async fn kill(&self) -> anyhow::Result<()> {
        if self.exited().is_none() {
            self.signal(Signal::SIGKILL)?;
        }
        self.wait().await;
        Ok(())
    }

    /// Sends `signal`, waits at most `patience`, then kills the process. Returns whether it ended by itself in time.
    pub async fn end(&self, signal: Signal, patience: Duration) -> anyhow::Result<bool> {
        if self.exited().is_some() {
            return Ok(true);
        }
        self.signal(signal)?;
        if tokio::time::timeout(patience, self.wait()).await.is_ok() {
            return Ok(true);
        }
        self.kill().await?;
        Ok(false)
    }

    /// Leaves the process alone from now on: dropping the handle does not kill it.
    pub fn leave(&mut self) {
        self.kill_on_drop = false;
    }

    /// Waits for a line of the log that contains `text`, and returns it. Fails after `bound`; the error says if the
    /// process has ended.
    pub async fn line(&self, text: &str, bound: Duration) -> anyhow::Result<String> {
        until::some(&format!("{text:?} from {}", self.name), bound, || async {
            let ended = self.exited();
            let log = fs::read_to_string(&self.log)?;
            match log.lines().find(|line| line.contains(text)) {
                Some(line) => Ok(line.to_owned()),
                None if ended.is_some() => anyhow::bail!("it has ended"),
                None => anyhow::bail!("no such line"),
            }
        })
        .await
    }

    /// Waits until the server that the process runs is ready, as `ready` says. Returns false if the process has ended
    /// because another one had taken its port: the caller then starts it again with other ports. Any other end, and any
    /// error of `ready`, is an error with the last lines of the log.
    pub(crate) async fn serves(
        &self,
        ready: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<bool> {
        // The future is large where a client is in it, and would be in this one twice.
        let ready = Box::pin(ready);
        let outcome = tokio::select! {
            ready = ready => ready,
            status = self.wait() => Err(anyhow::anyhow!("it ended: {status}")),
        };
        match outcome {
            Ok(()) => Ok(true),
            Err(_) if self.exited().is_some() && self.tail(20).to_lowercase().contains("in use") => Ok(false),
            Err(error) => Err(error.context(format!("{}: {}", self.name, self.tail(10)))),
        }
    }

    /// Returns the last lines of the log.
    pub fn tail(&self, lines: usize) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.kill_on_drop && self.exited().is_none() {
            // An error means that the process has just ended.
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn alive(pid: i32) -> bool {
        // A killed child for which nobody has waited is a zombie: for this purpose it is gone.
        let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !status.is_empty() && !status.contains(") Z ")
    }

    #[tokio::test]
    async fn a_process_is_heard_stopped_continued_and_ended() {
        let dir = tempfile::tempdir().unwrap();
        let process = Process::spawn(
            "sh",
            shell("echo ready; exec sleep 3600"),
            &dir.path().join("log"),
        )
        .unwrap();
        assert_eq!(process.line("ready", BOUND).await.unwrap(), "ready");
        process.signal(Signal::SIGSTOP).unwrap();
        process.signal(Signal::SIGCONT).unwrap();
        assert!(process.end(Signal::SIGTERM, BOUND).await.unwrap());
        assert!(process.signal(Signal::SIGTERM).is_err());
    }

    #[tokio::test]
    async fn a_dropped_process_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let process = Process::spawn("sleep", shell("exec sleep 3600"), &dir.path().join("log")).unwrap();
        let pid = process.pid();
        drop(process);
        until::holds("gone", BOUND, || async { Ok(!alive(pid)) })
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_server_is_ready_or_finds_its_port_taken_or_fails() {
        let dir = tempfile::tempdir().unwrap();
        let run = |script| Process::spawn("server", shell(script), &dir.path().join("log")).unwrap();
        let up = run("exec sleep 3600");
        assert!(up.serves(std::future::ready(Ok(()))).await.unwrap());
        let never = std::future::pending;
        let broken = run("echo cannot; exit 3").serves(never()).await.unwrap_err();
        let text = format!("{broken:#}");
        assert!(
            text.starts_with("server: cannot") && text.contains("it ended"),
            "{text}"
        );
        let late = run("echo Address already in Use; exec sleep 3600");
        let late = late.serves(std::future::ready(Err(anyhow::anyhow!("not within 1 s"))));
        assert!(late.await.is_err(), "it runs");
        let taken = run("echo Address already in Use; exit 1");
        assert!(!taken.serves(never()).await.unwrap());
    }

    #[tokio::test]
    async fn a_line_that_cannot_come_any_more_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let process = Process::spawn("true", shell("exit 3"), &dir.path().join("log")).unwrap();
        assert_eq!(process.wait().await.code(), Some(3));
        assert!(process.line("ready", Duration::from_millis(100)).await.is_err());
    }

    /// Plays the owner for the test below, in a process of its own.
    #[tokio::test]
    #[ignore = "started by a_killed_owner_takes_its_process_with_it"]
    async fn owner() {
        let dir = std::env::var("OWNER_DIR").unwrap();
        let process =
            Process::spawn("sleep", shell("exec sleep 3600"), &Path::new(&dir).join("log")).unwrap();
        fs::write(Path::new(&dir).join("pid"), process.pid().to_string()).unwrap();
        process.wait().await;
    }

    #[tokio::test]
    async fn a_killed_owner_takes_its_process_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--ignored", "--exact", "process::tests::owner"])
            .env("OWNER_DIR", dir.path());
        let owner = Process::spawn("owner", command, &dir.path().join("owner.log")).unwrap();
        let pid = until::some("the pid", BOUND, || async {
            Ok(fs::read_to_string(dir.path().join("pid"))?.parse()?)
        });
        let pid: i32 = pid.await.unwrap();
        assert!(alive(pid));
        owner.kill().await.unwrap();
        until::holds("gone", BOUND, || async { Ok(!alive(pid)) })
            .await
            .unwrap();
    }
}
