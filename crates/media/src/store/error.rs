//! What a failed statement means for the caller.

use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;

/// The error of a statement that failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A temporary failure: Postgres is away, starting, stopping or overloaded, or another transaction was in the
    /// way.
    #[error("the store is away")]
    Away(#[source] sqlx::Error),
    /// The statement itself is wrong, so it would fail again.
    #[error("the store refused a statement")]
    Fault(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if passes(&error) {
            Self::Away(error)
        } else {
            Self::Fault(error)
        }
    }
}

/// Whether the failure is temporary. The classes of SQLSTATE are: 08 connection, 25006 read-only after a fail-over,
/// 40 deadlock and serialisation, 53 resources, 55 lock not available, 57 shutdown and cancellation, 58 system.
fn passes(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            code == "25006"
                || ["08", "40", "53", "55", "57", "58"]
                    .iter()
                    .any(|class| code.starts_with(class))
        }),
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Away(source) => {
                tracing::warn!(error = %source, "store away");
                Self::unavailable("the store is away")
            }
            StoreError::Fault(source) => {
                tracing::error!(error = %source, "statement failed");
                Self::new(ErrorReason::Internal, "a fault of the server")
            }
        }
    }
}
