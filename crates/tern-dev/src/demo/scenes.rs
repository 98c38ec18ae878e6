//! The scenes, one file each, in the order in which they are played.

mod changes;
mod crash;
mod devices;
mod direct;
mod disappears;
mod group;
mod invited;
mod muted;
mod offline;
mod picture;
mod presence;
mod push;
mod twice;

use super::report::Report;
use super::stage::Stage;

/// Plays all scenes. Returns the error of the first step that did not happen.
pub async fn all(stage: &mut Stage, report: &mut Report) -> anyhow::Result<()> {
    direct::play(stage, report).await?;
    presence::play(stage, report).await?;
    group::play(stage, report).await?;
    devices::play(stage, report).await?;
    changes::play(stage, report).await?;
    muted::play(stage, report).await?;
    invited::play(stage, report).await?;
    disappears::play(stage, report).await?;
    picture::play(stage, report).await?;
    offline::play(stage, report).await?;
    push::play(stage, report).await?;
    twice::play(stage, report).await?;
    crash::play(stage, report).await
}
