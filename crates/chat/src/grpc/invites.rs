//! Handles the calls of `tern.v1.Groups` about invite links and about requests to join. Each public method handles the
//! call of its name. This file has those about links, and `joining` those by which people join.

mod joining;

use std::sync::Arc;
use std::time::Duration;

use tern_identity::principal::Scope;
use tern_proto::v1::ErrorReason;
use tern_proto::{ApiError, parse, v1};
use tern_store::Pools;
use tern_types::{ChatId, Clock, InviteId, RequestId, UserId};
use tonic::{Request, Status};

use tern_chat_core::chat::{ChatKey, Role};
use tern_chat_core::{ChangeRefusal, Refusal};

use super::caller::Caller;
use super::chats::call::{Call, Calls, Needs, Who};
use super::parsed::{chat_id, no_chat};
use super::store_failed;
use crate::own::OwnLogs;
use crate::store::doors::{self, Door};
use crate::store::invites::{self, Invite, Made, NewInvite, Way};
use crate::store::seal::MasterKey;
use crate::{answer, invite_token};

/// The longest time after which a link ends, in seconds: a year.
const MAX_EXPIRES_AFTER_S: u32 = 31_536_000;
/// The highest number of people that a link may be limited to: many times the members of a group, as they come and go.
const MAX_USES: u32 = 100_000;

/// The handlers of the calls about invite links and requests to join.
pub struct Invites {
    pub calls: Calls,
    pub pools: Pools,
    pub master: MasterKey,
    /// The own logs of those who are told of requests.
    pub own: OwnLogs,
}

impl Invites {
    /// Makes a link into a group. A repeated request returns the link that it made before.
    pub async fn create_invite(
        &self,
        request: Request<v1::CreateInviteRequest>,
    ) -> Result<v1::CreateInviteResponse, Status> {
        let (call, chat) = self
            .calls
            .open_chat(request, Who::Anybody, Scope::ChatsWrite, Needs::Visible)
            .await?;
        let new = new_invite(&call, chat)?;
        let door = self.group(call.caller, chat).await?;
        let before = invites::before(self.pools.of(chat), &new).await;
        let made = match before.map_err(store_failed)? {
            Some(made) => made,
            None => {
                may_change(call.caller, &door)?;
                may_invite(call.caller, &door)?;
                let made = invites::make(&self.pools, &new, Clock::wall()).await;
                made.map_err(store_failed)?
            }
        };
        match made {
            Made::There(invite) => Ok(v1::CreateInviteResponse {
                invite: Some(shown(&door.key, &invite)),
            }),
            Made::RequestIdReused => Err(answer::to_error(&Refusal::RequestIdReused).into()),
            Made::Full => Err(full("the group has as many links as are allowed").into()),
        }
    }

    /// Lists the links that are in force: all to who runs the group, and to others their own.
    pub async fn list_invites(
        &self,
        request: Request<v1::ListInvitesRequest>,
    ) -> Result<v1::ListInvitesResponse, Status> {
        let (call, chat) = self
            .calls
            .open_chat(request, Who::Anybody, Scope::ChatsRead, Needs::Visible)
            .await?;
        let door = self.group(call.caller, chat).await?;
        let by = (!runs(call.caller, &door)).then_some(call.caller.user);
        let listed = invites::list(&self.pools, chat, by, Clock::wall()).await;
        let listed = listed.map_err(store_failed)?;
        let invites = listed.iter().map(|invite| shown(&door.key, invite)).collect();
        Ok(v1::ListInvitesResponse { invites })
    }

    /// Ends a link.
    pub async fn revoke_invite(
        &self,
        request: Request<v1::RevokeInviteRequest>,
    ) -> Result<v1::RevokeInviteResponse, Status> {
        let (call, chat) = self
            .calls
            .open_chat(request, Who::Anybody, Scope::ChatsWrite, Needs::Visible)
            .await?;
        let invite: InviteId = parse::id("invite_id", &call.request.invite_id)?;
        let door = self.group(call.caller, chat).await?;
        may_change(call.caller, &door)?;
        let now = Clock::wall();
        let offered = invites::offer(self.pools.of(chat), chat, invite, now).await;
        if let Some((maker, _)) = offered.map_err(store_failed)? {
            if maker != call.caller.user && !runs(call.caller, &door) {
                return Err(role_too_low().into());
            }
            let revoked = invites::revoke(&self.pools, chat, invite, now).await;
            revoked.map_err(store_failed)?;
        }
        Ok(v1::RevokeInviteResponse {})
    }

    /// Says where a link leads.
    pub async fn look_up_invite(
        &self,
        request: Request<v1::LookUpInviteRequest>,
    ) -> Result<v1::LookUpInviteResponse, Status> {
        let call = self.calls.open(request, Who::Person, Scope::ChatsRead).await?;
        let chat = chat_id(&call.request.chat_id)?;
        let (door, invite) = self.proven(call.caller, chat, &call.request.token).await?;
        let way = self.way(&door, chat, invite, call.caller.user).await?;
        let needs_approval = match way {
            Way::Closed => return Err(invite_not_found().into()),
            Way::Asks => true,
            Way::Open => false,
        };
        Ok(v1::LookUpInviteResponse {
            title: door.title,
            description: door.description,
            member_count: door.member_count,
            needs_approval,
            is_member: door.role.is_some(),
        })
    }

    /// Reads the group as the caller meets it. Fails if there is no such chat, or it is no group.
    async fn group(&self, caller: Caller, chat: ChatId) -> Result<Door, ApiError> {
        let door = self.door(chat, caller.user).await?.ok_or_else(no_chat)?;
        if door.is_group {
            Ok(door)
        } else {
            Err(not_a_group())
        }
    }

    /// Reads the chat as the user meets it; `None` if there is no such chat.
    async fn door(&self, chat: ChatId, user: UserId) -> Result<Option<Door>, ApiError> {
        let door = doors::door(&self.pools, &self.master, chat, user).await;
        door.map_err(store_failed)
    }

    /// Reads the group that a link leads to, and which link the token is of. The store is not asked about a link whose
    /// token is forged. A chat that does not exist is answered like a forged token, after the same work.
    async fn proven(&self, caller: Caller, chat: ChatId, token: &str) -> Result<(Door, InviteId), ApiError> {
        let door = self.door(chat, caller.user).await?;
        let no_key = || ChatKey(Arc::new([0; 32]));
        let key = door.as_ref().map_or_else(no_key, |door| door.key.clone());
        let invite = invite_token::verify(&key, token);
        match (door, invite) {
            (Some(door), Some(invite)) if door.is_group => Ok((door, invite)),
            // A member knows that there is this chat.
            (Some(door), _) if !door.is_group && door.role.is_some() => Err(not_a_group()),
            _ => Err(invite_not_found()),
        }
    }

    /// Returns what the link, whose token was shown, lets the user do.
    async fn way(&self, door: &Door, chat: ChatId, invite: InviteId, user: UserId) -> Result<Way, ApiError> {
        let way = invites::way(&self.pools, chat, invite, user, Clock::wall()).await;
        let way = way.map_err(store_failed)?;
        // A group without members takes nobody in by a link: it would have no owner, and nobody who answers a request.
        let closed = door.frozen || door.member_count == 0;
        Ok(if closed { Way::Closed } else { way })
    }
}

/// Reads the link that a call asks for.
fn new_invite(call: &Call<v1::CreateInviteRequest>, chat: ChatId) -> Result<NewInvite, ApiError> {
    let (user, asked) = (call.caller.user, &call.request);
    let request: RequestId = parse::id("request_id", &asked.request_id)?;
    let expires_after_s = at_most("expires_after_s", asked.expires_after_s, MAX_EXPIRES_AFTER_S)?;
    Ok(NewInvite {
        chat,
        id: InviteId::of(user, chat, request),
        created_by: user,
        expires_after: Duration::from_secs(expires_after_s.into()),
        max_uses: at_most("max_uses", asked.max_uses, MAX_USES)?,
        needs_approval: asked.needs_approval,
    })
}

/// Refuses a number that is too high.
fn at_most(field: &'static str, number: u32, most: u32) -> Result<u32, ApiError> {
    if number > most {
        return Err(ApiError::invalid(field, &format!("must be at most {most}")));
    }
    Ok(number)
}

/// Refuses a caller who may not add members, and so may neither make links nor answer who asks to join.
fn may_invite(caller: Caller, door: &Door) -> Result<(), ApiError> {
    if caller.is_nobody() || door.role >= Some(door.add_role) {
        Ok(())
    } else {
        Err(role_too_low())
    }
}

/// Refuses every caller but the operator's back end while the chat is frozen.
fn may_change(caller: Caller, door: &Door) -> Result<(), ApiError> {
    if door.frozen && !caller.is_nobody() {
        return Err(answer::to_error(&Refusal::Frozen));
    }
    Ok(())
}

/// Returns whether the caller runs the group: as an admin, as an owner, or as a back end in nobody's name.
fn runs(caller: Caller, door: &Door) -> bool {
    caller.is_nobody() || door.role >= Some(Role::Admin)
}

/// Converts a link to the public API.
fn shown(key: &ChatKey, invite: &Invite) -> v1::Invite {
    let maker = Some(invite.created_by).filter(|maker| *maker != UserId::SYSTEM);
    v1::Invite {
        invite_id: invite.id.to_string(),
        token: invite_token::of(key, invite.id),
        created_by_user_id: maker.map(|maker| maker.to_string()).unwrap_or_default(),
        created_at_ms: invite.created_at.0,
        expires_at_ms: invite.expires_at.map_or(0, |at| at.0),
        max_uses: invite.max_uses,
        uses: invite.uses,
        needs_approval: invite.needs_approval,
    }
}

fn role_too_low() -> ApiError {
    answer::change_to_error(&ChangeRefusal::RoleTooLow)
}

fn not_a_group() -> ApiError {
    answer::change_to_error(&ChangeRefusal::NotAGroup)
}

fn invite_not_found() -> ApiError {
    answer::change_to_error(&ChangeRefusal::InviteNotFound)
}

/// Returns the error of a call that would make a list too long.
fn full(why: &str) -> ApiError {
    ApiError::new(ErrorReason::ListFull, why)
}

#[cfg(test)]
mod tests {
    use tern_types::{DeviceId, Timestamp};

    use super::*;

    fn door(role: Option<Role>, add_role: Role, frozen: bool) -> Door {
        Door {
            is_group: true,
            title: String::new(),
            description: String::new(),
            frozen,
            member_count: 3,
            role,
            add_role,
            key: ChatKey(Arc::new([1; 32])),
        }
    }

    fn caller(user: UserId, device: Option<DeviceId>) -> Caller {
        Caller { user, device }
    }

    #[test]
    fn who_may_add_members_may_make_links_and_who_runs_the_group_sees_all() {
        use Role::{Admin, Member, Owner};
        let person = caller(UserId::random(), Some(DeviceId::random()));
        let cases = [
            (None, Member, false, false),
            (Some(Member), Member, true, false),
            (Some(Member), Admin, false, false),
            (Some(Admin), Member, true, true),
            (Some(Admin), Admin, true, true),
            (Some(Admin), Owner, false, true),
            (Some(Owner), Owner, true, true),
        ];
        for (role, add_role, invites, sees_all) in cases {
            let door = door(role, add_role, false);
            let shown = (may_invite(person, &door).is_ok(), runs(person, &door));
            assert_eq!(shown, (invites, sees_all), "{role:?} where {add_role:?} may add");
        }
        let nobody = caller(UserId::SYSTEM, None);
        let door = door(None, Owner, false);
        assert!(may_invite(nobody, &door).is_ok() && runs(nobody, &door));
    }

    #[test]
    fn only_the_operator_changes_what_is_frozen() {
        let person = caller(UserId::random(), Some(DeviceId::random()));
        let back_end = caller(UserId::random(), None);
        let nobody = caller(UserId::SYSTEM, None);
        for (caller, may) in [(person, false), (back_end, false), (nobody, true)] {
            let frozen = door(Some(Role::Owner), Role::Admin, true);
            assert_eq!(may_change(caller, &frozen).is_ok(), may, "{caller:?}");
            let free = door(Some(Role::Owner), Role::Admin, false);
            assert!(may_change(caller, &free).is_ok());
        }
    }

    #[test]
    fn a_link_is_shown_with_its_token_and_without_what_it_does_not_have() {
        let key = ChatKey(Arc::new([1; 32]));
        let id = InviteId(uuid::Uuid::from_u128(7));
        let invite = Invite {
            id,
            created_by: UserId::SYSTEM,
            created_at: Timestamp(5),
            expires_at: None,
            max_uses: 0,
            uses: 2,
            needs_approval: true,
        };
        let expected = v1::Invite {
            invite_id: id.to_string(),
            token: invite_token::of(&key, id),
            created_by_user_id: String::new(),
            created_at_ms: 5,
            expires_at_ms: 0,
            max_uses: 0,
            uses: 2,
            needs_approval: true,
        };
        assert_eq!(shown(&key, &invite), expected);
        let user = UserId::random();
        let by_user = Invite {
            created_by: user,
            expires_at: Some(Timestamp(9)),
            ..invite
        };
        let shown = shown(&key, &by_user);
        assert_eq!(
            (shown.created_by_user_id, shown.expires_at_ms),
            (user.to_string(), 9)
        );
    }

    #[test]
    fn numbers_of_a_link_are_bounded() {
        assert_eq!(at_most("max_uses", MAX_USES, MAX_USES).unwrap(), MAX_USES);
        let error = at_most("max_uses", MAX_USES + 1, MAX_USES).unwrap_err();
        assert_eq!(error.field, Some("max_uses"));
    }
}
