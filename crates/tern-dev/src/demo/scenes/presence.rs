//! Presence, typing and a block. By default a person's presence is shown only to contacts and to people to whom they
//! have written.

use std::time::Instant;

use tern_client::Presence;
use tern_proto::v1::SendErrorCode;

use crate::demo::phone::{Heard, Phone};
use crate::demo::report::{Report, millis};
use crate::demo::stage::Stage;
use crate::demo::talk::say;

/// Plays the scene. Returns the error of the first step that did not happen.
pub async fn play(stage: &mut Stage, report: &mut Report) -> anyhow::Result<()> {
    report.scene("Alice looks whether Bob is there");
    let (alice, bob, carol) = (&stage.alice, &stage.bob, &stage.carol);
    bob.client()?.set_active(false).await?;
    alice.client()?.watch_presence(vec![bob.user, carol.user]).await?;
    shows(alice, carol, |presence| presence == Presence::Hidden).await?;
    shows(alice, bob, |presence| matches!(presence, Presence::LastSeen(_))).await?;
    report.note(&format!(
        "{} is away; {} shows {} nothing: they have never written to each other",
        report.name("Bob"),
        report.name("Carol"),
        report.name("Alice")
    ));
    for (active, what) in [(true, "online"), (false, "last seen just now")] {
        let began = Instant::now();
        bob.client()?.set_active(active).await?;
        let at = shows(alice, bob, |presence| (presence == Presence::Online) == active).await?;
        let took = at.saturating_duration_since(began);
        report.note(&format!(
            "{} is {what} {}",
            report.name("Bob"),
            report.latency(took)
        ));
    }
    let chat = stage.direct();
    for (typing, what) in [(true, "is writing …"), (false, "has stopped")] {
        let began = Instant::now();
        if typing {
            bob.client()?.typing(chat).await?;
        } else {
            bob.client()?.stopped_typing(chat).await?;
        }
        let find = |heard: &Heard| {
            let newest = heard.typing.get(&(chat, bob.user))?;
            (newest.1 == typing).then_some(newest.0)
        };
        let at = alice.until("is told whether Bob writes", find).await?;
        let took = at.saturating_duration_since(began);
        report.note(&format!("{} {what} {}", report.name("Bob"), report.latency(took)));
    }
    report.checked("Alice saw Bob come, write and go, and nothing of Carol");

    bob.client()?.block(carol.user).await?;
    let request = carol.client()?.send(bob.user, "Bob? It is me, Carol").await?;
    let code = carol.refused(request).await?;
    anyhow::ensure!(
        code == SendErrorCode::NotAccepted,
        "a blocked sender was told {code:?}"
    );
    let began = Instant::now();
    bob.client()?.unblock(carol.user).await?;
    report.note(&report.dim(&format!(
        "Bob has blocked Carol: her message was not accepted; unblocked again after {}",
        millis(began.elapsed())
    )));
    carol.client()?.discard(request).await?;
    say(report, carol, bob.user, "Bob? It is me, Carol", &[bob]).await?;
    alice.client()?.watch_presence(Vec::new()).await?;
    report
        .checked("a blocked sender's message was refused without saying why, and got through once unblocked");
    Ok(())
}

/// Waits until the watcher is told a presence of the person `of` that `what` accepts. Returns the time at which it was.
async fn shows(watcher: &Phone, of: &Phone, what: impl Fn(Presence) -> bool) -> anyhow::Result<Instant> {
    let user = of.user;
    let find = |heard: &Heard| {
        let newest = heard.presences.get(&user)?;
        what(newest.1).then_some(newest.0)
    };
    watcher
        .until(&format!("is told what {} shows", of.name), find)
        .await
}
