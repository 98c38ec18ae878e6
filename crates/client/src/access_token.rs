//! The access token of a device. The driver keeps and renews it, and the unary calls read it. A call that was refused
//! because its token has expired asks the driver for a newer one.

use tokio::sync::{mpsc, oneshot, watch};

use crate::error::CallError;

/// The number of requests that may wait for the driver. Further calls wait before they ask.
const REQUESTS: usize = 16;

/// The driver's end of the token.
pub(crate) struct Keeper {
    /// The present token.
    pub(crate) token: watch::Sender<String>,
    /// The requests for a newer token.
    pub(crate) requests: mpsc::Receiver<Renew>,
}

/// A request for a newer token.
pub(crate) struct Renew {
    /// The token with which a call was refused.
    pub(crate) stale: String,
    /// The reply comes when there is a newer token, or is an error if there can be none.
    pub(crate) reply: oneshot::Sender<Result<(), CallError>>,
}

/// The calls' end of the token. It does not keep the driver alive.
#[derive(Clone)]
pub(crate) struct AccessToken {
    token: watch::Receiver<String>,
    requests: mpsc::Sender<Renew>,
}

/// Makes both ends of a token.
pub(crate) fn channel(token: String) -> (Keeper, AccessToken) {
    let (sender, receiver) = watch::channel(token);
    let (ask, requests) = mpsc::channel(REQUESTS);
    let keeper = Keeper {
        token: sender,
        requests,
    };
    let reader = AccessToken {
        token: receiver,
        requests: ask,
    };
    (keeper, reader)
}

impl std::fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AccessToken")
    }
}

impl AccessToken {
    /// Returns the present token.
    pub(crate) fn get(&self) -> String {
        self.token.borrow().clone()
    }

    /// Waits until there is a newer token than `stale`. Fails if the driver has ended or the token cannot be renewed.
    pub(crate) async fn renewed(&self, stale: &str) -> Result<(), CallError> {
        let stopped = || CallError::unavailable("the client has stopped");
        let (reply, answer) = oneshot::channel();
        let stale = stale.to_owned();
        let asked = self.requests.send(Renew { stale, reply }).await;
        asked.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}
