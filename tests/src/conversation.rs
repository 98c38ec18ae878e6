//! Two people who write to each other while a test does what it likes to the platform.

use std::time::Duration;

use tern_types::{ChatId, RequestId};

use crate::phone::agree;
use crate::{Phone, World};

/// The time between two rounds of a conversation. In a round each phone sends one message.
pub const PACE: Duration = Duration::from_millis(20);

/// A direct chat of two people, and everything that they have written in it.
pub struct Conversation {
    /// The chat.
    pub chat: ChatId,
    /// The two people's phones.
    pub phones: [Phone; 2],
    /// The texts of all messages.
    texts: Vec<String>,
    /// Each send after the first message: the index of its phone, and its request_id.
    requests: Vec<(usize, RequestId)>,
}

impl Conversation {
    /// Creates two users with a phone each, and has one send the first message to the other.
    pub async fn begin(world: &World) -> Self {
        let [alice, bob] = world.users(["alice", "bob"]).await;
        Self::between([world.phone(&alice).await, world.phone(&bob).await]).await
    }

    /// Begins as [`Conversation::begin`] does, with each of the two at a gateway of their own.
    pub async fn begin_at_two_gateways(world: &World) -> Self {
        let [alice, bob] = world.users(["alice", "bob"]).await;
        let devices = [world.device(&alice).await, world.device(&bob).await];
        let phones = devices.map(|device| Phone::new(world, &device));
        phones[0].connect_at(0).await;
        phones[1].connect_at(1).await;
        Self::between(phones).await
    }

    async fn between(phones: [Phone; 2]) -> Self {
        let [one, other] = &phones;
        let chat = ChatId::direct(one.user(), other.user());
        one.say(other.user(), "first").await;
        other.has_text(chat, "first").await;
        Self {
            chat,
            phones,
            texts: vec!["first".to_owned()],
            requests: Vec::new(),
        }
    }

    /// Puts `count` messages of each person into the outboxes, one of each person every [`PACE`].
    pub async fn write(&mut self, count: usize) {
        let mut pace = tokio::time::interval(PACE);
        for _ in 0..count {
            pace.tick().await;
            self.write_once().await;
        }
    }

    /// Puts one message of each person into the outboxes.
    pub async fn write_once(&mut self) {
        for (number, phone) in self.phones.iter().enumerate() {
            let text = format!("{} of {number}", self.texts.len());
            self.requests
                .push((number, phone.send(self.chat, text.as_bytes()).await));
            self.texts.push(text);
        }
    }

    /// Checks that each message was sent once, and that both have all of them in one order.
    pub async fn end(&self) {
        let mut head = 0;
        for (phone, request) in &self.requests {
            head = head.max(self.phones[*phone].sent(*request).await.seq);
        }
        agree(&[&self.phones[0], &self.phones[1]], self.chat, head, &self.texts).await;
        assert_eq!(head, self.texts.len() as u64, "the log has nothing else in it");
    }
}
