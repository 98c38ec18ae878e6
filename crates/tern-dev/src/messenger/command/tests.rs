//! Tests what typed lines mean.

use tern_proto::v1::JoinerHistory;
use tern_types::ChatId;
use uuid::Uuid;

use super::*;

/// Checks that each line is parsed into its command.
fn mean<const N: usize>(cases: [(&str, Command); N]) {
    for (line, command) in cases {
        assert_eq!(Command::parse(line), command, "{line:?}");
    }
}

#[test]
fn a_text_is_a_message_unless_it_is_blank_or_a_command() {
    mean([
        ("hello there ", Command::Say("hello there".into())),
        ("  indented", Command::Say("  indented".into())),
        ("", Command::Nothing),
        ("   ", Command::Nothing),
        ("//etc/passwd", Command::Say("/etc/passwd".into())),
        (
            "/etc/passwd\nis a file",
            Command::Say("/etc/passwd\nis a file".into()),
        ),
        (
            "/edit two\nlines",
            Command::Edit {
                message: None,
                text: "two\nlines".into(),
            },
        ),
    ]);
}

#[test]
fn commands_about_chats_and_groups_mean_what_a_person_would_expect() {
    let group = |title: &str, people: &[&str]| Command::Group {
        title: title.into(),
        people: people.iter().map(|person| (*person).to_owned()).collect(),
    };
    mean([
        ("/chat bob", Command::Chat("bob".into())),
        ("/chat \"lunch club\"", Command::Chat("lunch club".into())),
        ("/group lunch bob, carol", group("lunch", &["bob", "carol"])),
        (
            "/group \"lunch club\" bob carol",
            group("lunch club", &["bob", "carol"]),
        ),
        ("/add dave erin", Command::Add(vec!["dave".into(), "erin".into()])),
        ("/title Tea and cake", Command::Title("Tea and cake".into())),
        ("/picture boat.jpg", Command::Picture("boat.jpg".into())),
        (
            "/role bob owner",
            Command::Role {
                who: "bob".into(),
                role: Role::Owner,
            },
        ),
        ("/leave", Command::Leave(None)),
        ("/leave bob", Command::Leave(Some("bob".into()))),
    ]);
}

#[test]
fn commands_about_people_mean_what_a_person_would_expect() {
    mean([
        ("/block bob", Command::Block("bob".into())),
        ("/unblock bob", Command::Unblock("bob".into())),
        ("/blocked", Command::Blocked),
        ("/contacts", Command::Contacts(vec![])),
        (
            "/contacts bob, carol",
            Command::Contacts(vec!["bob".into(), "carol".into()]),
        ),
        ("/forget bob", Command::Forget("bob".into())),
        ("/privacy", Command::Privacy(vec![])),
        (
            "/privacy receipts off everyone",
            Command::Privacy(vec![
                Setting::ReadReceipts(false),
                Setting::SeenBy(Audience::Everyone),
            ]),
        ),
    ]);
}

#[test]
fn commands_about_messages_and_files_mean_what_a_person_would_expect() {
    mean([
        ("/retry", Command::Retry(1)),
        ("/discard 2", Command::Discard(2)),
        ("/info", Command::Info(1)),
        ("/info 3", Command::Info(3)),
        (
            "/send ~/My pictures/a.jpg",
            Command::Send("~/My pictures/a.jpg".into()),
        ),
        (
            "/save 12",
            Command::Save {
                message: 12,
                to: None,
            },
        ),
        (
            "/save 12 \"a b.jpg\"",
            Command::Save {
                message: 12,
                to: Some("a b.jpg".into()),
            },
        ),
        (
            "/forward 3 lunch club",
            Command::Forward {
                message: 3,
                to: "lunch club".into(),
            },
        ),
    ]);
}

#[test]
fn commands_about_a_message_name_it_by_its_number_or_not_at_all() {
    let (message, text) = (Some(12), "very well".to_owned());
    mean([
        (
            "/reply #12 very well",
            Command::Reply {
                message,
                text: text.clone(),
            },
        ),
        (
            "/reply very well",
            Command::Reply {
                message: None,
                text: text.clone(),
            },
        ),
        (
            "/thread #12 very well",
            Command::Thread {
                message,
                text: text.clone(),
            },
        ),
        (
            "/thread very well",
            Command::Thread {
                message: None,
                text: text.clone(),
            },
        ),
        ("/edit #12 very well", Command::Edit { message, text }),
        (
            "/edit #tags are text",
            Command::Edit {
                message: None,
                text: "#tags are text".into(),
            },
        ),
        (
            "/edit 12 eggs",
            Command::Edit {
                message: None,
                text: "12 eggs".into(),
            },
        ),
        (
            "/react #12 👍",
            Command::React {
                message,
                reaction: "👍".into(),
            },
        ),
        ("/pin", Command::Pin(None)),
        ("/unpin #12", Command::Unpin(Some(12))),
        ("/delete 12", Command::Delete(Some(12))),
        ("/delete", Command::Delete(None)),
    ]);
    let long = format!("/react {}", "x".repeat(65));
    assert!(matches!(Command::parse(&long), Command::Wrong(_)));
}

#[test]
fn a_thread_is_shown_unless_there_is_a_text_for_it() {
    mean([
        ("/thread", Command::ShowThread(None)),
        ("/thread #12", Command::ShowThread(Some(12))),
        (
            "/thread 12",
            Command::Thread {
                message: None,
                text: "12".into(),
            },
        ),
    ]);
}

#[test]
fn commands_about_how_a_chat_is_kept_mean_what_a_person_would_expect() {
    let hours = |hours: u32| Some(hours * 3600);
    for (line, keeping) in [
        ("/mute", Keeping::Mute(None)),
        ("/mute always", Keeping::Mute(None)),
        ("/mute 8h", Keeping::Mute(hours(8))),
        ("/mute 1w", Keeping::Mute(hours(7 * 24))),
        ("/mute off", Keeping::Unmute),
        ("/archive", Keeping::Archive(true)),
        ("/unarchive", Keeping::Archive(false)),
        ("/pinchat", Keeping::Pin(true)),
        ("/unpinchat", Keeping::Pin(false)),
        ("/unread", Keeping::Unread),
    ] {
        assert_eq!(Command::parse(line), Command::Keep(keeping), "{line:?}");
    }
    mean([
        ("/archived", Command::Archived),
        ("/hide", Command::Hide(None)),
        ("/hide #12", Command::Hide(Some(12))),
        ("/pins", Command::Pins),
    ]);
}

#[test]
fn commands_about_how_a_chat_is_run_mean_what_a_person_would_expect() {
    let chat = ChatId(Uuid::from_u128(7));
    let token = "x".repeat(43);
    let link = format!("tern:{chat}/{token}");
    let address = format!("https://chat.example.com/join/{chat}/{token}");
    let join = || Running::Join {
        chat,
        token: token.clone(),
    };
    let answer = |accept| Running::Answer {
        who: "dave".into(),
        accept,
    };
    let invite = |once, approval| Running::Invite { once, approval };
    for (line, running) in [
        ("/disappear", Running::Disappear(None)),
        ("/disappear off", Running::Disappear(Some(0))),
        ("/disappear 30s", Running::Disappear(Some(30))),
        ("/disappear 1d", Running::Disappear(Some(86_400))),
        ("/description", Running::Description(None)),
        ("/description we eat", Running::Description(Some("we eat".into()))),
        ("/owner bob", Running::Owner("bob".into())),
        ("/invite", invite(false, false)),
        ("/invite approval once", invite(true, true)),
        ("/invites", Running::Invites),
        ("/revoke 2", Running::Revoke(2)),
        ("/requests", Running::Requests),
        ("/accept dave", answer(true)),
        ("/refuse dave", answer(false)),
    ] {
        assert_eq!(Command::parse(line), Command::Run(running), "{line:?}");
    }
    for link in [link, address] {
        let parsed = Command::parse(&format!("/join {link}"));
        assert_eq!(parsed, Command::Run(join()), "{link}");
    }
}

#[test]
fn a_policy_is_told_by_its_rules() {
    for (line, rules) in [
        ("/policy", vec![]),
        (
            "/policy send admins add all edit owners",
            vec![
                Rule::Send(Role::Admin),
                Rule::Add(Role::Member),
                Rule::Edit(Role::Owner),
            ],
        ),
        ("/policy slow 30s", vec![Rule::Slow(30)]),
        ("/policy slow 1h", vec![Rule::Slow(3600)]),
        (
            "/policy slow off, history 100",
            vec![Rule::Slow(0), Rule::History(JoinerHistory::Last, 100)],
        ),
        (
            "/policy history none history all",
            vec![
                Rule::History(JoinerHistory::None, 0),
                Rule::History(JoinerHistory::All, 0),
            ],
        ),
    ] {
        assert_eq!(
            Command::parse(line),
            Command::Run(Running::Policy(rules)),
            "{line:?}"
        );
    }
}

#[test]
fn commands_about_the_search_mean_what_a_person_would_expect() {
    let search = |words: &str, everywhere| Command::Search {
        words: words.into(),
        everywhere,
    };
    mean([
        ("/search \"green\"  tea ", search("\"green\"  tea", false)),
        ("/searchall 会议", search("会议", true)),
        ("/hit", Command::Hit(1)),
        ("/hit 2", Command::Hit(2)),
    ]);
    for line in ["/search", "/searchall ", "/hit 0", "/hit x"] {
        assert!(matches!(Command::parse(line), Command::Wrong(_)), "{line:?}");
    }
}

#[test]
fn commands_about_the_program_mean_what_a_person_would_expect() {
    mean([("/connect", Command::Connect), ("/q", Command::Quit)]);
}

#[test]
fn what_is_wrong_is_told_with_an_example() {
    for line in [
        "/group",
        "/group lunch",
        "/chat",
        "/add",
        "/block",
        "/privacy friends",
        "/privacy receipts",
        "/info 0",
        "/role bob",
        "/role bob king",
        "/retry 0",
        "/discard x",
        "/delete it",
        "/pin #",
        "/edit",
        "/reply #12",
        "/react",
        "/info x",
        "/nonsense",
        "/",
        "/send",
        "/save",
        "/save x",
        "/forward 1",
        "/mute 8",
        "/mute soon",
        "/archive 2",
        "/disappear 4s",
        "/disappear 53w",
        "/policy send",
        "/policy send everybody",
        "/policy slow 2h",
        "/policy history 0",
        "/policy history 10001",
        "/owner",
        "/invite twice",
        "/revoke 0",
        "/join",
        "/join tern:1/x",
        "/join tern:00000000-0000-0000-0000-000000000007/",
        "/accept",
        "/hide it",
    ] {
        assert!(matches!(Command::parse(line), Command::Wrong(_)), "{line:?}");
    }
    let Command::Wrong(text) = Command::parse("/group lunch") else {
        panic!()
    };
    assert!(text.contains("/group \"lunch club\" bob carol"), "{text}");
}
