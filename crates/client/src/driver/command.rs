//! The requests that the app's handles send to the driver, and the ways to send them.

use tokio::sync::{mpsc, oneshot};

use tern_client_core::engine::Input;

use crate::error::ClientError;
use crate::store::Store;

/// The sender of the reply to an input.
pub(super) type Reply = oneshot::Sender<Result<(), ClientError>>;
/// A function that works on the store. It sends its result itself.
pub(super) type Read = Box<dyn FnOnce(&mut Store) + Send>;

/// A request of a [`crate::Client`] to the driver.
pub(crate) enum Command {
    /// Applies an input. The reply comes when the changes are durable.
    Apply { input: Box<Input>, reply: Reply },
    /// Works on the store.
    Read(Read),
}

/// Hands an input to the driver, and returns when the changes that follow from it are durable.
pub(crate) async fn apply(commands: &mpsc::Sender<Command>, input: Input) -> Result<(), ClientError> {
    let (reply, answer) = oneshot::channel();
    let input = Box::new(input);
    let sent = commands.send(Command::Apply { input, reply }).await;
    sent.map_err(|_| ClientError::Stopped)?;
    answer.await.map_err(|_| ClientError::Stopped)?
}

/// Lets the driver run `work` on the store, and returns the result.
pub(crate) async fn on_store<T: Send + 'static>(
    commands: &mpsc::Sender<Command>,
    work: impl FnOnce(&mut Store) -> Result<T, ClientError> + Send + 'static,
) -> Result<T, ClientError> {
    let (reply, answer) = oneshot::channel();
    let work = Box::new(move |store: &mut Store| {
        let _ = reply.send(work(store));
    });
    let sent = commands.send(Command::Read(work)).await;
    sent.map_err(|_| ClientError::Stopped)?;
    answer.await.map_err(|_| ClientError::Stopped)?
}
