//! Waits for something that another process does, by asking again and again within a time limit.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The pause between two questions: short against the start of a server, long against the cost of a question.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks until `ask` returns `Ok`, and returns its value. After `bound` it returns an error that names `what` and the
/// last reason. If the last question is cut off by the bound, the reason of the question before it is named too.
pub async fn some<T, F, Fut>(what: &str, bound: Duration, mut ask: F) -> anyhow::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = anyhow::Result<T>>,
{
    let end = Instant::now() + bound;
    let mut before: Option<anyhow::Error> = None;
    loop {
        let reason = match tokio::time::timeout_at(end, ask()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(reason)) => reason,
            Err(_) => match before.take() {
                Some(before) => before.context("no answer to the last question, and to the one before"),
                None => anyhow::anyhow!("no answer"),
            },
        };
        if Instant::now() + PAUSE >= end {
            return Err(reason.context(format!("{what}: not within {bound:?}")));
        }
        before = Some(reason);
        sleep(PAUSE).await;
    }
}

/// Asks until the answer is `true`. After `bound` it returns an error, as [`some`] does.
pub async fn holds<F, Fut>(what: &str, bound: Duration, mut ask: F) -> anyhow::Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = anyhow::Result<bool>>,
{
    some(what, bound, || {
        let answer = ask();
        async move {
            if answer.await? {
                Ok(())
            } else {
                anyhow::bail!("not yet")
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_question_that_is_cut_off_does_not_hide_the_answer_before_it() {
        let mut asked = 0;
        let stuck = some::<(), _, _>("the moon", Duration::from_secs(1), || {
            asked += 1;
            let first = asked == 1;
            async move {
                if !first {
                    std::future::pending::<()>().await;
                }
                anyhow::bail!("still dark")
            }
        });
        let error = format!("{:#}", stuck.await.unwrap_err());
        assert!(
            error.contains("no answer") && error.ends_with("still dark"),
            "{error}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_comes_is_an_error_that_says_so() {
        let never = some::<(), _, _>("the moon", Duration::from_secs(1), || async {
            anyhow::bail!("still dark")
        });
        let error = format!("{:#}", never.await.unwrap_err());
        assert_eq!(error, "the moon: not within 1s: still dark");
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_hangs_is_bounded_too() {
        let hang = holds("an answer", Duration::from_secs(1), std::future::pending);
        assert!(hang.await.is_err());
    }
}
