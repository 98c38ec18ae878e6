//! `tern admin chat`: prints one chat with its members, head and owner.

use clap::Args;
use serde::Serialize;
use tern_proto::v1;
use tern_types::{ChatId, Clock};

use super::output::{facts, show, table, when};
use super::remote::Remote;

#[derive(Args, Clone, Debug)]
pub struct ChatArgs {
    /// The chat's id
    chat: ChatId,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Serialize)]
struct Chat {
    chat_id: String,
    kind: &'static str,
    title: String,
    created_by_user_id: String,
    created_at_ms: i64,
    head_seq: u64,
    last_entry_at_ms: i64,
    slot: u32,
    owner_node: String,
    unsettled: u32,
    inbox_rows: u32,
    members: Vec<Member>,
}

#[derive(Serialize)]
struct Member {
    user_id: String,
    role: &'static str,
    joined_seq: u64,
    devices: u32,
    delivered_seq: u64,
    read_seq: u64,
}

/// Runs `tern admin chat`.
pub async fn run(args: ChatArgs) -> anyhow::Result<()> {
    let request = v1::InspectChatRequest {
        chat_id: args.chat.to_string(),
    };
    let chat = chat(args.remote.api()?.inspect_chat(request).await?);
    show(args.remote.json, &chat, text)
}

fn text(chat: &Chat) -> String {
    let now = Clock::wall();
    let row = |member: &Member| {
        [
            member.user_id.clone(),
            member.role.to_owned(),
            member.joined_seq.to_string(),
            member.devices.to_string(),
            member.delivered_seq.to_string(),
            member.read_seq.to_string(),
        ]
    };
    let head = ["MEMBER", "ROLE", "SINCE SEQ", "DEVICES", "DELIVERED", "READ"];
    let facts = facts(&[
        ("chat", chat.chat_id.clone()),
        ("kind", chat.kind.to_owned()),
        ("title", chat.title.clone()),
        ("created", when(chat.created_at_ms, now)),
        ("created by", chat.created_by_user_id.clone()),
        (
            "head",
            format!("{}, {}", chat.head_seq, when(chat.last_entry_at_ms, now)),
        ),
        ("owner", format!("{} (slot {})", chat.owner_node, chat.slot)),
        ("unsettled", format!("{} commits", chat.unsettled)),
        (
            "inbox",
            format!("{} devices owe an acknowledgement", chat.inbox_rows),
        ),
    ]);
    format!("{facts}\n{}", table(head, chat.members.iter().map(row)))
}

fn chat(chat: v1::InspectChatResponse) -> Chat {
    Chat {
        kind: match chat.kind() {
            v1::ChatKind::Direct => "direct",
            v1::ChatKind::Group => "group",
            v1::ChatKind::Self_ => "own log",
            _ => "of a newer version",
        },
        members: chat.members.into_iter().map(member).collect(),
        chat_id: chat.chat_id,
        title: chat.title,
        created_by_user_id: chat.created_by_user_id,
        created_at_ms: chat.created_at_ms,
        head_seq: chat.head_seq,
        last_entry_at_ms: chat.last_entry_at_ms,
        slot: chat.slot,
        owner_node: chat.owner_node,
        unsettled: chat.unsettled,
        inbox_rows: chat.inbox_rows,
    }
}

fn member(member: v1::AdminMember) -> Member {
    Member {
        role: match member.role() {
            v1::Role::Owner => "owner",
            v1::Role::Admin => "admin",
            _ => "member",
        },
        user_id: member.user_id,
        joined_seq: member.joined_seq,
        devices: member.devices,
        delivered_seq: member.delivered_seq,
        read_seq: member.read_seq,
    }
}
