//! This module reads which files a message carries, as its body names them.

use bytes::Bytes;
use prost::Message as _;
use tern_proto::v1;
use tern_types::MediaId;

use super::{Entry, Outgoing};

impl Entry {
    /// Returns the text and the files of a message with attachments. Files in the body to which the envelope does not
    /// refer are left out. Returns `None` if the entry is no message, if it has no attachments, or if this client
    /// cannot read its body.
    pub fn attached(&self) -> Option<v1::AttachmentBody> {
        let message = self.message()?;
        attached(message.envelope.as_ref()?, &message.body)
    }
}

impl Outgoing {
    /// Returns the same as [`Entry::attached`], for a message that is not in the log yet.
    pub fn attached(&self) -> Option<v1::AttachmentBody> {
        attached(&self.envelope, &self.body)
    }
}

fn attached(envelope: &v1::Envelope, body: &Bytes) -> Option<v1::AttachmentBody> {
    let referred_to = &envelope.attachments;
    if referred_to.is_empty() {
        return None;
    }
    let mut body = v1::AttachmentBody::decode(body.clone()).ok()?;
    body.files.retain(|file| {
        let known = referred_to.iter().any(|known| known.media_id == file.media_id);
        known && file.media_id.parse::<MediaId>().is_ok()
    });
    Some(body)
}
