//! Tells who is online, and when the others were last seen.

use tern_client::Presence;
use tern_proto::v1::ChatKind;
use tern_types::{ChatId, Timestamp, UserId};

use super::View;
use crate::messenger::clock;

/// The largest number of people whose presence a device may watch at a time.
const MAX_WATCHED: usize = 256;

impl View {
    /// Returns the people whose presence is on the screen, sorted: those of the open chat and those of direct chats,
    /// at most [`MAX_WATCHED`]. The open chat's come first when there are too many.
    pub fn on_screen(&self) -> Vec<UserId> {
        let open = self.open.and_then(|chat| self.rooms.get(&chat));
        let members = open.into_iter().flat_map(|room| room.members.iter().copied());
        let open_peer = open.and_then(|room| room.chat.as_ref()?.peer);
        let peers = self.chats().into_iter().filter_map(|chat| chat.peer);
        let mut people = Vec::new();
        for user in open_peer.into_iter().chain(members).chain(peers) {
            if user != self.me && !people.contains(&user) && people.len() < MAX_WATCHED {
                people.push(user);
            }
        }
        people.sort_unstable();
        people
    }

    /// Returns whether the server has said that this person is online.
    pub fn is_online(&self, user: UserId) -> bool {
        self.presences.get(&user) == Some(&Presence::Online)
    }

    /// Returns whether the server has said that this person's presence is hidden.
    pub fn is_hidden(&self, user: UserId) -> bool {
        self.presences.get(&user) == Some(&Presence::Hidden)
    }

    /// Returns whether the server has said anything of this person's presence since the connection was made.
    pub fn knows_presence(&self, user: UserId) -> bool {
        self.presences.contains_key(&user)
    }

    /// Returns the presence to show for a chat, as in "online", "last seen today 14:02", or for a group "3 online".
    /// `now` is the time by the wall clock.
    pub fn presence(&self, chat: ChatId, now: Timestamp) -> Option<String> {
        let room = self.rooms.get(&chat)?;
        let known = room.chat.as_ref()?;
        if known.kind == ChatKind::Group {
            let online = room.members.iter().filter(|user| self.is_online(**user)).count();
            return (online > 0).then(|| format!("{online} online"));
        }
        match self.presences.get(&known.peer?)? {
            Presence::Online => Some("online".to_owned()),
            Presence::LastSeen(at) if *at > Timestamp(0) => {
                Some(format!("last seen {}", clock::ago(*at, now)))
            }
            Presence::LastSeen(_) | Presence::Hidden => None,
        }
    }
}
