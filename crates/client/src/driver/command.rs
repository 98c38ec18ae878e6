//! The requests that the app's handles send to the driver.

use tokio::sync::oneshot;

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
    Apply { input: Input, reply: Reply },
    /// Works on the store.
    Read(Read),
}
