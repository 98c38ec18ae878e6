//! Creates users and their devices, as a back end does.

use futures::{StreamExt as _, TryStreamExt as _};
use tern_client::{BackEnd, Credentials};
use tern_proto::v1;
use tern_types::{RequestId, UserId};

/// The number of calls at a time.
const AT_ONCE: usize = 16;

/// A user and their devices.
#[derive(Debug, Clone)]
pub struct Person {
    /// The user's id.
    pub user: UserId,
    /// The credentials of each device.
    pub devices: Vec<Credentials>,
}

impl Person {
    /// Returns the first device, or an error if there is none.
    pub fn device(&self) -> anyhow::Result<&Credentials> {
        self.devices
            .first()
            .ok_or_else(|| anyhow::anyhow!("a person without a device"))
    }
}

/// Creates `count` users with `devices` devices each. Every run creates new ones.
pub async fn make(back_end: &BackEnd, count: usize, devices: usize) -> anyhow::Result<Vec<Person>> {
    let run = RequestId::random();
    let people = (0..count).map(|number| {
        let name = format!("bench-{run}-{number}");
        async move {
            let user = back_end.create_user(&name, "Bench").await?;
            let mut person = Person {
                user,
                devices: Vec::with_capacity(devices),
            };
            for _ in 0..devices {
                person
                    .devices
                    .push(back_end.link_device(user, "bench", "bench").await?);
            }
            anyhow::Ok(person)
        }
    });
    futures::stream::iter(people)
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

/// Lets everyone see the presence of these people, so that strangers can watch them.
pub async fn share_presence(back_end: &BackEnd, people: &[Person]) -> anyhow::Result<()> {
    let shared = people.iter().map(|person| async move {
        let privacy = v1::PrivacySettings {
            presence_audience: v1::Audience::Everyone.into(),
            read_receipts_off: false,
        };
        let request = v1::SetPrivacyRequest {
            user_id: person.user.to_string(),
            privacy: Some(privacy),
        };
        back_end.api().set_privacy(request).await?;
        anyhow::Ok(())
    });
    futures::stream::iter(shared)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}
