//! Decides from the principal alone what a caller may do. Each function returns `Err` with the reason if the caller may
//! not do it.

use tern_identity::principal::{Principal, Scope};
use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_types::{DeviceId, UserId};

/// Checks that the caller may make and change users. Only a back end with the scope `users:write` may.
pub(crate) fn write_users(principal: &Principal) -> Result<(), ApiError> {
    principal.key(Scope::UsersWrite).map(|_| ())
}

/// Checks that the caller may read users. Any device and any back end with the scope `users:read` may, but only back
/// ends may ask by external id (the app's own id).
pub(crate) fn read_users(principal: &Principal, by_external_id: bool) -> Result<(), ApiError> {
    match principal {
        Principal::Device { .. } if by_external_id => Err(ApiError::new(
            ErrorReason::NotForDevices,
            "external ids are for back ends",
        )),
        _ => principal.require(Scope::UsersRead),
    }
}

/// Returns whether the caller is shown external ids, as back ends are.
pub(crate) fn sees_external_ids(principal: &Principal) -> bool {
    matches!(principal, Principal::Key { .. })
}

/// Checks that the caller may make the calls of operators' tools, for which an API key needs the scope `admin`.
pub fn administrate(principal: &Principal) -> Result<(), ApiError> {
    principal.key(Scope::Admin).map(|_| ())
}

/// Checks that the caller may link a device. Only a back end with the scope `devices:link` may, because it knows which
/// user is asking.
pub(crate) fn link_devices(principal: &Principal) -> Result<(), ApiError> {
    principal.key(Scope::DevicesLink).map(|_| ())
}

/// Returns the user whose devices the caller may list. A device may list those of its own user, and a back end those of
/// the user that it names in `asked`.
pub fn list_devices(principal: &Principal, asked: Option<UserId>) -> Result<UserId, ApiError> {
    user(principal, asked, Scope::UsersRead)
}

/// Returns the user whose blocks, contacts and settings the caller may read, by the same rule as [`list_devices`].
pub(crate) fn read_privacy(principal: &Principal, asked: Option<UserId>) -> Result<UserId, ApiError> {
    user(principal, asked, Scope::UsersRead)
}

/// Returns the user whose blocks, contacts and settings the caller may change, by the same rule as [`list_devices`].
pub(crate) fn write_privacy(principal: &Principal, asked: Option<UserId>) -> Result<UserId, ApiError> {
    user(principal, asked, Scope::UsersWrite)
}

/// Returns the user that the caller may act on: a device's own user, or the user that a back end with the scope
/// names.
fn user(principal: &Principal, asked: Option<UserId>, scope: Scope) -> Result<UserId, ApiError> {
    principal.require(scope)?;
    match (principal, asked) {
        (Principal::Device { user, .. }, None) => Ok(*user),
        (Principal::Device { user, .. }, Some(asked)) if asked == *user => Ok(asked),
        (Principal::Device { .. }, Some(_)) => Err(ApiError::new(
            ErrorReason::NotForDevices,
            "a device asks for its own user only",
        )),
        (Principal::Key { .. }, Some(asked)) => Ok(asked),
        (Principal::Key { .. }, None) => Err(ApiError::invalid("user_id", "is needed of back ends")),
    }
}

/// Returns the user whose devices the caller may revoke. A device may revoke those of its own user, and a back end
/// those of any user (`None`).
pub(crate) fn revoke_devices(principal: &Principal) -> Result<Option<UserId>, ApiError> {
    principal.require(Scope::DevicesLink)?;
    Ok(match principal {
        Principal::Device { user, .. } => Some(*user),
        Principal::Key { .. } => None,
    })
}

/// Returns the calling device, which says where it gets its pushes. Nobody says it for a device.
pub(crate) fn set_push_token(principal: &Principal) -> Result<(UserId, DeviceId), ApiError> {
    principal.device()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(user: UserId) -> Principal {
        Principal::Device {
            user,
            device: DeviceId::random(),
        }
    }

    fn key(scopes: &[Scope]) -> Principal {
        Principal::Key {
            key_id: "k".into(),
            scopes: scopes.to_vec(),
        }
    }

    fn reason<T>(result: Result<T, ApiError>) -> Option<ErrorReason> {
        result.err().map(|error| error.reason)
    }

    #[test]
    fn each_call_needs_its_scope_and_admin_has_all() {
        use Scope as S;
        type Rule = fn(&Principal) -> Option<ErrorReason>;
        let rules: [(&str, S, Rule); 7] = [
            ("write users", S::UsersWrite, |who| reason(write_users(who))),
            ("read users", S::UsersRead, |who| reason(read_users(who, true))),
            ("link", S::DevicesLink, |who| reason(link_devices(who))),
            ("list", S::UsersRead, |who| {
                reason(list_devices(who, Some(UserId::random())))
            }),
            ("read privacy", S::UsersRead, |who| {
                reason(read_privacy(who, Some(UserId::random())))
            }),
            ("write privacy", S::UsersWrite, |who| {
                reason(write_privacy(who, Some(UserId::random())))
            }),
            ("revoke", S::DevicesLink, |who| reason(revoke_devices(who))),
        ];
        for (name, needed, rule) in rules {
            for scope in S::ALL {
                let expected = (scope != needed && scope != S::Admin).then_some(ErrorReason::ScopeMissing);
                assert_eq!(rule(&key(&[scope])), expected, "{name} with {scope}");
            }
        }
    }

    #[test]
    fn a_device_reads_and_acts_for_its_own_user_only() {
        let (own, other) = (UserId::random(), UserId::random());
        let device = device(own);
        assert_eq!(reason(write_users(&device)), Some(ErrorReason::NotForDevices));
        assert_eq!(reason(link_devices(&device)), Some(ErrorReason::NotForDevices));
        assert_eq!(reason(read_users(&device, false)), None);
        assert_eq!(
            reason(read_users(&device, true)),
            Some(ErrorReason::NotForDevices)
        );
        for rule in [list_devices, read_privacy, write_privacy] {
            assert_eq!(rule(&device, None).ok(), Some(own));
            assert_eq!(rule(&device, Some(own)).ok(), Some(own));
            let others = rule(&device, Some(other));
            assert_eq!(reason(others), Some(ErrorReason::NotForDevices));
        }
        assert_eq!(revoke_devices(&device).ok(), Some(Some(own)));
        assert!(!sees_external_ids(&device));
        assert_eq!(
            set_push_token(&device).ok().map(|(user, _)| user),
            Some(own),
            "for itself"
        );
    }

    #[test]
    fn a_back_end_says_whose_devices_and_may_revoke_anybodys() {
        let key = key(&[Scope::UsersRead, Scope::DevicesLink]);
        assert_eq!(reason(list_devices(&key, None)), Some(ErrorReason::InvalidField));
        assert_eq!(reason(read_privacy(&key, None)), Some(ErrorReason::InvalidField));
        assert_eq!(revoke_devices(&key).ok(), Some(None));
        assert!(sees_external_ids(&key));
        let admin = self::key(&[Scope::Admin]);
        assert_eq!(reason(set_push_token(&admin)), Some(ErrorReason::DevicesOnly));
    }
}
