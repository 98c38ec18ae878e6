//! Decides by the SQLSTATE of a failed statement what the failure means for the caller.

use sqlx::error::ErrorKind;
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

/// Returns whether the failure is temporary, so that a retry may succeed. The SQLSTATEs in the list are: 08 connection,
/// 25006 read-only after a fail-over, 40 deadlock and serialisation, 53 resources, 55 lock not available, 57 shutdown
/// and cancellation, 58 system.
fn passes(error: &sqlx::Error) -> bool {
    is_cut_off(error) || begins_with(error, &["08", "25006", "40", "53", "55", "57", "58"])
}

/// Returns whether the connection failed, rather than a statement on it.
fn is_cut_off(error: &sqlx::Error) -> bool {
    matches!(
        error,
        sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
    )
}

/// Returns whether Postgres failed the statement with a SQLSTATE that begins with one of these.
fn begins_with(error: &sqlx::Error, states: &[&str]) -> bool {
    let sqlx::Error::Database(error) = error else {
        return false;
    };
    let code = error.code();
    code.is_some_and(|code| states.iter().any(|state| code.starts_with(state)))
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

/// Returns whether the statement failed because of its content. Otherwise the cause is the store, the connection or a
/// lock, and the same statement may succeed later.
pub fn is_refusal(error: &sqlx::Error) -> bool {
    let constraint = match error {
        sqlx::Error::Database(error) => !matches!(error.kind(), ErrorKind::Other),
        _ => matches!(error, sqlx::Error::Encode(_)),
    };
    // Class 22 is a data exception, class 23 a violated constraint, and class 54 an exceeded program limit.
    constraint || begins_with(error, &["22", "23", "54"])
}

/// Returns whether the store as a whole is out of reach, overloaded, shutting down or starting, so that not only this
/// statement failed.
pub fn is_away(error: &sqlx::Error) -> bool {
    // Class 08 is a failed connection, class 53 a lack of resources, and 57P a server that shuts down, has crashed or
    // is starting.
    is_cut_off(error) || begins_with(error, &["08", "53", "57P"])
}

/// Returns whether the statement waited for a lock for as long as the connection's `lock_timeout` says, because another
/// transaction holds it.
pub fn is_locked(error: &sqlx::Error) -> bool {
    begins_with(error, &["55P03"])
}

/// Returns whether the server gave the statement up because it took as long as the connection's `statement_timeout`
/// says. Nothing of its transaction is written, and the connection can be used again.
pub fn is_too_slow(error: &sqlx::Error) -> bool {
    begins_with(error, &["57014"])
}

/// Returns whether a deadlock or a serialisation failure ended the statement, so that it should be run again.
pub fn is_conflict(error: &sqlx::Error) -> bool {
    begins_with(error, &["40P01", "40001"])
}
