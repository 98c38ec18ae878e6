//! Plays how a push wakes Bob's phone, which is on the ferry. When he reads on his laptop, the notification on the
//! phone goes away, and nothing is woken.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use tern_local::push::{Received, Subscription};
use tern_proto::v1;
use tern_types::{ChatId, Seq};

use crate::demo::phone::{BOUND, Phone};
use crate::demo::report::{Report, millis};
use crate::demo::stage::Stage;
use crate::demo::talk::{Said, read, say};
use crate::pushes;

/// The time within which a push is to be at the phone's push service.
const SOON: Duration = Duration::from_secs(1);

/// Plays the scene. Returns the error of the first step that did not happen.
pub async fn play(stage: &mut Stage, report: &mut Report) -> anyhow::Result<()> {
    report.scene("Bob's phone is woken by a push");
    let subscription = stage.push.web_push.subscribe();
    let request = v1::SetPushTokenRequest {
        token: Some(token(&subscription)),
    };
    stage.bob.client()?.api().set_push_token(request).await?;
    let mut laptop = stage.link("Bob", "Bob's laptop", 0).await?;
    stage.bob.disconnect().await?;
    report.note(&format!("{} is on the ferry again", report.name("Bob")));
    let (said, shown) = woken(stage, report, &subscription).await?;
    laptop.connect().await?;
    withdrawn(stage, report, &laptop, &said, &shown).await?;
    nothing_for_what_was_read(stage, report, &mut laptop, &subscription).await?;
    let took = stage.bob.connect().await?;
    report.note(&format!(
        "{} is ashore; connected and caught up after {}",
        report.name("Bob"),
        millis(took)
    ));
    Ok(())
}

/// Returns the subscription as a phone names it.
fn token(subscription: &Subscription) -> v1::PushToken {
    let web_push = v1::WebPushSubscription {
        endpoint: subscription.endpoint.clone(),
        p256dh: subscription.p256dh.clone().into(),
        auth: subscription.auth.clone().into(),
    };
    v1::PushToken {
        provider: Some(v1::push_token::Provider::WebPush(web_push)),
        sealing_key: bytes::Bytes::new(),
    }
}

/// Lets Alice write to Bob, and waits for the push. Returns the message and the push.
async fn woken(
    stage: &Stage,
    report: &mut Report,
    subscription: &Subscription,
) -> anyhow::Result<(Said, Received)> {
    let began = Instant::now();
    let text = "They are hatching, hurry";
    let said = say(report, &stage.alice, stage.direct(), text, &[&stage.laptop]).await?;
    let push = announces(stage, subscription, said.chat, said.seq).await?;
    let announced = pushes::announced(&push).context("a push without a notification")?;
    anyhow::ensure!(
        announced.sender_name == "Alice" && announced.reason() == v1::NotificationReason::Message,
        "the push says {announced:?}"
    );
    let took = push.at.saturating_duration_since(began);
    report.note(&format!(
        "Bob's phone: {} {}",
        pushes::describe(&push),
        report.latency(took)
    ));
    let soon = if took <= SOON { "within a second" } else { "late" };
    report.checked(&format!(
        "Bob on the ferry got his push {soon}: {} after Alice sent it, of which it waits 500 ms for an acknowledgement",
        millis(took)
    ));
    Ok((said, push))
}

/// Lets Bob read the message on his laptop, and waits until the notification is taken away on his phone.
async fn withdrawn(
    stage: &Stage,
    report: &mut Report,
    laptop: &Phone,
    said: &Said,
    shown: &Received,
) -> anyhow::Result<()> {
    laptop.hears(said.request).await?;
    let began = Instant::now();
    read(report, laptop, &stage.alice, said).await?;
    let find = |pushes: &[Received]| {
        let mut pushes = pushes.iter();
        pushes
            .find(|push| push.withdraws() && push.token == shown.token && push.tag() == shown.tag())
            .map(|push| push.at)
    };
    let at = stage.push.web_push.until("a withdrawal", BOUND, find).await?;
    report.checked(&format!(
        "Bob read it on his laptop; the notification on his phone went {} later",
        millis(at.saturating_duration_since(began))
    ));
    Ok(())
}

/// Lets Carol write to Bob, who reads it on his laptop at once, and then in the group, while no device of Bob's is on.
/// Checks that there is a push of the second message alone.
async fn nothing_for_what_was_read(
    stage: &Stage,
    report: &mut Report,
    laptop: &mut Phone,
    subscription: &Subscription,
) -> anyhow::Result<()> {
    let (alice, carol) = (&stage.alice, &stage.carol);
    let said = say(report, carol, stage.bob.user, "Bring sand eels", &[&*laptop]).await?;
    read(report, laptop, carol, &said).await?;
    let read_at = Instant::now();
    laptop.disconnect().await?;
    let group = stage.group()?;
    let fence = say(
        report,
        carol,
        group,
        "Two of three are out",
        &[alice, &stage.laptop],
    )
    .await?;
    let push = announces(stage, subscription, group, fence.seq).await?;
    report.note(&format!("Bob's phone: {}", pushes::describe(&push)));
    let chat = said.chat.to_string();
    let late = stage.push.web_push.received().into_iter().find(|push| {
        let of_chat = pushes::announced(push).is_some_and(|announced| announced.chat_id == chat);
        of_chat && push.token == subscription.id && push.at > read_at
    });
    anyhow::ensure!(late.is_none(), "a push of what Bob had read: {late:?}");
    report.checked("a push for what Bob did not see, and none for what he read on his laptop");
    Ok(())
}

/// Waits for the push that announces an entry.
async fn announces(
    stage: &Stage,
    subscription: &Subscription,
    chat: ChatId,
    seq: Seq,
) -> anyhow::Result<Received> {
    let chat = chat.to_string();
    let find = |pushes: &[Received]| {
        let mut pushes = pushes.iter().filter(|push| push.token == subscription.id);
        pushes
            .find(|push| {
                pushes::announced(push).is_some_and(|said| said.chat_id == chat && said.seq == seq.0)
            })
            .cloned()
    };
    let push = stage.push.web_push.until("a push", BOUND, find).await?;
    Ok(push)
}
