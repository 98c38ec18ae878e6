//! The service `tern.v1.Users`.

use tern_proto::v1::users_server::Users;
use tern_proto::{ApiError, parse, v1};
use tern_types::limits::MAX_NAME_BYTES;
use tern_types::{Clock, Timestamp, UserId};
use tonic::{Request, Response, Status};

use super::{Service, open};
use crate::accounts::ContactChange;
use crate::domain::notifications::Notifications;
use crate::domain::privacy::{Audience, Privacy};
use crate::store::blocks::Place;
use crate::store::users::User;

/// The most users in one BatchGetUsers: a page of a contact list.
const MAX_USERS: usize = 256;
/// The longest external id (the app's own id of a user) in UTF-8 bytes.
pub(super) const MAX_EXTERNAL_ID_BYTES: usize = 256;
/// The most people in a page. Each of them is a UUID.
const MAX_PAGE: u32 = 1000;
/// The number of people in a page if the caller names none.
const DEFAULT_PAGE: u32 = 100;
/// The most contacts that one call may add, and the most that it may remove. A statement with so many takes some
/// milliseconds.
const MAX_CONTACTS_A_CALL: usize = 1000;
/// The last millisecond of the year 9999, in milliseconds since the Unix epoch: the largest time in a page token.
const LATEST_MS: i64 = 253_402_300_799_999;

#[tonic::async_trait]
impl Users for Service {
    async fn create_user(
        &self,
        request: Request<v1::CreateUserRequest>,
    ) -> Result<Response<v1::CreateUserResponse>, Status> {
        self.run(async {
            let (principal, request) = open(request)?;
            let external_id = parse::text("external_id", request.external_id, MAX_EXTERNAL_ID_BYTES)?;
            if external_id.is_empty() {
                return Err(ApiError::invalid("external_id", "must not be empty"));
            }
            let display_name = parse::name("display_name", request.display_name, MAX_NAME_BYTES)?;
            let (user, created) = self
                .accounts
                .create_user(&principal, external_id, display_name)
                .await?;
            Ok(v1::CreateUserResponse {
                user: Some(user_message(user)),
                created,
            })
        })
        .await
    }

    async fn update_user(
        &self,
        request: Request<v1::UpdateUserRequest>,
    ) -> Result<Response<v1::UpdateUserResponse>, Status> {
        self.run(async {
            let (principal, request) = open(request)?;
            let user = parse::id("user_id", &request.user_id)?;
            let display_name = parse::name("display_name", request.display_name, MAX_NAME_BYTES)?;
            let user = self.accounts.update_user(&principal, user, &display_name).await?;
            Ok(v1::UpdateUserResponse {
                user: Some(user_message(user)),
            })
        })
        .await
    }

    async fn batch_get_users(
        &self,
        request: Request<v1::BatchGetUsersRequest>,
    ) -> Result<Response<v1::BatchGetUsersResponse>, Status> {
        self.run(async {
            let (principal, request) = open(request)?;
            if request.user_ids.len() + request.external_ids.len() > MAX_USERS {
                return Err(ApiError::invalid(
                    "user_ids",
                    &format!("and external_ids are at most {MAX_USERS} together"),
                ));
            }
            let ids = request.user_ids.iter().map(|id| parse::id("user_ids", id));
            let ids = ids.collect::<Result<Vec<UserId>, _>>()?;
            let external_ids = request.external_ids.into_iter();
            let external_ids = external_ids.map(|id| parse::text("external_ids", id, MAX_EXTERNAL_ID_BYTES));
            let external_ids = external_ids.collect::<Result<Vec<_>, _>>()?;
            let users = self.accounts.users(&principal, &ids, &external_ids).await?;
            Ok(v1::BatchGetUsersResponse {
                users: users.into_iter().map(user_message).collect(),
            })
        })
        .await
    }

    async fn block(&self, request: Request<v1::BlockRequest>) -> Result<Response<v1::BlockResponse>, Status> {
        self.run(async {
            let (principal, request) = open(request)?;
            let user = parse::optional_id("user_id", &request.user_id)?;
            let blocked = parse::id("blocked_user_id", &request.blocked_user_id)?;
            self.accounts
                .block(&principal, user, blocked, Clock::wall())
                .await?;
            Ok(v1::BlockResponse {})
        })
        .await
    }

    async fn unblock(
        &self,
        request: Request<v1::UnblockRequest>,
    ) -> Result<Response<v1::UnblockResponse>, Status> {
        self.run(async {
            let (principal, request) = open(request)?;
            let user = parse::optional_id("user_id", &request.user_id)?;
            let blocked = parse::id("blocked_user_id", &request.blocked_user_id)?;
            self.accounts.unblock(&principal, user, blocked).await?;
            Ok(v1::UnblockResponse {})
        })
        .await
    }

    async fn list_blocked(
        &self,
        request: Request<v1::ListBlockedRequest>,
    ) -> Result<Response<v1::ListBlockedResponse>, Status> {
        self.run(async {
            let (principal, request) = open(request)?;
            let user = parse::optional_id("user_id", &request.user_id)?;
            let size = parse::page_size(request.page_size, DEFAULT_PAGE, MAX_PAGE);
            let after = BlockedPage::read(&request.page_token)?;
            let blocked = self.accounts.blocked(&principal, user, after, size).await?;
            Ok(v1::ListBlockedResponse {
                next_page_token: BlockedPage::after(full(&blocked, size)),
                user_ids: blocked.iter().map(|(_, id)| id.to_string()).collect(),
            })
        })
        .await
    }

    async fn set_contacts(
        &self,
        request: Request<v1::SetContactsRequest>,
    ) -> Result<Response<v1::SetContactsResponse>, Status> {
        self.run(async {
            let (principal, request) = open(request)?;
            let user = parse::optional_id("user_id", &request.user_id)?;
            let change = ContactChange {
                add: contact_ids("add_user_ids", &request.add_user_ids)?,
                remove: contact_ids("remove_user_ids", &request.remove_user_ids)?,
                replace: request.replace,
            };
            let count = self.accounts.set_contacts(&principal, user, change).await?;
            Ok(v1::SetContactsResponse {
                contact_count: u32::try_from(count).unwrap_or(u32::MAX),
            })
        })
        .await
    }

    async fn list_contacts(
        &self,
        request: Request<v1::ListContactsRequest>,
    ) -> Result<Response<v1::ListContactsResponse>, Status> {
        self.run(async {
            let (principal, request) = open(request)?;
            let user = parse::optional_id("user_id", &request.user_id)?;
            let size = parse::page_size(request.page_size, DEFAULT_PAGE, MAX_PAGE);
            let after = parse::optional_id("page_token", &request.page_token)?;
            let contacts = self.accounts.contacts(&principal, user, after, size).await?;
            let next = full(&contacts, size).map(ToString::to_string);
            Ok(v1::ListContactsResponse {
                user_ids: contacts.iter().map(ToString::to_string).collect(),
                next_page_token: next.unwrap_or_default(),
            })
        })
        .await
    }

    async fn get_privacy(
        &self,
        request: Request<v1::GetPrivacyRequest>,
    ) -> Result<Response<v1::GetPrivacyResponse>, Status> {
        self.run(async {
            let (principal, request) = open(request)?;
            let user = parse::optional_id("user_id", &request.user_id)?;
            let privacy = self.accounts.privacy(&principal, user).await?;
            Ok(v1::GetPrivacyResponse {
                privacy: Some(settings(privacy)),
            })
        })
        .await
    }

    async fn set_privacy(
        &self,
        request: Request<v1::SetPrivacyRequest>,
    ) -> Result<Response<v1::SetPrivacyResponse>, Status> {
        self.run(async {
            let (principal, request) = open(request)?;
            let user = parse::optional_id("user_id", &request.user_id)?;
            let privacy = privacy(request.privacy.unwrap_or_default())?;
            self.accounts.set_privacy(&principal, user, privacy).await?;
            Ok(v1::SetPrivacyResponse {
                privacy: Some(settings(privacy)),
            })
        })
        .await
    }

    async fn get_notification_settings(
        &self,
        request: Request<v1::GetNotificationSettingsRequest>,
    ) -> Result<Response<v1::GetNotificationSettingsResponse>, Status> {
        self.run(async {
            let (principal, request) = open(request)?;
            let user = parse::optional_id("user_id", &request.user_id)?;
            let settings = self.accounts.notifications(&principal, user).await?;
            Ok(v1::GetNotificationSettingsResponse {
                settings: Some(settings.message()),
            })
        })
        .await
    }

    async fn set_notification_settings(
        &self,
        request: Request<v1::SetNotificationSettingsRequest>,
    ) -> Result<Response<v1::SetNotificationSettingsResponse>, Status> {
        self.run(async {
            let (principal, request) = open(request)?;
            let user = parse::optional_id("user_id", &request.user_id)?;
            let settings = Notifications::read(request.settings.unwrap_or_default())?;
            self.accounts
                .set_notifications(&principal, user, &settings)
                .await?;
            Ok(v1::SetNotificationSettingsResponse {
                settings: Some(settings.message()),
            })
        })
        .await
    }
}

/// The page token of a list of blocked people. It has the time at which the last person of the page was blocked, and
/// that person's id, for example `1700000000000.0190d3f2-…`.
struct BlockedPage;

impl BlockedPage {
    fn after(last: Option<&Place>) -> String {
        last.map_or_else(String::new, |(at, user)| format!("{}.{user}", at.0))
    }

    fn read(token: &str) -> Result<Option<Place>, ApiError> {
        if token.is_empty() {
            return Ok(None);
        }
        let bad = || ApiError::invalid("page_token", "is none that this server gave");
        let (at, user) = token.split_once('.').ok_or_else(bad)?;
        let at: i64 = at.parse().map_err(|_| bad())?;
        // No page token has a time outside these bounds, and Postgres could not represent some of them.
        if !(0..=LATEST_MS).contains(&at) {
            return Err(bad());
        }
        Ok(Some((Timestamp(at), parse::id("page_token", user)?)))
    }
}

/// Returns the last item of a full page, after which there may be another page.
fn full<T>(page: &[T], size: u32) -> Option<&T> {
    page.last().filter(|_| page.len() == size as usize)
}

fn contact_ids(field: &'static str, ids: &[String]) -> Result<Vec<UserId>, ApiError> {
    if ids.len() > MAX_CONTACTS_A_CALL {
        return Err(ApiError::invalid(
            field,
            &format!("are at most {MAX_CONTACTS_A_CALL} a call"),
        ));
    }
    ids.iter().map(|id| parse::id(field, id)).collect()
}

fn privacy(settings: v1::PrivacySettings) -> Result<Privacy, ApiError> {
    let audience = match v1::Audience::try_from(settings.presence_audience) {
        Ok(v1::Audience::Unspecified | v1::Audience::Contacts) => Audience::Contacts,
        Ok(v1::Audience::Everyone) => Audience::Everyone,
        Ok(v1::Audience::Nobody) => Audience::Nobody,
        Err(_) => {
            return Err(ApiError::invalid(
                "privacy.presence_audience",
                "is none that this server knows",
            ));
        }
    };
    Ok(Privacy {
        audience,
        read_receipts_off: settings.read_receipts_off,
    })
}

fn settings(privacy: Privacy) -> v1::PrivacySettings {
    let audience = match privacy.audience {
        Audience::Everyone => v1::Audience::Everyone,
        Audience::Contacts => v1::Audience::Contacts,
        Audience::Nobody => v1::Audience::Nobody,
    };
    v1::PrivacySettings {
        presence_audience: audience.into(),
        read_receipts_off: privacy.read_receipts_off,
    }
}

fn user_message(user: User) -> v1::User {
    v1::User {
        user_id: user.id.to_string(),
        external_id: user.external_id,
        display_name: user.display_name,
        picture_media_id: user.picture.map(|media| media.to_string()).unwrap_or_default(),
        created_at_ms: user.created_at.0,
    }
}
