//! Programs of people, on a platform of real processes.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use tern_local::{Platform, Shared};
use tern_tests::world;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long a program may take to print what a test waits for.
pub const BOUND: Duration = Duration::from_secs(60);

/// A platform, and the directories of the programs that people run on it.
pub struct Place {
    pub platform: Platform,
    pub dir: tempfile::TempDir,
}

impl Place {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tern = world::tern();
        let shared = Shared::get().await.unwrap();
        let platform = Platform::builder(&tern, &dir.path().join("dev"))
            .on(&shared)
            .media(1)
            // Nothing is refused because the machine is busy.
            .env("TERN_SHEDDING", "off")
            .start()
            .await
            .unwrap();
        // Clients read the gateways from this file, which `tern-dev dev` writes too.
        std::fs::write(
            dir.path().join("dev/gateways"),
            platform.gateway_urls().join("\n"),
        )
        .unwrap();
        Self { platform, dir }
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("chat")
    }

    fn program(&self, args: &[&str]) -> Command {
        let mut command = Command::new(world::tern());
        command
            .args(["chat", "--plain", "--dir"])
            .arg(self.dir.path().join("dev"))
            .arg("--data-dir")
            .arg(self.data())
            .args(args)
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs the program with these lines as its whole input. Returns its output.
    pub async fn pipe(&self, args: &[&str], lines: &str) -> Output {
        let mut child = self.program(args).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(lines.as_bytes()).await.unwrap();
        drop(input);
        tokio::time::timeout(BOUND, child.wait_with_output())
            .await
            .expect("it ends")
            .unwrap()
    }

    /// Two people: Alice has the chat with Bob open.
    pub async fn with_two() -> (Self, Session, Session) {
        let place = Self::new().await;
        let bob = place.user("bob").await;
        let alice = place.chat("alice", "bob").await;
        (place, alice, bob)
    }

    /// Starts the program of a person, and waits until it is connected.
    pub async fn user(&self, name: &str) -> Session {
        let mut session = self.open(&["--user", name]);
        session.shows("connected to").await;
        session
    }

    /// Starts the program of a person with the chat with another one open.
    pub async fn chat(&self, name: &str, other: &str) -> Session {
        let mut session = self.open(&["--user", name, "--to", other]);
        session.shows("chat with").await;
        session
    }

    /// Starts the program with these arguments.
    pub fn open(&self, args: &[&str]) -> Session {
        let mut child = self.program(args).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Session {
            input: child.stdin.take().unwrap(),
            lines,
            seen: Vec::new(),
            _child: child,
        }
    }

    /// Runs `tern admin` and checks that it succeeds.
    pub async fn admin(&self, args: &[&str]) {
        let output = Command::new(world::tern())
            .arg("admin")
            .args(args)
            .env("TERN_DEV_DIR", self.dir.path().join("dev"))
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }

    pub async fn end(self) {
        self.platform.abort().await.unwrap();
    }
}

/// A program that is running.
pub struct Session {
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    pub seen: Vec<String>,
    _child: Child,
}

impl Session {
    /// Types a line, and waits for a line that contains this text.
    pub async fn asks(&mut self, line: &str, text: &str) -> String {
        self.types(line).await;
        self.shows(text).await
    }

    pub async fn types(&mut self, line: &str) {
        self.input
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
    }

    /// Waits for a line that contains this text.
    pub async fn shows(&mut self, text: &str) -> String {
        let found = tokio::time::timeout(BOUND, async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("it goes on");
                self.seen.push(line.clone());
                if line.contains(text) {
                    return line;
                }
            }
        });
        found
            .await
            .unwrap_or_else(|_| panic!("no {text:?} in {:#?}", self.seen))
    }
}

/// Returns everything that a program has printed.
pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
