//! Pictures of people and groups, with the SDK.

use tern_client::{MediaError, PictureOf};
use tern_proto::error::reason_of;
use tern_proto::v1::{self, ErrorReason, entry_content::Content};
use tern_tests::User;
use tern_types::{ChatId, MediaId, RequestId};

use crate::studio::{Person, Studio};

fn hidden<T: std::fmt::Debug>(result: Result<T, MediaError>) {
    match result {
        Err(MediaError::Call(error)) if error.reason == ErrorReason::MediaNotFound => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_groups_picture_is_seen_by_all_members_and_a_persons_by_who_knows_them() {
    let studio = Studio::start().await;
    let [alice, bob, carol, eve] = studio.world.users(["alice", "bob", "carol", "eve"]).await;
    let (hers, his) = (studio.person(&alice).await, studio.person(&bob).await);
    let (carols, eves) = (studio.person(&carol).await, studio.person(&eve).await);
    let file = studio.file("boat.png", 70_000);
    let bytes = std::fs::read(&file).unwrap();
    let ticket = hers.client.upload_picture(&file, "image/png").await.unwrap();
    let media: MediaId = ticket.media_id.parse().unwrap();

    // An entry tells all members of the group's picture, and they may read it. Later members may too.
    let group = studio.world.group(&[&alice, &bob]).await;
    sets_it_once(&hers, &his, group, &ticket).await;
    let add = v1::AddMembersRequest {
        chat_id: group.to_string(),
        request_id: RequestId::random().to_string(),
        user_ids: vec![carol.id.to_string()],
        acting_user_id: String::new(),
    };
    hers.client.api().add_members(add).await.unwrap();
    let of_group = PictureOf::Chat(group);
    for member in [&hers, &his, &carols] {
        sees_the_groups_picture(member, group, &ticket, &bytes).await;
    }
    hidden(eves.client.download_picture(of_group, media).await);
    only_admins_set_it_and_with_their_own_ticket(&his, group, &ticket).await;

    // Bob may see her own picture, since he is in a group with her.
    let of_alice = PictureOf::User(alice.id);
    hidden(his.client.download_picture(of_alice, media).await);
    hers.client.set_picture(Some(&ticket)).await.unwrap();
    let users = v1::BatchGetUsersRequest {
        user_ids: vec![alice.id.to_string()],
        external_ids: Vec::new(),
    };
    let users = his.client.api().batch_get_users(users).await.unwrap().users;
    assert_eq!(users[0].picture_media_id, ticket.media_id);
    assert_eq!(his.client.download_picture(of_alice, media).await.unwrap(), bytes);
    hidden(eves.client.download_picture(of_alice, media).await);
    a_back_end_sets_none_of_others(&studio, &bob, &ticket).await;

    hers.client.set_chat_picture(group, None).await.unwrap();
    hers.client.set_picture(None).await.unwrap();
    hidden(carols.client.download_picture(of_group, media).await);
    hidden(his.client.download_picture(of_alice, media).await);
    assert_eq!((studio.count("media").await, studio.objects()), (1, 1));
    let both = v1::GetDownloadRequest {
        chat_id: ChatId::direct(alice.id, bob.id).to_string(),
        user_id: alice.id.to_string(),
        media_id: ticket.media_id,
        acting_user_id: String::new(),
    };
    let both = his.client.api().get_download(both).await.unwrap_err();
    assert_eq!(both.reason, ErrorReason::InvalidField);
    studio.world.end().await;
}

async fn sets_it_once(admin: &Person, member: &Person, group: ChatId, ticket: &v1::MediaTicket) {
    let seq = admin.client.set_chat_picture(group, Some(ticket)).await.unwrap();
    assert!(seq.is_some());
    let again = admin.client.set_chat_picture(group, Some(ticket)).await.unwrap();
    assert_eq!(again, None, "it is that already");
    let entry = member.changed(group).await;
    assert!(
        matches!(&entry.content.content, Some(Content::ChatPictureChanged(now)) if now.media_id == ticket.media_id),
        "{entry:?}"
    );
}

async fn sees_the_groups_picture(member: &Person, group: ChatId, ticket: &v1::MediaTicket, bytes: &[u8]) {
    let chat = v1::GetChatRequest {
        chat_id: group.to_string(),
        ..Default::default()
    };
    let chat = member.client.api().get_chat(chat).await.unwrap().chat.unwrap();
    assert_eq!(chat.picture_media_id, ticket.media_id);
    let media = ticket.media_id.parse().unwrap();
    let picture = member
        .client
        .download_picture(PictureOf::Chat(group), media)
        .await;
    assert_eq!(picture.unwrap(), bytes);
}

async fn only_admins_set_it_and_with_their_own_ticket(
    member: &Person,
    group: ChatId,
    ticket: &v1::MediaTicket,
) {
    let refused = member
        .client
        .set_chat_picture(group, Some(ticket))
        .await
        .unwrap_err();
    assert_eq!(refused.reason, ErrorReason::MediaTicket);
    let refused = member.client.set_chat_picture(group, None).await.unwrap_err();
    assert_eq!(refused.reason, ErrorReason::RoleTooLow);
}

/// Checks that a back end cannot give a user a picture that somebody else has uploaded.
async fn a_back_end_sets_none_of_others(studio: &Studio, user: &User, ticket: &v1::MediaTicket) {
    let back_end = studio.world.back_end().await;
    let for_user = v1::SetUserPictureRequest {
        media_id: ticket.media_id.clone(),
        acting_user_id: user.id.to_string(),
    };
    let not_theirs = back_end.media().set_user_picture(for_user).await.unwrap_err();
    assert_eq!(reason_of(&not_theirs), Some(ErrorReason::MediaNotFound));
}
