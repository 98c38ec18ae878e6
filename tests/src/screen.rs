//! A client that shows who is online. It says whether a person is at it, watches people, and remembers in order what
//! it was told. It never reconnects, so that a test sees when its stream ends. It acknowledges messages without
//! keeping them.

use std::time::Duration;

use tern_proto::v1::{
    Heartbeat, Open, Presence, PresenceState, SetActive, WatchErrorCode, WatchPresence, WatchResult,
    client_item::Item, server_event::Event,
};
use tern_types::UserId;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::bounds::BOUND;
use crate::{Device, Wire, wire};

/// The number of commands that may wait. No test gives more at once.
const COMMANDS: usize = 1024;

/// The presence of a person, as a screen showed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    Hidden,
    Online,
    /// The person is offline, and was last active at this time in milliseconds since the epoch. 0: not known.
    LastSeen(i64),
}

/// Everything that the server has said so far.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// Each `Presence`, in order.
    pub presences: Vec<(UserId, Shown)>,
    /// Each `WatchResult`, in order.
    pub results: Vec<WatchResult>,
    /// The tokens of the heartbeats that were answered.
    pub heartbeats: Vec<u64>,
    /// The way in which the stream ended; `None` while it is open.
    pub end: Option<String>,
}

impl Said {
    /// Returns the last presence that was shown of a person, or `None` if there was none.
    pub fn of(&self, user: UserId) -> Option<Shown> {
        let mut newest = self.presences.iter().rev();
        newest.find(|(of, _)| *of == user).map(|(_, shown)| *shown)
    }

    /// Returns every presence that was shown of a person, in order.
    pub fn all_of(&self, user: UserId) -> Vec<Shown> {
        let all = self.presences.iter().filter(|(of, _)| *of == user);
        all.map(|(_, shown)| *shown).collect()
    }
}

#[derive(Debug)]
enum Command {
    Say(Item),
    /// Says whether a person is at the screen. While one is, the screen repeats it as often as the server asks.
    Active(bool),
}

/// The client. Dropping it breaks its stream.
pub struct Screen {
    pub user: UserId,
    pub activity_interval: Duration,
    commands: mpsc::Sender<Command>,
    said: watch::Receiver<Said>,
    task: tokio::task::JoinHandle<()>,
}

impl Screen {
    /// Opens a stream, with a person at the screen or none.
    pub async fn open(channel: Channel, device: &Device, active: bool) -> Self {
        let mut wire = Wire::silent(channel).await.expect("a stream");
        wire.say(Item::Open(Open {
            access_token: device.access_token.clone(),
            client_version: "tern-tests/1".to_owned(),
            active,
        }))
        .await;
        let opened = match wire.next().await {
            Ok(Some(Event::Opened(opened))) => opened,
            other => panic!("the first event is Opened, not {other:?}"),
        };
        let activity_interval = Duration::from_millis(opened.activity_interval_ms.into());
        assert!(activity_interval > Duration::ZERO, "{opened:?}");
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (writer, said) = watch::channel(Said::default());
        let task = tokio::spawn(run(wire, inbox, writer, activity_interval));
        Self {
            user: device.user,
            activity_interval,
            commands,
            said,
            task,
        }
    }

    /// Sends one item, once.
    pub async fn say(&self, item: Item) {
        self.command(Command::Say(item)).await;
    }

    /// Says that a person came and stays, or that they left.
    pub async fn active(&self, active: bool) {
        self.command(Command::Active(active)).await;
    }

    /// Returns when the server has taken every item sent before. `token` has to be a new one.
    pub async fn settled(&self, token: u64) {
        self.say(Item::Heartbeat(Heartbeat { token })).await;
        self.until("the answer to a heartbeat", |said| {
            said.heartbeats.contains(&token)
        })
        .await;
    }

    /// Watches these people, and returns the server's answer. Asks again while the server cannot find out who may be
    /// seen.
    pub async fn watch(&self, users: &[UserId]) -> WatchResult {
        let end = Instant::now() + BOUND;
        loop {
            let user_ids = users.iter().map(ToString::to_string).collect();
            let result = self.watch_ids(user_ids).await;
            if result.error() != WatchErrorCode::Unavailable || Instant::now() > end {
                return result;
            }
            tokio::time::sleep(Duration::from_millis(result.retry_after_ms.into())).await;
        }
    }

    /// Watches these ids, and returns the server's answer.
    pub async fn watch_ids(&self, user_ids: Vec<String>) -> WatchResult {
        let before = self.said.borrow().results.len();
        self.say(Item::WatchPresence(WatchPresence { user_ids })).await;
        let said = self
            .until("a WatchResult", |said| said.results.len() > before)
            .await;
        said.results[before].clone()
    }

    /// Returns everything that the server has said so far.
    pub fn said(&self) -> Said {
        self.said.borrow().clone()
    }

    /// Waits until a person is shown as `wanted` says.
    pub async fn sees(&self, user: UserId, wanted: impl Fn(Shown) -> bool) -> Shown {
        let what = format!("another state of {user}");
        let said = self.until(&what, |said| said.of(user).is_some_and(&wanted)).await;
        said.of(user).expect("a state")
    }

    /// Waits until a person is shown as online.
    pub async fn sees_online(&self, user: UserId) {
        self.sees(user, |shown| shown == Shown::Online).await;
    }

    /// Waits until a person is shown as offline, and returns when they were last seen, in milliseconds.
    pub async fn sees_offline(&self, user: UserId) -> i64 {
        match self.sees(user, |shown| matches!(shown, Shown::LastSeen(_))).await {
            Shown::LastSeen(at) => at,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until what the server has said is as wanted. Panics if the stream ends before.
    pub async fn until(&self, what: &str, mut holds: impl FnMut(&Said) -> bool) -> Said {
        let mut said = self.said.clone();
        let found =
            tokio::time::timeout(BOUND, said.wait_for(|said| holds(said) || said.end.is_some())).await;
        let found = match found {
            Ok(found) => found.expect("the screen's task runs").clone(),
            Err(_) => panic!(
                "not within {BOUND:?}: {what}; it was told {:?}",
                self.said.borrow()
            ),
        };
        assert!(holds(&found), "the stream ended before {what}: {found:?}");
        found
    }

    async fn command(&self, command: Command) {
        // A stream that has ended takes no commands. The test finds that out when it waits for an answer.
        let _ = self.commands.send(command).await;
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    mut stream: Wire,
    mut commands: mpsc::Receiver<Command>,
    said: watch::Sender<Said>,
    activity_interval: Duration,
) {
    let mut repeat_at: Option<Instant> = None;
    loop {
        let repeat = async {
            match repeat_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = stream.event() => match event {
                Ok(Some(Event::Entry(entry))) => {
                    let chat = entry.chat_id.parse().expect("an id");
                    stream.say(wire::ack(chat, entry.seq)).await;
                }
                Ok(Some(event)) => said.send_modify(|said| note(said, event)),
                ended => {
                    said.send_modify(|said| said.end = Some(format!("{ended:?}")));
                    return;
                }
            },
            command = commands.recv() => match command {
                Some(Command::Say(item)) => stream.say(item).await,
                Some(Command::Active(active)) => {
                    stream.say(Item::SetActive(SetActive { active })).await;
                    repeat_at = active.then(|| Instant::now() + activity_interval);
                }
                None => return,
            },
            () = repeat => {
                stream.say(Item::SetActive(SetActive { active: true })).await;
                repeat_at = Some(Instant::now() + activity_interval);
            }
        }
    }
}

fn note(said: &mut Said, event: Event) {
    match event {
        Event::Presence(presence) => {
            let user = presence.user_id.parse().expect("an id");
            said.presences.push((user, shown(&presence)));
        }
        Event::WatchResult(result) => said.results.push(result),
        Event::HeartbeatAck(ack) => said.heartbeats.push(ack.token),
        Event::Closing(closing) => said.end = Some(format!("{closing:?}")),
        _ => {}
    }
}

fn shown(presence: &Presence) -> Shown {
    match presence.state() {
        PresenceState::Hidden => Shown::Hidden,
        PresenceState::Online => Shown::Online,
        PresenceState::Offline => Shown::LastSeen(presence.last_seen_ms),
        PresenceState::Unspecified => panic!("no state: {presence:?}"),
    }
}
