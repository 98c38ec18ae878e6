//! Makes the line over the messages: the chat, what is special about it, and who is there.

use tern_client::Chat;
use tern_proto::v1::ChatKind;
use tern_types::{ChatId, Clock, Timestamp};

use super::cut;
use crate::messenger::view::{View, is_muted};
use crate::messenger::words::span;

/// The greatest number of columns of a header.
const WIDEST: usize = 200;

/// Returns the header of a chat, with the presence of its members.
pub fn titled(view: &View, chat: ChatId) -> String {
    let now = Clock::wall();
    match view.presence(chat, now).filter(|_| view.thread.is_none()) {
        Some(presence) => format!("{} · {presence}", header(view, chat, now)),
        None => header(view, chat, now),
    }
}

/// Returns the title of a chat and what is special about it, for a group with its members.
fn header(view: &View, id: ChatId, now: Timestamp) -> String {
    let title = view.title(id);
    let room = view.rooms.get(&id);
    let Some((room, chat)) = room.and_then(|room| Some((room, room.chat.as_ref()?))) else {
        return title;
    };
    if chat.left {
        return format!("{title} · you are no member any more");
    }
    if view.thread.is_some() {
        return format!("a thread in {title} · Esc: back");
    }
    let mut parts = vec![title];
    if chat.kind == ChatKind::Group {
        parts[0].insert_str(0, "# ");
    }
    parts.extend(notes(chat, now));
    if chat.kind == ChatKind::Group && !room.members.is_empty() {
        let mut names: Vec<String> = room.members.iter().map(|user| view.name(*user)).collect();
        names.sort();
        parts.push(names.join(", "));
    }
    cut(&parts.join(" · "), WIDEST)
}

/// Returns what is special about a chat.
fn notes(chat: &Chat, now: Timestamp) -> Vec<String> {
    let after = chat.retention.disappear_after_s;
    let notes = [
        chat.frozen.then(|| "frozen by the operator".to_owned()),
        (after > 0).then(|| format!("⏱ {}", span(after))),
        match chat.join_request_count {
            0 => None,
            1 => Some("1 asks to join".to_owned()),
            count => Some(format!("{count} ask to join")),
        },
        is_muted(chat, now).then(|| "muted".to_owned()),
    ];
    notes.into_iter().flatten().collect()
}
