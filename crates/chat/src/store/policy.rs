//! Reads roles, and the policy of a group, from their columns.

use sqlx::Row;
use sqlx::postgres::PgRow;
use tern_types::ChatId;

use tern_chat_core::chat::Role;
use tern_chat_core::policy::{JoinerHistory, Policy};

use super::ReadError;

/// Reads the policy from a row with its columns: `send_role`, `add_role`, `edit_role`, `slow_mode_s` and
/// `joiner_history`.
///
/// # Errors
///
/// A column is missing, or this version does not know one of the roles.
pub fn policy(row: &PgRow, chat: ChatId) -> Result<Policy, ReadError> {
    let role_in = |column: &str| -> Result<Role, ReadError> {
        role(row.try_get(column)?).ok_or(ReadError::Unknown(chat, "a role"))
    };
    Ok(Policy {
        send_role: role_in("send_role")?,
        add_role: role_in("add_role")?,
        edit_role: role_in("edit_role")?,
        slow_mode: u32::try_from(row.try_get::<i32, _>("slow_mode_s")?).unwrap_or(0),
        joiner_history: JoinerHistory::from_number(row.try_get("joiner_history")?),
    })
}

/// Returns the role with this stored number; `None` if this version does not know it.
pub fn role(number: i16) -> Option<Role> {
    [Role::Member, Role::Admin, Role::Owner]
        .into_iter()
        .find(|role| *role as i16 == number)
}
