//! Users.

use tern_node::principal::Principal;
use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_types::UserId;

use super::Accounts;
use crate::domain::access;
use crate::store::users::User;

/// A user that vanishes between two statements does not happen; one more round is for a fail-over in between.
const INSERT_ROUNDS: usize = 2;

impl Accounts {
    /// The user of this external id, and whether they are new.
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

    /// Those that exist. Their external ids are empty for devices.
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
