//! Carol joins a group by a link that Alice made. Alice lets her in first.

use std::time::Instant;

use tern_client::{InviteOptions, Joined};
use tern_types::ChatId;

use crate::demo::phone::Heard;
use crate::demo::report::{Report, millis};
use crate::demo::stage::Stage;
use crate::demo::talk::say;

/// The title of the group.
const TITLE: &str = "Ringers";

/// Plays the scene. Returns the error of the first step that did not happen.
pub async fn play(stage: &mut Stage, report: &mut Report) -> anyhow::Result<()> {
    report.scene("Carol joins by a link");
    let (alice, laptop, bob, carol) = (&stage.alice, &stage.laptop, &stage.bob, &stage.carol);
    let group = alice.client()?.create_group(TITLE, &[bob.user]).await?.id;
    ask(stage, report, group).await?;
    let began = Instant::now();
    alice
        .client()?
        .answer_join_request(group, carol.user, true)
        .await?;
    let first = |heard: &Heard| {
        let mut entries = heard.entries.iter();
        entries.find(|(_, entry)| entry.chat == group).map(|(at, _)| *at)
    };
    let at = carol.until("hears that it is in the group", first).await?;
    let took = millis(at.saturating_duration_since(began));
    report.note(&format!(
        "{} lets her in; she has the group after {took}",
        report.name("Alice")
    ));
    say(
        report,
        carol,
        group,
        "Thank you! Who has the pliers?",
        &[alice, laptop, bob],
    )
    .await?;
    report.checked("the link told the group's title and no names; Carol was in only once Alice had agreed");
    Ok(())
}

/// Lets Alice make a link, and Carol ask to join by it.
async fn ask(stage: &Stage, report: &mut Report, group: ChatId) -> anyhow::Result<()> {
    let (alice, carol) = (stage.alice.client()?, &stage.carol);
    let options = InviteOptions {
        max_uses: 1,
        needs_approval: true,
        ..Default::default()
    };
    let invite = alice.create_invite(group, options).await?;
    let page = carol.client()?.look_up_invite(group, &invite.token).await?;
    let right = page.title == TITLE && page.member_count == 2 && page.needs_approval && !page.is_member;
    anyhow::ensure!(right, "the link leads to {page:?}");
    let joined = carol.client()?.join_by_invite(group, &invite.token).await?;
    anyhow::ensure!(
        matches!(joined, Joined::Requested),
        "Carol was not to be in at once"
    );
    let requests = alice.join_requests(group).await?;
    let who: Vec<&str> = requests.iter().map(|request| request.user_id.as_str()).collect();
    anyhow::ensure!(who == [carol.user.to_string()], "these ask to join: {requests:?}");
    let told = |heard: &Heard| {
        let mut asked = heard.asked.iter();
        asked
            .find(|(_, chat, user)| (*chat, *user) == (group, carol.user))
            .map(|(at, ..)| *at)
    };
    stage
        .laptop
        .until("is told that Carol asks to join", told)
        .await?;
    let heard = carol.log(group);
    anyhow::ensure!(heard.is_empty(), "Carol heard {heard:?} before she was in");
    report.note(&format!(
        "{} gives {} a link for one person; she asks to join, and {}'s devices are told",
        report.name("Alice"),
        report.name("Carol"),
        report.name("Alice")
    ));
    Ok(())
}
