//! Two people who write to each other while a test does what it likes to the platform.

use std::time::Duration;

use tern_types::{ChatId, RequestId};

use crate::phone::agree;
use crate::{Phone, World};

/// The time between two rounds of a conversation. In a round each phone sends one message.
pub const PACE: Duration = Duration::from_millis(20);

/// A direct chat of two people, and everything that they have written in it.
pub struct Conversation {
    pub chat: ChatId,
    pub phones: [Phone; 2],
    texts: Vec<String>,
    requests: Vec<(usize, RequestId)>,
}

impl Conversation {
    pub async fn begin(world: &World) -> Self {
        let [alice, bob] = world.users(["alice", "bob"]).await;
        let phones = [world.phone(&alice).await, world.phone(&bob).await];
        let chat = ChatId::direct(alice.id, bob.id);
        phones[0].say(bob.id, "first").await;
        phones[1].has_text(chat, "first").await;
        Self {
            chat,
            phones,
            texts: vec!["first".to_owned()],
            requests: Vec::new(),
        }
    }

    /// Puts `count` messages of each person into the outboxes, one each in [`PACE`].
    pub async fn write(&mut self, count: usize) {
        let mut pace = tokio::time::interval(PACE);
        for _ in 0..count {
            pace.tick().await;
            for (number, phone) in self.phones.iter().enumerate() {
                let text = format!("{} of {number}", self.texts.len());
                self.requests
                    .push((number, phone.send(self.chat, text.as_bytes()).await));
                self.texts.push(text);
            }
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
