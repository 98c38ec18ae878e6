//! Measures how long it takes to list the chats of a person who has many, and to read the history of a long chat.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use tern_proto::v1::send_message::To;
use tern_proto::v1::{Envelope, ListChatsRequest, ListMessagesRequest, MessageKind, SendMessageRequest};
use tern_types::{ChatId, RequestId, UserId};

use super::Common;
use super::line::{Heard, Line};
use super::meter::{Clock, Latency};
use super::people::{Person, make};
use super::report::Report;
use super::target::Target;

/// The number of sends of the writer in flight, which is the most that a stream may have.
const WINDOW: u64 = 128;
/// The number of calls of a back end at a time, while chats and reactions are made.
const AT_ONCE: usize = 16;
/// The number of messages of a page of history.
const PAGE: u32 = 50;

/// Reading: ListChats of a person in many chats, ListMessages of a long chat
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Groups of the person
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    chats: u32,
    /// Messages of the long chat
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    messages: u64,
    /// Reactions to messages of the long chat, each to another message
    #[arg(long, default_value_t = 5_000)]
    reactions: u64,
}

/// Makes the chats, then reads them page by page, one call at a time. Fails if a call fails.
pub async fn run(target: &Target, common: &Common, args: Args) -> anyhow::Result<Report> {
    let people = make(&target.back_end, 2, 1).await?;
    let [reader, writer] = &people[..] else {
        anyhow::bail!("two people were to be made");
    };
    make_groups(target, args.chats, reader.user, writer.user).await?;
    let long = write(target, common, args.messages, writer, reader).await?;
    react(target, long, args.messages, args.reactions, reader.user).await?;
    let load = format!("history: {} chats, {} messages in one", args.chats, args.messages);
    let mut report = Report::on(target, load).await?;
    let chats = Reading::of(target, common, "ListChats", || list_chats(target, reader.user)).await?;
    chats.report(
        &mut report,
        ["a page of ListChats", "Postgres, a page of ListChats"],
    );
    let messages = Reading::of(target, common, "ListMessages", || {
        list_messages(target, long, args.messages, reader.user)
    });
    let names = ["a page of ListMessages", "Postgres, a page of ListMessages"];
    messages.await?.report(&mut report, names);
    Ok(report)
}

/// The pages that were read in the measured time.
struct Reading {
    latency: Latency,
    pages: u64,
    /// The processor seconds of Postgres.
    postgres: f64,
}

impl Reading {
    /// Reads pages by `call`, which returns the latency of each page it has read, for the time that is measured.
    async fn of<F>(
        target: &Target,
        common: &Common,
        what: &'static str,
        mut call: impl FnMut() -> F,
    ) -> anyhow::Result<Self>
    where
        F: Future<Output = anyhow::Result<Vec<Duration>>>,
    {
        // The first call fills the caches.
        call().await.context(what)?;
        let (latency, mut pages) = (Latency::new(), 0);
        let (mark, began) = (target.mark().await?, Instant::now());
        while began.elapsed() < common.measure {
            for took in call().await.context(what)? {
                latency.record(took);
                pages += 1;
            }
        }
        let spent = target.since(&mark).await?;
        Ok(Self {
            latency,
            pages,
            postgres: spent.cpu.get("postgres").copied().unwrap_or_default(),
        })
    }

    fn report(&self, report: &mut Report, [page, postgres]: [&'static str; 2]) {
        report.latency(page, &self.latency);
        let each = self.postgres * 1000.0 / (self.pages.max(1) as f64);
        report.noted(postgres, each, "ms", format!("{} pages", self.pages));
    }
}

/// Makes groups of two people.
async fn make_groups(target: &Target, count: u32, owner: UserId, other: UserId) -> anyhow::Result<()> {
    let made = (0..count).map(|number| async move {
        let title = format!("Bench {number}");
        target.back_end.create_group(owner, &title, &[other]).await?;
        anyhow::Ok(())
    });
    futures::stream::iter(made)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

/// Writes the messages of the long chat on one stream, and returns the chat.
async fn write(
    target: &Target,
    common: &Common,
    count: u64,
    writer: &Person,
    reader: &Person,
) -> anyhow::Result<ChatId> {
    let mut line = Line::open(&target.gateways, 0, writer.device()?).await?;
    let to = To::PeerUserId(reader.user.to_string());
    let clock = Clock::start();
    let (mut sent, mut answered, mut heard) = (0, 0, Vec::new());
    while answered < count {
        while sent < count && sent - answered < WINDOW {
            line.say(&to, common.body, &clock);
            sent += 1;
        }
        line.flush().await?;
        line.hear(&mut heard).await?;
        for heard in heard.drain(..) {
            match heard {
                Heard::Sent { .. } => answered += 1,
                // The reason is the limit of sends a second. Another message takes the place of the refused one.
                Heard::Refused { .. } => sent -= 1,
                _ => {}
            }
        }
    }
    Ok(ChatId::direct(writer.user, reader.user))
}

/// Reacts to messages all over the long chat.
async fn react(target: &Target, chat: ChatId, messages: u64, count: u64, user: UserId) -> anyhow::Result<()> {
    let step = (messages / count.max(1)).max(1);
    let reactions = (0..count.min(messages)).map(|number| async move {
        let envelope = Envelope {
            kind: MessageKind::Reaction.into(),
            target_seq: 1 + number * step,
            ..Default::default()
        };
        let request = SendMessageRequest {
            chat_id: chat.to_string(),
            request_id: RequestId::random().to_string(),
            envelope: envelope.encoded(),
            body: "+1".into(),
            acting_user_id: user.to_string(),
            ..Default::default()
        };
        target.back_end.api().send_message(request).await?;
        anyhow::Ok(())
    });
    futures::stream::iter(reactions)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

/// Lists all chats of the user, and returns the latency of each page.
async fn list_chats(target: &Target, user: UserId) -> anyhow::Result<Vec<Duration>> {
    let (mut took, mut token) = (Vec::new(), String::new());
    loop {
        let request = ListChatsRequest {
            page_token: token,
            acting_user_id: user.to_string(),
            ..Default::default()
        };
        let began = Instant::now();
        let page = target.back_end.api().list_chats(request).await?;
        took.push(began.elapsed());
        token = page.next_page_token;
        if token.is_empty() {
            return Ok(took);
        }
    }
}

/// Reads the messages around a random place of the chat, as they are now.
async fn list_messages(
    target: &Target,
    chat: ChatId,
    messages: u64,
    user: UserId,
) -> anyhow::Result<Vec<Duration>> {
    let request = ListMessagesRequest {
        chat_id: chat.to_string(),
        around_seq: rand::random_range(1..=messages),
        page_size: PAGE,
        folded: true,
        acting_user_id: user.to_string(),
        ..Default::default()
    };
    let began = Instant::now();
    let page = target.back_end.api().list_messages(request).await?;
    let took = began.elapsed();
    anyhow::ensure!(!page.messages.is_empty(), "a page without messages");
    Ok(vec![took])
}
