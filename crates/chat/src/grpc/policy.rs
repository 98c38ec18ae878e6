//! Parses the policy of a group.

use tern_proto::{ApiError, v1};

use tern_chat_core::Role;
use tern_chat_core::content::role_from_wire;
use tern_chat_core::policy::{JoinerHistory, MAX_JOINER_ENTRIES, MAX_SLOW_MODE_S, Policy};

/// Parses the policy of a request, where a field that is not set has its default.
///
/// # Errors
///
/// There is no policy, or one of its fields has a value that this version does not know, or one that is too large.
pub fn policy(policy: Option<&v1::GroupPolicy>) -> Result<Policy, ApiError> {
    let policy = policy.ok_or_else(|| ApiError::invalid("policy", "is needed"))?;
    let defaults = Policy::default();
    if policy.slow_mode_s > MAX_SLOW_MODE_S {
        let problem = format!("must be at most {MAX_SLOW_MODE_S}");
        return Err(ApiError::invalid("policy.slow_mode_s", &problem));
    }
    Ok(Policy {
        send_role: role("policy.send_role", policy.send_role, defaults.send_role)?,
        add_role: role("policy.add_role", policy.add_role, defaults.add_role)?,
        edit_role: role("policy.edit_role", policy.edit_role, defaults.edit_role)?,
        slow_mode: policy.slow_mode_s,
        joiner_history: joiner_history(policy)?,
    })
}

/// Parses a role by its number; `default` is the role that UNSPECIFIED stands for.
fn role(field: &'static str, number: i32, default: Role) -> Result<Role, ApiError> {
    let role = v1::Role::try_from(number).map_err(|_| ApiError::invalid(field, "must be a role"))?;
    Ok(role_from_wire(role).unwrap_or(default))
}

fn joiner_history(policy: &v1::GroupPolicy) -> Result<JoinerHistory, ApiError> {
    let entries = policy.joiner_history_entries;
    let history = v1::JoinerHistory::try_from(policy.joiner_history)
        .map_err(|_| ApiError::invalid("policy.joiner_history", "must be a part of the history"))?;
    match history {
        v1::JoinerHistory::Last if (1..=MAX_JOINER_ENTRIES).contains(&entries) => {
            Ok(JoinerHistory::Last(entries))
        }
        v1::JoinerHistory::Last => {
            let problem = format!("must be 1 to {MAX_JOINER_ENTRIES} with LAST");
            Err(ApiError::invalid("policy.joiner_history_entries", &problem))
        }
        v1::JoinerHistory::Unspecified | v1::JoinerHistory::None | v1::JoinerHistory::All if entries > 0 => {
            let problem = "may be set with LAST only";
            Err(ApiError::invalid("policy.joiner_history_entries", problem))
        }
        v1::JoinerHistory::Unspecified | v1::JoinerHistory::None => Ok(JoinerHistory::None),
        v1::JoinerHistory::All => Ok(JoinerHistory::All),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut v1::GroupPolicy)) -> v1::GroupPolicy {
        let mut policy = v1::GroupPolicy::default();
        change(&mut policy);
        policy
    }

    fn history(history: v1::JoinerHistory, entries: u32) -> v1::GroupPolicy {
        with(|policy| {
            policy.joiner_history = history.into();
            policy.joiner_history_entries = entries;
        })
    }

    #[test]
    fn a_policy_is_what_its_fields_say_and_the_defaults() {
        let default = Policy::default();
        let of = |joiner_history| Policy {
            joiner_history,
            ..default
        };
        let last = v1::JoinerHistory::Last;
        let cases = [
            (v1::GroupPolicy::default(), default),
            (default.to_wire(), default),
            (
                with(|policy| policy.send_role = v1::Role::Owner.into()),
                Policy {
                    send_role: Role::Owner,
                    ..default
                },
            ),
            (
                with(|policy| policy.add_role = v1::Role::Member.into()),
                Policy {
                    add_role: Role::Member,
                    ..default
                },
            ),
            (
                with(|policy| policy.edit_role = v1::Role::Member.into()),
                Policy {
                    edit_role: Role::Member,
                    ..default
                },
            ),
            (
                with(|policy| policy.slow_mode_s = 3_600),
                Policy {
                    slow_mode: 3_600,
                    ..default
                },
            ),
            (history(v1::JoinerHistory::None, 0), default),
            (history(v1::JoinerHistory::All, 0), of(JoinerHistory::All)),
            (history(last, 1), of(JoinerHistory::Last(1))),
            (history(last, 10_000), of(JoinerHistory::Last(10_000))),
        ];
        for (wire, expected) in cases {
            assert_eq!(policy(Some(&wire)).unwrap(), expected, "{wire:?}");
            assert_eq!(
                policy(Some(&expected.to_wire())).unwrap(),
                expected,
                "it is told as it is"
            );
        }
    }

    #[test]
    fn a_policy_that_cannot_be_names_the_field() {
        let last = v1::JoinerHistory::Last;
        let entries = "policy.joiner_history_entries";
        let cases = [
            (with(|policy| policy.send_role = 4), "policy.send_role"),
            (with(|policy| policy.add_role = -1), "policy.add_role"),
            (with(|policy| policy.edit_role = 17), "policy.edit_role"),
            (with(|policy| policy.slow_mode_s = 3_601), "policy.slow_mode_s"),
            (with(|policy| policy.joiner_history = 4), "policy.joiner_history"),
            (history(last, 0), entries),
            (history(last, 10_001), entries),
            (history(v1::JoinerHistory::Unspecified, 1), entries),
            (history(v1::JoinerHistory::None, 1), entries),
            (history(v1::JoinerHistory::All, 1), entries),
        ];
        for (wire, field) in cases {
            assert_eq!(policy(Some(&wire)).unwrap_err().field, Some(field), "{wire:?}");
        }
        assert_eq!(policy(None).unwrap_err().field, Some("policy"));
    }
}
