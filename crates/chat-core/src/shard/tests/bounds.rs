//! Tests of rule 8: a chat and a shard refuse more than they may hold, and a commit is bounded.

use super::*;
use crate::shard::commands::{
    MAX_WAITING_ACKS, MAX_WAITING_BYTES, MAX_WAITING_BYTES_OF_CHAT, MAX_WAITING_OF_CHAT, MAX_WAITING_READS,
};
use crate::shard::jobs::{MAX_CLOSE, MAX_COMMIT_BYTES, MAX_READS};

const LARGE: usize = 256 << 10;

fn is_refused(effects: &[Effect]) -> bool {
    matches!(
        effects,
        [Effect::Answer {
            outcome: Outcome::Sent(Err(Refusal::Unavailable { .. }))
                | Outcome::Noted(Err(Refusal::Unavailable { .. })),
            ..
        }]
    )
}

#[test]
fn rule_8_a_chat_refuses_what_it_cannot_hold() {
    let mut shard = Shard::new();
    for _ in 0..MAX_WAITING_OF_CHAT {
        assert!(shard.send().is_empty());
    }
    let effects = shard.send();
    assert!(is_refused(&effects), "{effects:?}");
}

#[test]
fn rule_8_an_acknowledgement_that_finds_no_room_is_not_left_without_an_answer() {
    let mut shard = Shard::new();
    let (chat, user, device) = (shard.chat, shard.people[1], DeviceId::random());
    let ack = |origin| Event::Ack {
        origin,
        chat,
        user,
        device,
        seq: Seq(1),
        write: true,
    };
    for _ in 0..MAX_WAITING_ACKS {
        assert!(shard.tell(ack(Origin::Call(1))).is_empty());
    }
    let effects = shard.tell(ack(Origin::Call(2)));
    let refused = matches!(
        effects.as_slice(),
        [Effect::Answer {
            origin: Origin::Call(2),
            outcome: Outcome::Acked(Err(Refusal::Unavailable { .. })),
        }]
    );
    assert!(refused, "{effects:?}");
    let link = Origin::Link {
        link: 1,
        reference: 0,
        session: SessionId(1),
        request: RequestId(uuid::Uuid::nil()),
    };
    assert!(shard.tell(ack(link)).is_empty(), "a gateway repeats it");
}

#[test]
fn rule_8_a_chat_refuses_more_bytes_than_it_may_hold() {
    let mut shard = Shard::new();
    let fit = MAX_WAITING_BYTES_OF_CHAT / LARGE - 1;
    for _ in 0..fit {
        assert!(shard.send_to(shard.chat, LARGE).is_empty());
    }
    assert!(is_refused(&shard.send_to(shard.chat, LARGE)));
    assert!(shard.send().is_empty(), "a small one still fits");
    shard.committed();
    assert!(
        shard.send_to(shard.chat, LARGE).is_empty(),
        "what is committed makes room"
    );
}

#[test]
fn rule_8_a_shard_refuses_more_bytes_than_it_may_hold() {
    let mut shard = Shard::new();
    let fit = MAX_WAITING_BYTES / LARGE - 1;
    for n in 0..fit {
        let chat = ChatId(uuid::Uuid::from_u128(n as u128));
        shard.open(chat);
        assert!(shard.send_to(chat, LARGE).is_empty());
    }
    assert!(is_refused(&shard.send_to(shard.chat, LARGE)));
    assert!(shard.send().is_empty(), "a small one still fits");
}

#[test]
fn rule_8_a_commit_is_bounded_in_bytes_and_shared_by_chats() {
    let mut shard = Shard::new();
    let chats: Vec<ChatId> = (0..10).map(|n| ChatId(uuid::Uuid::from_u128(n))).collect();
    for chat in &chats {
        shard.open(*chat);
        for _ in 0..10 {
            assert!(shard.send_to(*chat, LARGE).is_empty());
        }
    }
    let Some(Job::Commit(batches)) = shard.job() else {
        panic!("nothing is committed")
    };
    let bytes: usize = batches.iter().map(Batch::bytes).sum();
    assert!(bytes > MAX_COMMIT_BYTES / 2 && bytes <= MAX_COMMIT_BYTES + LARGE);
    assert!(batches.len() > 2, "no chat takes it all");
}

/// Returns a read mark that is to be written, of the user with this number.
fn mark(chat: ChatId, user: usize) -> ReadMark {
    ReadMark {
        chat,
        user: UserId(uuid::Uuid::from_u128(user as u128)),
        seq: Seq(1),
        off: false,
        own_unread: 0,
        withdraws: false,
    }
}

#[test]
fn rule_8_a_statement_deletes_a_bounded_number_of_rows_and_the_next_one_the_others() {
    let mut shard = Shard::new();
    for n in 0..=MAX_CLOSE as u128 {
        shard.tell(Event::WakesDone(WakesDone {
            chat: ChatId(uuid::Uuid::from_u128(n)),
            log: 0,
            upto: Seq(1),
            woken: Woken::All,
        }));
    }
    for expected in [MAX_CLOSE, 1] {
        let Some(Job::Close(chats)) = shard.job() else {
            panic!("nothing is closed")
        };
        assert_eq!(chats.len(), expected);
        shard.tell(Event::JobDone(JobDone::Close { chats, closed: true }));
    }
    assert!(shard.state.is_quiet());
}

#[test]
fn rule_8_a_statement_writes_a_bounded_number_of_read_marks_and_the_next_one_the_others() {
    let mut shard = Shard::new();
    for user in 0..=MAX_READS {
        shard.state.write_read(mark(shard.chat, user), shard.now);
    }
    shard.now = shard.now + Duration::from_secs(1);
    for expected in [MAX_READS, 1] {
        let Some(Job::Reads(reads)) = shard.job() else {
            panic!("nothing is written")
        };
        assert_eq!(reads.len(), expected);
        shard.tell(reads_done());
    }
    assert!(shard.state.is_quiet());
    assert_eq!(shard.state.next_wake(), None);
}

#[test]
fn rule_8_a_read_mark_that_finds_no_room_is_not_noted() {
    let mut shard = Shard::new();
    shard.send();
    shard.committed();
    let (chat, [sender, reader]) = (shard.chat, shard.people);
    // The sender's own mark waits already.
    for user in 1..MAX_WAITING_READS {
        shard.state.write_read(mark(chat, user), shard.now);
    }
    let marks = |user| Event::MarkRead {
        origin: Origin::Call(1),
        chat,
        user,
        seq: Seq(1),
        off: false,
    };
    assert!(is_refused(&shard.tell(marks(reader))));
    assert_eq!(shard.state.read_mark(chat, reader), Some((Seq::ZERO, 0)));
    let effects = shard.tell(marks(sender));
    let taken = matches!(
        effects.as_slice(),
        [
            Effect::Answer {
                outcome: Outcome::Noted(Ok(())),
                ..
            },
            ..
        ]
    );
    assert!(taken, "{effects:?}");
    assert_eq!(shard.state.read_mark(chat, sender), Some((Seq(1), 0)));
}
