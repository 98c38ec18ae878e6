//! Sends messages and checks their arrivals and ticks, with every latency.

use std::time::{Duration, Instant};

use tern_client::{Mark, To};
use tern_types::{ChatId, RequestId, Seq, UserId};

use super::phone::Phone;
use super::report::{Report, millis};

/// A message that was sent and has arrived.
pub struct Said {
    /// The message's request_id.
    pub request: RequestId,
    /// The chat in which it was sent.
    pub chat: ChatId,
    /// The message's seq in that chat.
    pub seq: Seq,
}

/// Sends `text`, and waits until it has a seq, has arrived at each device of `hearers`, and is marked as delivered to
/// each of their users. Prints it with all times.
pub async fn say(
    report: &mut Report,
    from: &Phone,
    to: impl Into<To>,
    text: &str,
    hearers: &[&Phone],
) -> anyhow::Result<Said> {
    let began = Instant::now();
    let request = from.client()?.send(to, text.to_owned()).await?;
    report.sent();
    let (sent_at, seq) = from.sent(request).await?;
    let mut arrivals = Vec::new();
    for hearer in hearers {
        let (at, entry) = hearer.hears(request).await?;
        anyhow::ensure!(
            entry.seq == seq,
            "{} has it at {}, {} at {seq}",
            hearer.name,
            entry.seq,
            from.name
        );
        anyhow::ensure!(
            entry.text().is_some_and(|heard| heard == text),
            "{} heard something else",
            hearer.name
        );
        let latency = at.saturating_duration_since(began);
        report.delivered(latency);
        arrivals.push(format!("{} {}", hearer.name, millis(latency)));
    }
    // Wait for the sender's own entry too: entries that others wrote before it may come after its result.
    let chat = from.hears(request).await?.1.chat;
    let others = others(from, hearers);
    let mut ticks = report.tick("✓", sent_at.saturating_duration_since(began));
    if !others.is_empty() {
        let delivered = |mark: &Mark| mark.delivered >= seq;
        let at = from
            .receipts("sees its message delivered", chat, &others, delivered)
            .await?;
        ticks = format!(
            "{ticks}  {}",
            report.tick("✓✓", at.saturating_duration_since(began))
        );
    }
    let arrived = if arrivals.is_empty() {
        String::new()
    } else {
        format!("→ {}", arrivals.join(" · "))
    };
    report.message(from.who, text, &ticks, &arrived);
    Ok(Said { request, chat, seq })
}

/// Waits until something that `from` did to an earlier message has its place in the log and has arrived at each device
/// of `hearers`. `deed` is the time at which it was done, and its request_id. Prints it with all times.
pub async fn did(
    report: &mut Report,
    from: &Phone,
    deed: (Instant, RequestId),
    what: &str,
    hearers: &[&Phone],
) -> anyhow::Result<()> {
    let (began, request) = deed;
    report.sent();
    let (sent_at, _) = from.sent(request).await?;
    let mut arrivals = Vec::new();
    for hearer in hearers {
        let (at, _) = hearer.hears(request).await?;
        let latency = at.saturating_duration_since(began);
        report.delivered(latency);
        arrivals.push(format!("{} {}", hearer.name, millis(latency)));
    }
    // Wait for the sender's own entry too: then its device shows what was done.
    from.hears(request).await?;
    let tick = report.tick("✓", sent_at.saturating_duration_since(began));
    let arrived = format!("→ {}", arrivals.join(" · "));
    report.message(from.who, what, &tick, &arrived);
    Ok(())
}

/// Marks the chat as read by `reader` up to this message, and waits until `watcher`, who wrote it, sees that. Returns
/// how long that took.
pub async fn read(
    report: &mut Report,
    reader: &Phone,
    watcher: &Phone,
    said: &Said,
) -> anyhow::Result<Duration> {
    let began = Instant::now();
    reader.client()?.mark_read(said.chat, said.seq).await?;
    let seq = said.seq;
    let read = |mark: &Mark| mark.read >= seq;
    let at = watcher
        .receipts("sees its message read", said.chat, &[reader.user], read)
        .await?;
    let after = at.saturating_duration_since(began);
    let (reads, sees) = (report.name(reader.who), report.name(watcher.who));
    report.note(&format!(
        "{reads} reads it; {sees} sees {}",
        report.tick("✓✓ read", after)
    ));
    Ok(after)
}

/// Returns the users of the hearers, each once and without the sender.
fn others(from: &Phone, hearers: &[&Phone]) -> Vec<UserId> {
    let mut users: Vec<UserId> = hearers
        .iter()
        .map(|phone| phone.user)
        .filter(|user| *user != from.user)
        .collect();
    users.sort();
    users.dedup();
    users
}
