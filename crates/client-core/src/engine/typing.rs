//! This module handles typing signs. Own signs go to the server at most once in 3 s for each chat. The signs of other
//! people are shown until they expire. Nothing is stored.

use std::collections::BTreeMap;
use std::time::Duration;

use tern_proto::v1::{self, client_item::Item};
use tern_types::typing::{EXPIRES, Typist};
use tern_types::{ChatId, Timestamp, UserId};

use super::Engine;
use crate::model::{Entry, Event};

/// The most chats for which an own sign is remembered. A person types in one chat at a time.
const MAX_OWN: usize = 8;
/// The most typing people who are remembered, which is more than a screen shows. Further ones are ignored.
const MAX_SHOWN: usize = 256;

/// The typing signs of this person and of others.
#[derive(Debug, Default)]
pub struct Typing {
    /// The chats in which this person typed lately.
    own: Vec<(ChatId, Typist)>,
    /// The other people who are typing, each with the time at which their sign expires.
    others: BTreeMap<(ChatId, UserId), Timestamp>,
}

impl Typing {
    /// Returns the time at which the next sign of another person expires.
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.others.values().min().copied()
    }

    /// Notes that the person types or has stopped, and returns whether the server has to be told.
    fn own(&mut self, chat: ChatId, stopped: bool, now: Timestamp) -> bool {
        self.own.retain(|(_, typist)| !typist.is_over(now));
        if !self.own.iter().any(|(of, _)| *of == chat) && self.own.len() < MAX_OWN {
            self.own.push((chat, Typist::default()));
        }
        let own = self.own.iter_mut().find(|(of, _)| *of == chat);
        own.is_some_and(|(_, typist)| typist.take(stopped, Duration::ZERO, now))
    }
}

impl Engine {
    /// Sends an own sign if the server has to be told. Without an open stream it is dropped.
    pub(super) fn own_typing(&mut self, chat: ChatId, stopped: bool, now: Timestamp) {
        if self.session.open() && self.typing.own(chat, stopped, now) {
            let chat_id = chat.to_string();
            self.effects
                .items
                .push(Item::Typing(v1::Typing { chat_id, stopped }));
        }
    }

    /// Ends the own sign in a chat, because the person sent a message to it.
    pub(super) fn own_message(&mut self, chat: ChatId, now: Timestamp) {
        if let Some((_, typist)) = self.typing.own.iter_mut().find(|(of, _)| *of == chat) {
            typist.wrote(now);
        }
    }

    /// Takes another person's sign. A malformed one is ignored.
    pub(super) fn typing_came(&mut self, typing: &v1::UserTyping, now: Timestamp) {
        let (Ok(chat), Ok(user)) = (typing.chat_id.parse(), typing.user_id.parse()) else {
            return;
        };
        if typing.stopped {
            return self.no_longer_typing(chat, user);
        }
        let until = now + Duration::from_millis(typing.expires_in_ms.into()).min(EXPIRES);
        let known = self.typing.others.contains_key(&(chat, user));
        if known || self.typing.others.len() < MAX_SHOWN {
            self.typing.others.insert((chat, user), until);
        }
        debug_assert!(
            self.typing.others.len() <= MAX_SHOWN,
            "too many signs are remembered"
        );
        if !known && self.typing.others.contains_key(&(chat, user)) {
            let typing = true;
            self.effects.events.push(Event::Typing { chat, user, typing });
        }
    }

    /// Ends the sign of the person who sent this entry, if it is a message.
    pub(super) fn typing_ends(&mut self, entry: &Entry) {
        if let Some(sender) = entry.sender.filter(|_| entry.message().is_some()) {
            self.no_longer_typing(entry.chat, sender);
        }
    }

    pub(super) fn tick_typing(&mut self, now: Timestamp) {
        let expired = self.typing.others.iter().filter(|(_, until)| **until <= now);
        let expired: Vec<(ChatId, UserId)> = expired.map(|(who, _)| *who).collect();
        for (chat, user) in expired {
            self.no_longer_typing(chat, user);
        }
    }

    /// Removes the person's sign and tells the app, if there is one.
    fn no_longer_typing(&mut self, chat: ChatId, user: UserId) {
        if self.typing.others.remove(&(chat, user)).is_some() {
            let typing = false;
            self.effects.events.push(Event::Typing { chat, user, typing });
        }
    }
}
