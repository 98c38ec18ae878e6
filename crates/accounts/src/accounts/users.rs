//! The calls that make, change and read users.

use tern_identity::principal::Principal;
use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_types::UserId;

use super::Accounts;
use crate::domain::access;
use crate::store::users::User;

/// The number of attempts to insert a user, and to read the user if the external id is taken. Users are not deleted, so
/// a second attempt is needed only if the store fails over between the two statements.
const INSERT_ROUNDS: usize = 2;

impl Accounts {
    /// Returns the user with this external id, whom it makes if there is none, and whether the user is new.
    pub async fn create_user(
        &self,
        principal: &Principal,
        external_id: String,
        display_name: String,
    ) -> Result<(User, bool), ApiError> {
        access::write_users(principal)?;
        let external_id = [external_id];
        for _ in 0..INSERT_ROUNDS {
            if let Some(user) = self
                .store
                .insert_user(UserId::random(), &external_id[0], &display_name)
                .await?
            {
                return Ok((user, true));
            }
            if let Some(user) = self.store.users(&[], &external_id).await?.pop() {
                return Ok((user, false));
            }
        }
        Err(ApiError::unavailable("the user is neither new nor there"))
    }

    /// Changes the user's display name. Returns `Err` with USER_NOT_FOUND if there is no such user.
    pub async fn update_user(
        &self,
        principal: &Principal,
        user: UserId,
        display_name: &str,
    ) -> Result<User, ApiError> {
        access::write_users(principal)?;
        self.store
            .update_user(user, display_name)
            .await?
            .ok_or_else(no_such_user)
    }

    /// Returns the users with these ids or external ids who exist. Devices get them with empty external ids.
    pub async fn users(
        &self,
        principal: &Principal,
        ids: &[UserId],
        external_ids: &[String],
    ) -> Result<Vec<User>, ApiError> {
        access::read_users(principal, !external_ids.is_empty())?;
        self.check_device(principal).await?;
        let mut users = self.store.users(ids, external_ids).await?;
        if !access::sees_external_ids(principal) {
            users.iter_mut().for_each(|user| user.external_id.clear());
        }
        Ok(users)
    }
}

pub(super) fn no_such_user() -> ApiError {
    ApiError::new(ErrorReason::UserNotFound, "there is no such user")
}
