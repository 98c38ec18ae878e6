//! Shows where one message is, from the store, the owner's memory and presence.

use std::collections::{BTreeMap, HashMap};

use tern_proto::ApiError;
use tern_proto::v1::{self, DeliveryState, ErrorReason, entry_content::Content};
use tern_types::{ChatId, DeviceId, Seq, Slot, TraceContext, UserId};

use tern_chat_core::entry::EntryKind;
use tern_chat_core::receipts::Watermark;
use tern_chat_core::shard::Inspected;

use super::views::merged;
use crate::lookup::{Found, Sessions};
use crate::store::inspect::{MessageFacts, Recipient};

/// All facts that are known about one message.
pub struct Trace {
    pub chat: ChatId,
    pub seq: Seq,
    /// The facts in the store.
    pub facts: MessageFacts,
    /// The facts in the owner's memory.
    pub live: Inspected,
    /// The watermarks of the present members in the store.
    pub marks: Vec<(UserId, Watermark)>,
    /// The live sessions of the recipients.
    pub sessions: Sessions,
}

impl Trace {
    /// Converts the facts to the response of the API. `owner` is the name of this node. Fails if the entry does not
    /// decode.
    pub fn into_message(self, owner: &str) -> Result<v1::TraceMessageResponse, ApiError> {
        let trace_id = self.trace_id()?;
        let members = self.members();
        let entry = self.facts.entry;
        Ok(v1::TraceMessageResponse {
            chat_id: self.chat.to_string(),
            seq: self.seq.0,
            kind: kind(self.facts.kind).to_owned(),
            sender_user_id: entry.sender_user_id,
            sender_device_id: entry.sender_device_id,
            request_id: entry.request_id,
            stored_at_ms: entry.sent_at_ms,
            head_seq: self.facts.head.0,
            slot: u32::from(Slot::of_chat(self.chat).number()),
            owner_node: owner.to_owned(),
            settled: self.facts.unsettled_since.is_none(),
            unsettled_since_ms: self.facts.unsettled_since.unwrap_or_default().0,
            trace_id,
            members,
            sessions_incomplete: self.sessions.failed || self.sessions.unsure,
        })
    }

    /// Returns the trace id in hexadecimal digits: from the owner's memory, or else from the envelope, which has it if
    /// the client decided to trace the message. It is empty if the message is not known to be traced.
    fn trace_id(&self) -> Result<String, ApiError> {
        let live = self.live.traces.iter().find(|(seq, _)| *seq == self.seq);
        let context = match live {
            Some((_, context)) => Some(*context),
            None => in_envelope(&self.facts.entry)?,
        };
        let hex = |id: [u8; 16]| id.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(context.map(|context| hex(context.trace_id)).unwrap_or_default())
    }

    /// Returns each recipient with their watermark and the state of each of their devices.
    fn members(&self) -> Vec<v1::MemberTrace> {
        let stored: HashMap<UserId, Watermark> = self.marks.iter().copied().collect();
        let mut members: BTreeMap<UserId, v1::MemberTrace> = BTreeMap::new();
        for recipient in &self.facts.recipients {
            let user = recipient.user;
            let member = members.entry(user).or_insert_with(|| {
                let stored = stored.get(&user).copied().unwrap_or_default();
                // An operator is shown no more than another member of the chat.
                let mark = merged(stored, self.live.marks.get(&user)).told();
                v1::MemberTrace {
                    user_id: user.to_string(),
                    delivered_seq: mark.delivered.0,
                    read_seq: mark.read.0,
                    left: recipient.left,
                    suspended: recipient.suspended,
                    devices: Vec::new(),
                }
            });
            member.devices.extend(self.device(recipient));
        }
        members.into_values().collect()
    }

    /// Describes a device; `None` for a user without a device who is owed nothing.
    fn device(&self, recipient: &Recipient) -> Option<v1::DeviceTrace> {
        let state = self.state(recipient);
        if recipient.device.is_none() && state == DeliveryState::NotOwed {
            return None;
        }
        let owes = recipient.owes.filter(|_| state == DeliveryState::Owes);
        let sessions = self
            .sessions
            .sessions
            .iter()
            .filter(|found| Some(found.device) == recipient.device);
        Some(v1::DeviceTrace {
            device_id: recipient
                .device
                .as_ref()
                .map(DeviceId::to_string)
                .unwrap_or_default(),
            display_name: recipient.name.clone(),
            state: state.into(),
            owes_from_seq: owes.map_or(0, |row| row.from.0),
            owes_since_ms: owes.map_or(0, |row| row.since.0),
            notified_at_ms: owes.and_then(|row| row.notified_at).unwrap_or_default().0,
            sessions: sessions.map(session).collect(),
        })
    }

    /// Decides the state of delivery to a device.
    fn state(&self, recipient: &Recipient) -> DeliveryState {
        if recipient.owes.is_some_and(|row| row.from <= self.seq) {
            return DeliveryState::Owes;
        }
        let acked = |device: DeviceId| {
            self.live
                .acks
                .get(&device)
                .is_some_and(|acked| *acked >= self.seq)
        };
        let settled = self.facts.unsettled_since.is_none();
        match recipient.device {
            Some(device) if !settled && acked(device) => DeliveryState::Acknowledged,
            Some(_) if !recipient.active => DeliveryState::NotOwed,
            _ if !settled => DeliveryState::Pending,
            // An entry that was settled before the device was linked is history to it.
            Some(_) if recipient.linked_at.0 > self.facts.entry.sent_at_ms => DeliveryState::NotOwed,
            Some(_) => DeliveryState::Acknowledged,
            None => DeliveryState::NotOwed,
        }
    }
}

fn session(found: &Found) -> v1::AdminSession {
    v1::AdminSession {
        device_id: found.device.to_string(),
        session_id: found.session.to_string(),
        gateway: found.gateway.to_string(),
        since_ms: 0,
    }
}

/// Reads the trace context in the envelope of a message; `None` if there is none.
fn in_envelope(entry: &v1::Entry) -> Result<Option<TraceContext>, ApiError> {
    let content = entry
        .decoded_content()
        .map_err(|_| ApiError::new(ErrorReason::Internal, "the entry does not decode"))?;
    let Some(Content::Message(message)) = content.content else {
        return Ok(None);
    };
    Ok(TraceContext::sampled(
        &message.envelope.unwrap_or_default().traceparent,
    ))
}

/// Returns the name of the kind with this stored number.
fn kind(number: i16) -> &'static str {
    let kinds = [
        (EntryKind::Message, "message"),
        (EntryKind::Edit, "edit"),
        (EntryKind::Delete, "deletion"),
        (EntryKind::Reaction, "reaction"),
        (EntryKind::Pin, "pin"),
        (EntryKind::ChatCreated, "chat created"),
        (EntryKind::MembersAdded, "members added"),
        (EntryKind::MemberRemoved, "member removed"),
        (EntryKind::RoleChanged, "role changed"),
        (EntryKind::ChatUpdated, "chat updated"),
        (EntryKind::Own, "entry of an own log"),
    ];
    let known = kinds.into_iter().find(|(kind, _)| kind.number() == number);
    known.map_or("of a newer version", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use tern_types::Timestamp;

    use super::*;
    use crate::store::inspect::Owes;

    const SEQ: Seq = Seq(7);

    fn trace(unsettled: bool, acks: &[(DeviceId, Seq)]) -> Trace {
        Trace {
            chat: ChatId(uuid::Uuid::nil()),
            seq: SEQ,
            facts: MessageFacts {
                entry: v1::Entry {
                    sent_at_ms: 1000,
                    ..Default::default()
                },
                kind: 1,
                head: SEQ,
                unsettled_since: unsettled.then_some(Timestamp(1000)),
                recipients: Vec::new(),
            },
            live: Inspected {
                acks: acks.iter().copied().collect(),
                ..Default::default()
            },
            marks: Vec::new(),
            sessions: Sessions::default(),
        }
    }

    #[test]
    fn each_device_is_in_one_state() {
        let device = DeviceId::random();
        let with = |owes: Option<u64>, active, linked_at| Recipient {
            user: UserId::random(),
            left: false,
            suspended: false,
            device: Some(device),
            name: String::new(),
            active,
            linked_at: Timestamp(linked_at),
            owes: owes.map(|from| Owes {
                from: Seq(from),
                since: Timestamp(2000),
                notified_at: None,
            }),
        };
        let without = |owes: Option<u64>| Recipient {
            device: None,
            ..with(owes, false, 0)
        };
        use DeliveryState as S;
        let cases = [
            (trace(true, &[]), with(None, true, 0), S::Pending),
            (trace(true, &[(device, Seq(6))]), with(None, true, 0), S::Pending),
            (
                trace(true, &[(device, SEQ)]),
                with(None, true, 0),
                S::Acknowledged,
            ),
            (trace(true, &[]), with(Some(7), true, 0), S::Owes),
            (trace(false, &[]), with(Some(7), true, 0), S::Owes),
            (trace(false, &[]), with(Some(8), true, 0), S::Acknowledged),
            (trace(false, &[]), with(None, true, 0), S::Acknowledged),
            (trace(false, &[]), with(None, false, 0), S::NotOwed),
            (trace(false, &[]), with(None, true, 2000), S::NotOwed),
            (trace(true, &[]), without(None), S::Pending),
            (trace(false, &[]), without(Some(3)), S::Owes),
            (trace(false, &[]), without(None), S::NotOwed),
        ];
        for (number, (trace, recipient, expected)) in cases.into_iter().enumerate() {
            assert_eq!(trace.state(&recipient), expected, "case {number}");
        }
    }

    #[test]
    fn an_operator_does_not_see_what_somebody_read_with_read_receipts_off() {
        let user = UserId::random();
        let recipient = Recipient {
            user,
            left: false,
            suspended: false,
            device: None,
            name: String::new(),
            active: false,
            linked_at: Timestamp(0),
            owes: None,
        };
        let mark = |read, read_receipts_off| Watermark {
            delivered: SEQ,
            read: Seq(read),
            read_receipts_off,
        };
        for (live, read) in [(mark(5, false), 5), (mark(5, true), 0)] {
            let mut trace = trace(false, &[]);
            trace.facts.recipients.push(recipient.clone());
            trace.marks.push((user, mark(3, false)));
            trace.live.marks.insert(user, live);
            let members = trace.members();
            assert_eq!((members[0].delivered_seq, members[0].read_seq), (SEQ.0, read));
        }
    }

    #[test]
    fn sessions_are_incomplete_if_a_look_up_failed_or_is_unsure() {
        for (failed, unsure) in [(false, false), (true, false), (false, true)] {
            let trace = Trace {
                sessions: Sessions {
                    failed,
                    unsure,
                    ..Sessions::default()
                },
                ..trace(false, &[])
            };
            let message = trace.into_message("chat-0").unwrap();
            assert_eq!(message.sessions_incomplete, failed || unsure);
        }
    }

    #[test]
    fn every_kind_has_a_name() {
        assert_eq!(kind(EntryKind::MemberRemoved.number()), "member removed");
        assert_eq!(kind(999), "of a newer version");
    }
}
