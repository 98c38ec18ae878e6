//! The blocks, contacts and privacy settings of the person. All methods are unary calls in the name of the device's own
//! user. They fail with [`ClientError::Call`] if the server refuses the call or does not answer.

use tern_proto::v1;
use tern_types::UserId;

use crate::client::Client;
use crate::driver::malformed;
use crate::error::ClientError;

/// The largest page of a list, in users, and the largest number of contacts that one call may add or remove.
const PAGE: usize = 1000;

type Result<T, E = ClientError> = std::result::Result<T, E>;

/// The people who may see the person online, last seen and typing.
pub type Audience = v1::Audience;

/// The person's privacy settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Privacy {
    /// The people who may see the person online, last seen and typing.
    pub audience: Audience,
    /// True if others do not learn how far the person has read.
    pub read_receipts_off: bool,
}

impl Client {
    /// Blocks a user: no direct messages pass between the two any more, and neither sees the other online. The block
    /// holds when this returns. Blocking twice changes nothing. Fails with [`ClientError::Call`].
    pub async fn block(&self, user: UserId) -> Result<()> {
        let request = v1::BlockRequest {
            user_id: String::new(),
            blocked_user_id: user.to_string(),
        };
        self.api().block(request).await?;
        Ok(())
    }

    /// Ends a block. Messages that were refused while it held stay refused. Fails with [`ClientError::Call`].
    pub async fn unblock(&self, user: UserId) -> Result<()> {
        let request = v1::UnblockRequest {
            user_id: String::new(),
            blocked_user_id: user.to_string(),
        };
        self.api().unblock(request).await?;
        Ok(())
    }

    /// Lists everybody whom the person has blocked, the most recent block first. Reads all pages. Fails with
    /// [`ClientError::Call`].
    pub async fn list_blocked(&self) -> Result<Vec<UserId>> {
        let (mut users, mut request) = (Vec::new(), v1::ListBlockedRequest::default());
        request.page_size = PAGE as u32;
        loop {
            let page = self.api().list_blocked(request.clone()).await?;
            users.extend(parsed(&page.user_ids)?);
            if page.next_page_token.is_empty() {
                return Ok(users);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Replaces the person's contacts by `contacts`, and returns how many contacts there are; ids without a user are
    /// left out. More than 1,000 contacts take several calls; if one of them fails, the list is incomplete until this
    /// is called again.
    ///
    /// # Errors
    ///
    /// [`ClientError::Call`], of the first of these calls that fails.
    pub async fn set_contacts(&self, contacts: &[UserId]) -> Result<u32> {
        let (first, rest) = contacts.split_at(contacts.len().min(PAGE));
        let mut count = self.contact_call(first, &[], true).await?;
        for add in rest.chunks(PAGE) {
            count = self.contact_call(add, &[], false).await?;
        }
        Ok(count)
    }

    /// Adds and removes contacts, at most 1,000 each, and returns how many there are now. A user in both lists is
    /// removed. Fails with [`ClientError::Call`], also for longer lists.
    pub async fn change_contacts(&self, add: &[UserId], remove: &[UserId]) -> Result<u32> {
        self.contact_call(add, remove, false).await
    }

    async fn contact_call(&self, add: &[UserId], remove: &[UserId], replace: bool) -> Result<u32> {
        let texts = |ids: &[UserId]| ids.iter().map(ToString::to_string).collect();
        let request = v1::SetContactsRequest {
            user_id: String::new(),
            add_user_ids: texts(add),
            remove_user_ids: texts(remove),
            replace,
        };
        Ok(self.api().set_contacts(request).await?.contact_count)
    }

    /// Lists all of the person's contacts, ordered by id. Reads all pages. Fails with [`ClientError::Call`].
    pub async fn list_contacts(&self) -> Result<Vec<UserId>> {
        let (mut users, mut request) = (Vec::new(), v1::ListContactsRequest::default());
        request.page_size = PAGE as u32;
        loop {
            let page = self.api().list_contacts(request.clone()).await?;
            users.extend(parsed(&page.user_ids)?);
            if page.next_page_token.is_empty() {
                return Ok(users);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Returns the person's settings, as the server has them. Fails with [`ClientError::Call`].
    pub async fn privacy(&self) -> Result<Privacy> {
        let answer = self.api().get_privacy(v1::GetPrivacyRequest::default()).await?;
        settings(answer.privacy)
    }

    /// Replaces all of the person's settings, and returns them as the server has them. Fails with
    /// [`ClientError::Call`].
    pub async fn set_privacy(&self, privacy: Privacy) -> Result<Privacy> {
        let settings_wanted = v1::PrivacySettings {
            presence_audience: privacy.audience.into(),
            read_receipts_off: privacy.read_receipts_off,
        };
        let request = v1::SetPrivacyRequest {
            user_id: String::new(),
            privacy: Some(settings_wanted),
        };
        settings(self.api().set_privacy(request).await?.privacy)
    }
}

/// Parses user ids of an answer. Fails if one of them is malformed.
fn parsed(ids: &[String]) -> Result<Vec<UserId>> {
    let users = ids.iter().map(|id| id.parse().map_err(malformed));
    Ok(users.collect::<Result<_, _>>()?)
}

fn settings(settings: Option<v1::PrivacySettings>) -> Result<Privacy> {
    let settings = settings.ok_or_else(|| malformed("no settings"))?;
    Ok(Privacy {
        audience: settings.presence_audience(),
        read_receipts_off: settings.read_receipts_off,
    })
}
