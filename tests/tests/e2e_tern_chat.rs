//! `tern-dev chat --plain` against a platform of real processes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use tern_local::{Platform, Shared};
use tern_tests::world;
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
        let tern = world::tern();
        let shared = Shared::get().await.unwrap();
        let platform = Platform::builder(&tern, &dir.path().join("dev"))
            .on(&shared)
            .media(1)
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

    fn data(&self) -> PathBuf {
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

    /// Runs `tern admin` and checks that it succeeds.
    async fn admin(&self, args: &[&str]) {
        let output = Command::new(world::tern())
            .arg("admin")
            .args(args)
            .env("TERN_DEV_DIR", self.dir.path().join("dev"))
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }

    async fn end(self) {
        self.platform.abort().await.unwrap();
    }
}

/// A program that is running.
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

    /// Waits for a line that contains this text.
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
    bob.shows("no messages pass between the two of you").await;
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

    // The development key is never sent to a gateway that was named by hand.
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
    // The input ends at once; the program ends when the file is sent.
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
    bob.types(&format!("/picture {}", dir.join("beach.png").display()))
        .await;
    bob.shows("this is your picture now").await;
    bob.types("/picture nothing-there.png").await;
    bob.shows("nothing-there.png: No such file").await;
    bob.types("/forward 1 carol").await;
    carol.shows("Bob: [beach.png").await;
    bob.types("/send nor-there.png").await;
    bob.shows("nor-there.png: No such file").await;
    place.end().await;
}

#[tokio::test]
async fn owners_hand_over_and_leave_and_who_is_out_is_told_so() {
    let place = Place::new().await;
    let mut bob = place.open(&["--user", "bob"]);
    let mut carol = place.open(&["--user", "carol"]);
    bob.shows("connected to").await;
    carol.shows("connected to").await;
    let mut alice = place.open(&["--user", "alice", "--to", "bob"]);
    alice.shows("chat with Bob").await;
    alice.types("/group lunch bob carol").await;
    alice.shows("chat with lunch").await;
    bob.shows("made the group “lunch”").await;
    alice.types("/role bob admin").await;
    bob.shows("made you admin").await;
    alice.types("/leave").await;
    alice.shows("you are its only owner: /leave bob").await;
    alice.types("/leave bob").await;
    bob.shows("made you owner").await;
    bob.shows("Alice left").await;
    alice.shows("you left").await;
    alice.types("still there?").await;
    // Either the program or the chat node refuses the message, whichever knows first that she has left.
    alice.shows("you are not in this ").await;

    carol.types("/chat lunch").await;
    carol.shows("] * Alice left").await;
    carol.types("/role bob member").await;
    let refused = carol.shows("your role here does not allow it").await;
    assert!(!refused.contains("Role"), "{refused}");
    place.end().await;
}

#[tokio::test]
async fn a_refused_message_is_sent_again_or_deleted() {
    let place = Place::new().await;
    let mut bob = place.open(&["--user", "bob"]);
    bob.shows("connected to").await;
    let mut alice = place.open(&["--user", "alice", "--to", "bob"]);
    alice.shows("chat with Bob").await;
    alice.types("hello").await;
    bob.shows("Alice: hello").await;
    bob.types("/block alice").await;
    bob.shows("alice is blocked").await;
    alice.types("first").await;
    alice
        .shows("! not sent: no messages pass between the two of you")
        .await;
    alice.types("second").await;
    alice.shows("! not sent").await;
    bob.types("/unblock alice").await;
    bob.shows("alice is not blocked").await;
    alice.types("/delete").await;
    alice.types("/retry").await;
    bob.shows("Alice: first").await;
    alice.types("/retry").await;
    alice.shows("no such message of yours was refused here").await;
    assert!(
        !bob.seen.iter().any(|line| line.contains("second")),
        "{:?}",
        bob.seen
    );
    place.end().await;
}

#[tokio::test]
async fn files_go_to_the_downloads_and_the_path_is_said() {
    let place = Place::new().await;
    let dir = place.dir.path();
    std::fs::write(dir.join("note.txt"), "hello").unwrap();
    place.pipe(&["--user", "bob"], "").await;
    let send = format!("/send {}\n", dir.join("note.txt").display());
    let alice = place.pipe(&["--user", "alice", "--to", "bob"], &send).await;
    assert!(alice.status.success(), "{}", text(&alice));
    let downloads = dir.join("Downloads");
    let mut bob = place.open(&["--user", "bob", "--downloads", downloads.to_str().unwrap()]);
    bob.shows("Alice: [note.txt").await;
    bob.types("/chat alice").await;
    bob.shows("] Alice: [note.txt").await;
    for name in ["note.txt", "note (1).txt"] {
        bob.types("/save 1").await;
        let path = downloads.join(name);
        bob.shows(&format!("saved {}", path.display())).await;
        assert_eq!(std::fs::read(&path).unwrap(), b"hello");
    }
    place.end().await;
}

/// Alice watches Bob before he has written to her. His presence is hidden from her until he has.
#[tokio::test]
async fn presence_shows_once_two_people_are_acquainted() {
    let place = Place::new().await;
    let mut bob = place.open(&["--user", "bob"]);
    bob.shows("connected to").await;
    let mut alice = place.open(&["--user", "alice", "--to", "bob"]);
    alice.shows("chat with Bob").await;
    bob.types("/chat alice").await;
    bob.shows("chat with Alice").await;
    bob.types("hello").await;
    alice.shows("Bob: hello").await;
    alice.types("hello yourself").await;
    alice.shows("Bob is online").await;
    place.end().await;
}

/// The program of a suspended user goes on, and connects again after the user was resumed.
#[tokio::test]
async fn suspension_is_a_state_and_not_the_end() {
    let place = Place::new().await;
    let mut bob = place.open(&["--user", "bob"]);
    bob.shows("connected to").await;
    let mut alice = place.open(&["--user", "alice", "--to", "bob"]);
    alice.shows("chat with Bob").await;
    alice.types("hello").await;
    bob.shows("Alice: hello").await;
    place.admin(&["users", "suspend", "alice"]).await;
    alice
        .shows("the operator keeps you out for now; /connect tries again")
        .await;
    alice.types("kept?").await;
    alice.shows("there is no connection: /connect begins anew").await;
    alice.types("/connect").await;
    alice
        .shows("the operator keeps you out for now; /connect tries again")
        .await;
    place.admin(&["users", "resume", "alice"]).await;
    alice.types("/connect").await;
    alice.shows("connected to").await;
    alice.types("here I am").await;
    bob.shows("Alice: here I am").await;
    place.end().await;
}

/// The program runs on a terminal that `script` provides. When a signal tells it to end, it restores the screen and the
/// terminal's modes.
#[tokio::test]
async fn the_terminal_is_given_back_when_the_program_is_told_to_end() {
    let place = Place::new().await;
    place.pipe(&["--user", "alice"], "").await;
    let dir = place.dir.path();
    let command = format!(
        "stty rows 30 cols 120; echo PID $$; exec {} chat --user alice --dir {} --data-dir {}",
        world::tern().display(),
        dir.join("dev").display(),
        place.data().display(),
    );
    let mut terminal = Command::new("script")
        .args(["--quiet", "--return", "--flush", "--command"])
        .arg(format!("sh -c '{command}'; echo; stty -a"))
        .arg("/dev/null")
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("script, of util-linux");
    let mut output = terminal.stdout.take().unwrap();
    let mut seen = Vec::new();
    let mut told = false;
    tokio::time::timeout(BOUND, async {
        let mut part = [0; 4096];
        loop {
            let read = tokio::io::AsyncReadExt::read(&mut output, &mut part)
                .await
                .unwrap();
            if read == 0 {
                break;
            }
            seen.extend_from_slice(&part[..read]);
            let text = String::from_utf8_lossy(&seen);
            if !told && text.contains(OPEN_SCREEN) && text.contains("Ctrl-C: leave") {
                let pid = text
                    .split("PID ")
                    .nth(1)
                    .and_then(|rest| rest.split_whitespace().next());
                let pid = nix::unistd::Pid::from_raw(pid.unwrap().parse().unwrap());
                nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
                told = true;
            }
        }
    })
    .await
    .unwrap_or_else(|_| panic!("it goes on: {told}"));
    let text = String::from_utf8_lossy(&seen).into_owned();
    assert!(told, "{text}");
    let (before, after) = text.rsplit_once(CLOSE_SCREEN).expect("the screen is given back");
    assert!(
        before.contains("\u{1b}[?2004h") && before.contains("\u{1b}[?2004l"),
        "{text}"
    );
    let mode = |text: &str| text.contains(" icanon") && text.contains(" echo ");
    assert!(mode(after), "lines and echo as before: {after}");
    place.end().await;
}

const OPEN_SCREEN: &str = "\u{1b}[?1049h";
const CLOSE_SCREEN: &str = "\u{1b}[?1049l";
