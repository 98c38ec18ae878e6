//! Takes what waits in a channel together, for a frame on a link.

use tokio::sync::mpsc;

/// Waits for one item, and takes up to `max` of those that are there by then, so that frames are coalesced without
/// timers. Returns `None` if the channel is closed and empty.
pub async fn gather<T>(rx: &mut mpsc::Receiver<T>, max: usize) -> Option<Vec<T>> {
    let mut items = Vec::new();
    (rx.recv_many(&mut items, max).await > 0).then_some(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn gather_takes_what_waits_up_to_a_limit() {
        let (tx, mut rx) = mpsc::channel(8);
        for item in 0..5 {
            tx.send(item).await.unwrap();
        }
        drop(tx);
        assert_eq!(gather(&mut rx, 3).await, Some(vec![0, 1, 2]));
        assert_eq!(gather(&mut rx, 3).await, Some(vec![3, 4]));
        assert_eq!(gather(&mut rx, 3).await, None);
    }
}
