//! Lets watchers watch people, and records the presence that they are shown.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::task::JoinSet;

use super::Stage;
use crate::bench::line::{Heard, Line};

/// The presence that a watcher was last shown, by the person's index.
pub type Shown = HashMap<usize, bool>;

/// Makes each watcher watch its people. Returns when all watches are answered, with tasks that take what comes later.
pub async fn watch(
    lines: Vec<Line>,
    stage: &Arc<Stage>,
    watched: usize,
) -> anyhow::Result<JoinSet<anyhow::Result<Shown>>> {
    let mut beginning = JoinSet::new();
    for (number, mut line) in lines.into_iter().enumerate() {
        let stage = stage.clone();
        beginning.spawn(async move {
            line.watch(stage.of_watcher(number, watched));
            line.flush().await?;
            let (mut shown, mut heard) = (Shown::new(), Vec::new());
            loop {
                line.hear(&mut heard).await?;
                let mut watches = false;
                for heard in heard.drain(..) {
                    if let Heard::Watched { limited, error } = heard {
                        anyhow::ensure!(
                            !limited && !error,
                            "a watcher was not let watch all of its people"
                        );
                        watches = true;
                    } else {
                        take(&stage, heard, &mut shown);
                    }
                }
                if watches {
                    return anyhow::Ok((line, shown));
                }
            }
        });
    }
    let mut watching = JoinSet::new();
    while let Some(begun) = beginning.join_next().await {
        let (line, shown) = begun??;
        watching.spawn(look(line, stage.clone(), shown));
    }
    Ok(watching)
}

/// Records the presence that a watcher is shown, until all streams end. Returns the last of each person.
async fn look(mut line: Line, stage: Arc<Stage>, mut shown: Shown) -> anyhow::Result<Shown> {
    let mut heard = Vec::new();
    loop {
        tokio::select! {
            came = line.hear(&mut heard) => came?,
            () = stage.end.cancelled() => return Ok(shown),
        }
        for heard in heard.drain(..) {
            take(&stage, heard, &mut shown);
        }
    }
}

fn take(stage: &Stage, heard: Heard, shown: &mut Shown) {
    if let Heard::Presence { user, online } = heard
        && let Some(number) = stage.numbers.get(&user)
    {
        stage.shown(*number, online);
        shown.insert(*number, online);
    }
}

/// Returns how many watchers were last shown a presence that is not the person's present one.
pub async fn stale(mut watchers: JoinSet<anyhow::Result<Shown>>, stage: &Stage) -> anyhow::Result<usize> {
    let mut stale = 0;
    while let Some(watcher) = watchers.join_next().await {
        let shown = watcher?.context("a watcher")?;
        let wrong = shown
            .iter()
            .any(|(number, online)| *online != stage.is_online(*number));
        stale += usize::from(wrong);
    }
    Ok(stale)
}
