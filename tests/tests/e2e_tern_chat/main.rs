//! `tern-dev chat --plain` against a platform of real processes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod place;

use std::process::Stdio;

use tern_tests::world;
use tokio::process::Command;

use place::{BOUND, Place, text};

#[tokio::test]
async fn two_people_chat_from_their_first_start_to_the_next() {
    let place = Place::new().await;
    let nobody = place.pipe(&["--user", "alice", "--to", "bob"], "hello?\n").await;
    assert!(
        text(&nobody).contains("nobody is called bob yet"),
        "{}",
        text(&nobody)
    );

    let mut bob = place.user("bob").await;
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
    bob.asks("/chat alice", "Alice: line 99").await;
    bob.types("a hundred!").await;
    alice.shows("Bob: a hundred!").await;
    bob.shows("✓✓ read").await;

    alice.types("/group \"tea party\" bob").await;
    bob.shows("(tea party) * Alice made the group “tea party”").await;
    alice.shows("chat with tea party").await;
    alice.types("//welcome").await;
    bob.shows("(tea party) Alice: /welcome").await;
    alice.asks("/nonsense", "there is no /nonsense").await;
    place.end().await;
}

#[tokio::test]
async fn people_are_blocked_and_settings_made_by_typing() {
    let (place, mut alice, mut bob) = Place::with_two().await;
    alice.types("hello").await;
    bob.shows("Alice: hello").await;
    alice.asks("/block bob", "bob is blocked").await;
    alice.asks("/blocked", "blocked: Bob").await;
    bob.asks("/chat alice", "Alice: hello").await;
    bob.asks("are you there?", "no messages pass between the two of you")
        .await;
    alice.asks("/unblock bob", "bob is not blocked").await;
    bob.types("and now?").await;
    alice.shows("Bob: and now?").await;

    alice.asks("/contacts bob", "contacts: Bob").await;
    alice.asks("/forget bob", "bob is no contact").await;
    alice.asks("/contacts", "contacts: nobody").await;
    alice
        .asks(
            "/privacy",
            "seen online by contacts and people you wrote to; read receipts on",
        )
        .await;
    alice
        .asks(
            "/privacy nobody receipts off",
            "seen online by nobody; read receipts off",
        )
        .await;
    alice
        .asks("/privacy receipts on", "seen online by nobody; read receipts on")
        .await;
    place.end().await;
}

#[tokio::test]
async fn what_cannot_work_is_said_in_words() {
    let place = Place::new().await;
    let _alice = place.user("alice").await;
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
    let mut bob = place.user("bob").await;
    let mut carol = place.user("carol").await;
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
    bob.asks("/chat alice", "] Alice: [beach.png").await;
    bob.asks("/save 9", "message 9 of this chat has no files here")
        .await;
    let saved = dir.join("saved.png");
    bob.types(&format!("/save 1 {}", saved.display())).await;
    bob.shows("saved ").await;
    assert_eq!(std::fs::read(&saved).unwrap(), picture);

    bob.asks("/chat carol", "chat with Carol").await;
    bob.types("/chat alice").await;
    bob.types(&format!("/picture {}", dir.join("beach.png").display()))
        .await;
    bob.shows("this is your picture now").await;
    bob.asks("/picture nothing-there.png", "nothing-there.png: No such file")
        .await;
    bob.types("/forward 1 carol").await;
    carol.shows("Bob: (forwarded) [beach.png").await;
    bob.asks("/send nor-there.png", "nor-there.png: No such file")
        .await;
    place.end().await;
}

#[tokio::test]
async fn owners_hand_over_and_leave_and_who_is_out_is_told_so() {
    let place = Place::new().await;
    let mut bob = place.user("bob").await;
    let mut carol = place.user("carol").await;
    let mut alice = place.chat("alice", "bob").await;
    alice.asks("/group lunch bob carol", "chat with lunch").await;
    bob.shows("made the group “lunch”").await;
    alice.types("/role bob admin").await;
    bob.shows("made you admin").await;
    alice.types("/owner bob").await;
    bob.shows("Alice handed the group over: you are the owner now")
        .await;
    alice.types("/leave").await;
    bob.shows("Alice left").await;
    alice.shows("you left").await;
    alice.types("still there?").await;
    // Either the program or the chat node refuses the message, whichever knows first that she has left.
    alice.shows("you are not in this ").await;

    // Her program may hear of it later, and finds no chat of which it has not heard.
    carol.shows("* Alice left").await;
    carol.asks("/chat lunch", "] * Alice left").await;
    carol.types("/role bob member").await;
    let refused = carol.shows("your role here does not allow it").await;
    assert!(!refused.contains("Role"), "{refused}");
    place.end().await;
}

#[tokio::test]
async fn a_refused_message_is_sent_again_or_deleted() {
    let (place, mut alice, mut bob) = Place::with_two().await;
    alice.types("hello").await;
    bob.shows("Alice: hello").await;
    bob.asks("/block alice", "alice is blocked").await;
    alice
        .asks("first", "! not sent: no messages pass between the two of you")
        .await;
    alice.asks("second", "! not sent").await;
    bob.asks("/unblock alice", "alice is not blocked").await;
    alice.types("/discard").await;
    alice.types("/retry").await;
    bob.shows("Alice: first").await;
    alice
        .asks("/retry", "no such message of yours was refused here")
        .await;
    assert!(
        !bob.seen.iter().any(|line| line.contains("second")),
        "{:?}",
        bob.seen
    );
    place.end().await;
}

#[tokio::test]
async fn messages_are_answered_changed_and_deleted_by_typing() {
    let (place, mut alice, mut bob) = Place::with_two().await;
    // Both lines are typed at once, as a script does. Bob may see the message only when it was edited.
    alice.types("helo\n/edit hello").await;
    bob.shows("Alice edited #1: hello").await;
    bob.asks("/chat alice", "Alice: hello (edited)").await;
    bob.types("/reply good morning").await;
    alice.shows("Bob: (to you: hello) good morning").await;
    alice.types("/react 👍").await;
    bob.shows("Alice reacted 👍 to #3 “good morning”").await;
    alice.types("/react 👍").await;
    bob.shows("Alice took 👍 back from #3").await;
    alice.types("/pin").await;
    bob.shows("Alice pinned #3 “good morning”").await;
    alice.types("/delete #1").await;
    bob.shows("Alice deleted #1").await;
    bob.asks("/react #1 👍", "there is no message 1 here").await;
    bob.asks("/delete #3", "you deleted #3").await;
    place.end().await;
}

#[tokio::test]
async fn messages_are_found_by_their_words_as_they_are_now() {
    let (place, mut alice, mut bob) = Place::with_two().await;
    alice.types("the tea is redy\n/edit the tea is ready").await;
    bob.shows("Alice edited #1: the tea is ready").await;
    // No chat is open, so all are searched.
    let hit = bob.asks("/search READ", "* 1. [").await;
    assert!(hit.ends_with("#1] (Alice) Alice: the tea is ready"), "{hit}");
    bob.asks("/search redy", "nothing was found").await;

    bob.asks("/chat alice", "Alice: the tea is ready (edited)").await;
    alice.types("明天三点开会").await;
    bob.shows("Alice: 明天三点开会").await;
    let hit = bob.asks("/search 三点", "* 1. [").await;
    assert!(hit.ends_with("#3] Alice: 明天三点开会"), "{hit}");
    let shown = bob.asks("/hit", "* › [").await;
    assert!(shown.ends_with("#3] Alice: 明天三点开会"), "{shown}");
    assert!(
        bob.seen
            .iter()
            .any(|line| line.ends_with("#1] Alice: the tea is ready")),
        "its neighbour: {:#?}",
        bob.seen
    );

    alice.types("/delete #3").await;
    bob.shows("Alice deleted #3").await;
    bob.asks("/search 三点", "nothing was found").await;
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
    bob.asks("/chat alice", "] Alice: [note.txt").await;
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
    let (place, mut alice, mut bob) = Place::with_two().await;
    bob.asks("/chat alice", "chat with Alice").await;
    bob.types("hello").await;
    alice.shows("Bob: hello").await;
    alice.types("hello yourself").await;
    // Her program may have been told before his message came.
    if !alice.seen.iter().any(|line| line.contains("Bob is online")) {
        alice.shows("Bob is online").await;
    }
    place.end().await;
}

/// The program of a suspended user goes on, and connects again after the user was resumed.
#[tokio::test]
async fn suspension_is_a_state_and_not_the_end() {
    let (place, mut alice, mut bob) = Place::with_two().await;
    alice.types("hello").await;
    bob.shows("Alice: hello").await;
    place.admin(&["users", "suspend", "alice"]).await;
    alice
        .shows("the operator keeps you out for now; /connect tries again")
        .await;
    alice
        .asks("kept?", "there is no connection: /connect begins anew")
        .await;
    alice
        .asks(
            "/connect",
            "the operator keeps you out for now; /connect tries again",
        )
        .await;
    place.admin(&["users", "resume", "alice"]).await;
    alice.asks("/connect", "connected to").await;
    alice.types("here I am").await;
    bob.shows("Alice: here I am").await;
    place.end().await;
}

/// The programs go on while there is no gateway. What is written meanwhile arrives when there is one.
#[tokio::test]
async fn a_lost_connection_is_a_state_and_not_the_end() {
    let (mut place, mut alice, mut bob) = Place::with_two().await;
    alice.types("hello").await;
    bob.shows("Alice: hello").await;
    let gateways = ["gateway-0", "gateway-1"];
    let (one, other) = tokio::join!(place.platform.kill(gateways[0]), place.platform.kill(gateways[1]));
    one.and(other).unwrap();
    alice.shows("* not connected (").await;
    alice.types("kept").await;
    for gateway in gateways {
        place.platform.restart(gateway).await.unwrap();
    }
    alice.shows("* connected to").await;
    bob.shows("Alice: kept").await;
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
