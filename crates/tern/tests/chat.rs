//! `tern chat` in plain lines, against a platform of real processes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tern_local::{Platform, Shared};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

const BOUND: Duration = Duration::from_secs(60);

struct Place {
    platform: Platform,
    dir: tempfile::TempDir,
}

impl Place {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tern = Path::new(env!("CARGO_BIN_EXE_tern"));
        let shared = Shared::get().await.unwrap();
        let platform = Platform::builder(tern, &dir.path().join("dev"))
            .on(&shared)
            .media(1)
            .start()
            .await
            .unwrap();
        // As `tern dev` does.
        std::fs::write(
            dir.path().join("dev/gateways"),
            platform.gateway_urls().join("\n"),
        )
        .unwrap();
        Self { platform, dir }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("chat")
    }

    fn program(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tern"));
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

    /// Pipes lines in, and waits for the end.
    async fn pipe(&self, args: &[&str], lines: &str) -> Output {
        let mut child = self.program(args).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(lines.as_bytes()).await.unwrap();
        drop(input);
        tokio::time::timeout(BOUND, child.wait_with_output())
            .await
            .expect("it ends")
            .unwrap()
    }

    fn open(&self, args: &[&str]) -> Session {
        let mut child = self.program(args).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Session {
            input: child.stdin.take().unwrap(),
            lines,
            seen: Vec::new(),
            _child: child,
        }
    }

    async fn end(self) {
        self.platform.abort().await.unwrap();
    }
}

/// A program that runs.
struct Session {
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    seen: Vec<String>,
    _child: Child,
}

impl Session {
    async fn types(&mut self, line: &str) {
        self.input
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
    }

    /// Waits for a line that contains this.
    async fn shows(&mut self, text: &str) -> String {
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

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test]
async fn two_people_chat_from_their_first_start_to_the_next() {
    let place = Place::new().await;
    let nobody = place.pipe(&["--user", "alice", "--to", "bob"], "hello?\n").await;
    assert!(
        text(&nobody).contains("nobody is called bob yet"),
        "{}",
        text(&nobody)
    );

    let mut bob = place.open(&["--user", "bob"]);
    bob.shows("connected to").await;
    let hundred: String = (0..100).map(|number| format!("line {number}\n")).collect();
    let alice = place.pipe(&["--user", "alice", "--to", "bob"], &hundred).await;
    assert!(alice.status.success(), "{}", text(&alice));
    bob.shows("line 99").await;
    let heard: Vec<&String> = bob
        .seen
        .iter()
        .filter(|line| line.contains("Alice: line"))
        .collect();
    assert_eq!(heard.len(), 100);
    for (number, line) in heard.iter().enumerate() {
        assert!(
            line.ends_with(&format!("(Alice) Alice: line {number}")),
            "{number}: {line}"
        );
    }

    let mut alice = place.open(&["--user", "alice", "--to", "bob"]);
    alice.shows("you: line 99").await;
    bob.types("/chat alice").await;
    bob.shows("Alice: line 99").await;
    bob.types("a hundred!").await;
    alice.shows("Bob: a hundred!").await;
    bob.shows("✓✓ read").await;

    alice.types("/group \"tea party\" bob").await;
    bob.shows("(tea party) * Alice made the group “tea party”").await;
    alice.shows("chat with tea party").await;
    alice.types("//welcome").await;
    bob.shows("(tea party) Alice: /welcome").await;
    alice.types("/nonsense").await;
    alice.shows("there is no /nonsense").await;
    place.end().await;
}

#[tokio::test]
async fn people_are_blocked_and_settings_made_by_typing() {
    let place = Place::new().await;
    let mut bob = place.open(&["--user", "bob"]);
    bob.shows("connected to").await;
    let mut alice = place.open(&["--user", "alice", "--to", "bob"]);
    alice.shows("chat with Bob").await;
    alice.types("hello").await;
    bob.shows("Alice: hello").await;
    alice.types("/block bob").await;
    alice.shows("bob is blocked").await;
    alice.types("/blocked").await;
    alice.shows("blocked: Bob").await;
    bob.types("/chat alice").await;
    bob.shows("Alice: hello").await;
    bob.types("are you there?").await;
    bob.shows("not accepted").await;
    alice.types("/unblock bob").await;
    alice.shows("bob is not blocked").await;
    bob.types("and now?").await;
    alice.shows("Bob: and now?").await;

    alice.types("/contacts bob").await;
    alice.shows("contacts: Bob").await;
    alice.types("/forget bob").await;
    alice.shows("bob is no contact").await;
    alice.types("/contacts").await;
    alice.shows("contacts: nobody").await;
    alice.types("/privacy").await;
    alice
        .shows("seen online by contacts and people you wrote to; read receipts on")
        .await;
    alice.types("/privacy nobody receipts off").await;
    alice.shows("seen online by nobody; read receipts off").await;
    alice.types("/privacy receipts on").await;
    alice.shows("seen online by nobody; read receipts on").await;
    place.end().await;
}

#[tokio::test]
async fn what_cannot_work_is_said_in_words() {
    let place = Place::new().await;
    let mut alice = place.open(&["--user", "alice"]);
    alice.shows("connected to").await;
    let twice = place.pipe(&["--user", "alice"], "hi\n").await;
    assert!(
        !twice.status.success() && text(&twice).contains("another program has this device open"),
        "{}",
        text(&twice)
    );

    let laptop = place
        .pipe(&["--user", "alice", "--device", "laptop"], "/who\n")
        .await;
    assert!(
        laptop.status.success() && text(&laptop).contains("no chat is open"),
        "{}",
        text(&laptop)
    );
    assert!(place.data().join("alice-laptop.db").exists());

    // A gateway of one's own choice never gets the development key.
    let url = place.platform.gateway_url(0);
    let strange = place.pipe(&["--user", "carol", "--server", &url], "hi\n").await;
    assert!(
        !strange.status.success() && text(&strange).contains("--api-key"),
        "{}",
        text(&strange)
    );
    place.end().await;
}

#[tokio::test]
async fn files_are_sent_saved_and_sent_on() {
    let place = Place::new().await;
    let dir = place.dir.path();
    let picture: Vec<u8> = (0..700_000_u64).map(|at| ((at * at) >> 7) as u8).collect();
    std::fs::write(dir.join("beach.png"), &picture).unwrap();
    for name in ["bob", "carol"] {
        place.pipe(&["--user", name], "").await;
    }
    let mut bob = place.open(&["--user", "bob"]);
    let mut carol = place.open(&["--user", "carol"]);
    bob.shows("connected to").await;
    carol.shows("connected to").await;
    // Its input ends at once: it leaves when the file is sent.
    let send = format!("/send {}\n", dir.join("beach.png").display());
    let alice = place.pipe(&["--user", "alice", "--to", "bob"], &send).await;
    let said = text(&alice);
    assert!(
        alice.status.success() && said.contains("sending beach.png ▕"),
        "{said}"
    );
    assert!(said.contains("100 % of"), "{said}");

    bob.shows("(Alice) Alice: [beach.png · 700.0 kB · /save 1]").await;
    bob.types("/chat alice").await;
    bob.shows("] Alice: [beach.png").await;
    bob.types("/save 9").await;
    bob.shows("message 9 of this chat has no files here").await;
    let saved = dir.join("saved.png");
    bob.types(&format!("/save 1 {}", saved.display())).await;
    bob.shows("saved ").await;
    assert_eq!(std::fs::read(&saved).unwrap(), picture);

    bob.types("/chat carol").await;
    bob.shows("chat with Carol").await;
    bob.types("/chat alice").await;
    bob.types("/forward 1 carol").await;
    carol.shows("Bob: [beach.png").await;
    bob.types("/send nothing-there.png").await;
    bob.shows("nothing-there.png: No such file").await;
    place.end().await;
}
