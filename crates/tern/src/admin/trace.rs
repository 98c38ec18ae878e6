//! `tern admin trace`: prints how far one message has got, from its commit to each device of each member.

use clap::Args;
use serde::Serialize;
use tern_proto::v1;
use tern_types::{ChatId, Clock, RequestId, Timestamp, UserId};

use super::output::{facts, show, when};
use super::remark;
use super::remote::Remote;
use super::users::{Session, session};

/// Say where one message is: stored, settled, acknowledged by which devices
///
/// Name the message by --chat and --seq, or by --sender and --request-id (adding --chat is faster).
#[derive(Args, Clone, Debug)]
pub struct TraceArgs {
    /// The chat's id
    #[arg(long)]
    chat: Option<ChatId>,
    /// The message's sequence number in the chat
    #[arg(long, requires = "chat", conflicts_with_all = ["sender", "request_id"], required_unless_present = "sender")]
    seq: Option<u64>,
    /// User id of the sender
    #[arg(long, requires = "request_id")]
    sender: Option<UserId>,
    /// The request_id that the sender gave the message
    #[arg(long, requires = "sender")]
    request_id: Option<RequestId>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Serialize)]
struct Trace {
    chat_id: String,
    seq: u64,
    kind: String,
    sender_user_id: String,
    sender_device_id: String,
    request_id: String,
    stored_at_ms: i64,
    head_seq: u64,
    slot: u32,
    owner_node: String,
    settled: bool,
    /// The time of the commit in milliseconds since the Unix epoch; 0 if the message is settled.
    unsettled_since_ms: i64,
    /// Empty if no trace of the message is known: it was not traced, or the chat's owner has forgotten the
    /// trace.
    trace_id: String,
    sessions_incomplete: bool,
    members: Vec<Member>,
}

#[derive(Serialize)]
struct Member {
    user_id: String,
    delivered_seq: u64,
    read_seq: u64,
    left: bool,
    suspended: bool,
    devices: Vec<Device>,
}

#[derive(Serialize)]
struct Device {
    device_id: String,
    display_name: String,
    /// One of `acknowledged`, `owes`, `pending` and `not_owed`.
    state: &'static str,
    owes_from_seq: u64,
    owes_since_ms: i64,
    notified_at_ms: i64,
    sessions: Vec<Session>,
}

/// Runs `tern admin trace`.
pub async fn run(args: TraceArgs) -> anyhow::Result<()> {
    let request = v1::TraceMessageRequest {
        chat_id: args.chat.map(|chat| chat.to_string()).unwrap_or_default(),
        seq: args.seq.unwrap_or(0),
        sender_user_id: args.sender.map(|sender| sender.to_string()).unwrap_or_default(),
        request_id: args
            .request_id
            .map(|request| request.to_string())
            .unwrap_or_default(),
    };
    let trace = trace(args.remote.api()?.trace_message(request).await?);
    if trace.sessions_incomplete {
        remark("a presence node did not answer, or etcd is out of sight: sessions may be missing")?;
    }
    show(args.remote.json, &trace, |trace| text(trace, Clock::wall()))
}

fn text(trace: &Trace, now: Timestamp) -> String {
    let settled = if trace.settled {
        "yes: every device has acknowledged it, or owes".to_owned()
    } else {
        format!("not yet, since {}", when(trace.unsettled_since_ms, now))
    };
    let sender = match &*trace.sender_user_id {
        "" => "the back end".to_owned(),
        user if trace.sender_device_id.is_empty() => format!("{user}, by the back end"),
        user => format!("{user}, device {}", trace.sender_device_id),
    };
    let trace_id = match &*trace.trace_id {
        "" => "none known: it was not traced, or the owner has forgotten it",
        id => id,
    };
    let mut text = facts(&[
        ("message", format!("{} of chat {}", trace.seq, trace.chat_id)),
        ("kind", trace.kind.clone()),
        ("sender", sender),
        ("request id", trace.request_id.clone()),
        ("stored", when(trace.stored_at_ms, now)),
        ("settled", settled),
        ("owner", format!("{} (slot {})", trace.owner_node, trace.slot)),
        ("trace", trace_id.to_owned()),
    ]);
    for member in &trace.members {
        text.push_str(&member_text(member, trace.seq, now));
    }
    text
}

fn member_text(member: &Member, seq: u64, now: Timestamp) -> String {
    let marks = match (member.read_seq >= seq, member.delivered_seq >= seq) {
        (true, _) => "read",
        (false, true) => "delivered",
        (false, false) => "not delivered",
    };
    let mut notes = vec![marks];
    notes.extend(member.left.then_some("left since"));
    notes.extend(member.suspended.then_some("suspended"));
    notes.extend(member.devices.is_empty().then_some("has no device"));
    let mut text = format!("\n{}: {}\n", member.user_id, notes.join(", "));
    for device in &member.devices {
        text.push_str(&device_text(device, now));
    }
    text
}

fn device_text(device: &Device, now: Timestamp) -> String {
    let name = match &*device.device_id {
        "" => "first device to be linked".to_owned(),
        id => format!("{id} ({})", device.display_name),
    };
    let state = match device.state {
        "owes" => format!(
            "owes an acknowledgement from {} on, since {}",
            device.owes_from_seq,
            when(device.owes_since_ms, now)
        ),
        "pending" => "not acknowledged yet".to_owned(),
        "not_owed" => "nothing is owed to it".to_owned(),
        other => other.to_owned(),
    };
    let online = if device.sessions.is_empty() {
        "offline".to_owned()
    } else {
        let names: Vec<&str> = device.sessions.iter().map(|session| &*session.gateway).collect();
        format!("online at {}", names.join(", "))
    };
    let notified = match device.notified_at_ms {
        0 => String::new(),
        at => format!(", notified {}", when(at, now)),
    };
    format!("  {name}: {state}; {online}{notified}\n")
}

fn trace(trace: v1::TraceMessageResponse) -> Trace {
    Trace {
        chat_id: trace.chat_id,
        seq: trace.seq,
        kind: trace.kind,
        sender_user_id: trace.sender_user_id,
        sender_device_id: trace.sender_device_id,
        request_id: trace.request_id,
        stored_at_ms: trace.stored_at_ms,
        head_seq: trace.head_seq,
        slot: trace.slot,
        owner_node: trace.owner_node,
        settled: trace.settled,
        unsettled_since_ms: trace.unsettled_since_ms,
        trace_id: trace.trace_id,
        sessions_incomplete: trace.sessions_incomplete,
        members: trace.members.into_iter().map(member).collect(),
    }
}

fn member(member: v1::MemberTrace) -> Member {
    Member {
        user_id: member.user_id,
        delivered_seq: member.delivered_seq,
        read_seq: member.read_seq,
        left: member.left,
        suspended: member.suspended,
        devices: member.devices.into_iter().map(device).collect(),
    }
}

fn device(device: v1::DeviceTrace) -> Device {
    Device {
        state: match device.state() {
            v1::DeliveryState::Acknowledged => "acknowledged",
            v1::DeliveryState::Owes => "owes",
            v1::DeliveryState::Pending => "pending",
            v1::DeliveryState::NotOwed | v1::DeliveryState::Unspecified => "not_owed",
        },
        device_id: device.device_id,
        display_name: device.display_name,
        owes_from_seq: device.owes_from_seq,
        owes_since_ms: device.owes_since_ms,
        notified_at_ms: device.notified_at_ms,
        sessions: device.sessions.into_iter().map(session).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_who_has_it_and_who_does_not() {
        let device = |name: &str, state, owes_from_seq, gateway: Option<&str>| Device {
            device_id: format!("id-{name}"),
            display_name: name.to_owned(),
            state,
            owes_from_seq,
            owes_since_ms: 2000,
            notified_at_ms: 0,
            sessions: gateway
                .map(|gateway| Session {
                    device_id: String::new(),
                    session_id: "s".into(),
                    gateway: gateway.to_owned(),
                    since_ms: 0,
                })
                .into_iter()
                .collect(),
        };
        let trace = Trace {
            chat_id: "c".into(),
            seq: 7,
            kind: "message".into(),
            sender_user_id: "u".into(),
            sender_device_id: String::new(),
            request_id: "r".into(),
            stored_at_ms: 1000,
            head_seq: 7,
            slot: 5,
            owner_node: "chat-0".into(),
            settled: true,
            unsettled_since_ms: 0,
            trace_id: String::new(),
            sessions_incomplete: false,
            members: vec![Member {
                user_id: "a".into(),
                delivered_seq: 7,
                read_seq: 6,
                left: false,
                suspended: true,
                devices: vec![
                    device("phone", "acknowledged", 0, Some("gateway-1")),
                    device("tablet", "owes", 5, None),
                ],
            }],
        };
        let text = text(&trace, Timestamp(4000));
        for line in [
            "sender      u, by the back end",
            "stored      1970-01-01T00:00:01.000Z (3.0 s ago)",
            "trace       none known: it was not traced, or the owner has forgotten it",
            "a: delivered, suspended",
            "  id-phone (phone): acknowledged; online at gateway-1",
            "  id-tablet (tablet): owes an acknowledgement from 5 on, since 1970-01-01T00:00:02.000Z (2.0 s ago); offline",
        ] {
            assert!(text.lines().any(|have| have == line), "{line}\n in \n{text}");
        }
    }
}
