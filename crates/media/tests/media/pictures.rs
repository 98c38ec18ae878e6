//! Tests of pictures of people and groups: who may see them, and how long they are kept.

use bytes::Bytes;
use tern_media::store::access::Through;
use tern_proto::v1::ErrorReason;
use tern_types::{ChatId, MediaId, UserId};

use crate::DAY;
use crate::world::{File, World, in_cell_of, person, reason};

/// Makes a user that exists in the accounts tables.
async fn user(world: &World) -> UserId {
    let user = person();
    sqlx::query("INSERT INTO users (user_id, external_id, display_name) VALUES ($1, $1::text, '')")
        .bind(user.0)
        .execute(&world.pool)
        .await
        .unwrap();
    user
}

async fn pair(world: &World, sql: &'static str, one: UserId, two: UserId) {
    let statement = sqlx::query(sql).bind(one.0).bind(two.0);
    statement.execute(&world.pool).await.unwrap();
}

const BLOCK: &str = "INSERT INTO blocks (user_id, blocked_id) VALUES ($1, $2)";
const UNBLOCK: &str = "DELETE FROM blocks WHERE user_id = $1 AND blocked_id = $2";
const CONTACT: &str = "INSERT INTO contacts (user_id, contact_id) VALUES ($1, $2)";

async fn set(world: &World, user: UserId, media: Option<MediaId>) -> Result<(), ErrorReason> {
    let set = world.media.set_picture(user, media, world.now()).await;
    set.map_err(|error| error.reason)
}

/// Writes a group's picture as the commit of `SetPicture` does.
async fn group_picture(world: &World, chat: ChatId, media: Option<MediaId>) {
    let insert =
        "INSERT INTO CELL.chats (chat_id, kind, created_by, wrapped_key, picture) VALUES ($1, 2, $1, '', $2)
                  ON CONFLICT (chat_id) DO UPDATE SET picture = $2";
    sqlx::query(in_cell_of(chat, insert))
        .bind(chat.0)
        .bind(media.map(|media| media.0))
        .execute(&world.pool)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_persons_picture_is_for_who_knows_them() {
    let world = World::start().await;
    let (alice, bob, eve) = (user(&world).await, user(&world).await, user(&world).await);
    let file = File::new(2000, 300);
    let media = world.upload(alice, &file).await.media;
    let picture = Through::PictureOf(alice);
    let hidden = Err(ErrorReason::MediaNotFound);
    let chat = world.chat(&[(alice, 1), (bob, 7)]).await;
    assert_eq!(
        world.read(bob, media, picture).await,
        hidden,
        "it is no picture yet"
    );
    set(&world, alice, Some(media)).await.unwrap();
    for who in [alice, bob] {
        assert_eq!(world.read(who, media, picture).await.unwrap(), file.bytes);
    }
    assert_eq!(world.read(eve, media, picture).await, hidden, "a stranger");
    assert_eq!(
        world.read(bob, media, Through::PictureOf(eve)).await,
        hidden,
        "it is not eve's"
    );
    for (one, two) in [(alice, bob), (bob, alice)] {
        pair(&world, BLOCK, one, two).await;
        assert_eq!(world.read(bob, media, picture).await, hidden, "blocked");
        pair(&world, UNBLOCK, one, two).await;
    }
    world.leave(chat, bob, 9).await;
    assert_eq!(
        world.read(bob, media, picture).await,
        hidden,
        "they share no chat now"
    );
    pair(&world, CONTACT, alice, bob).await;
    assert_eq!(world.read(bob, media, picture).await.unwrap(), file.bytes);
    set(&world, alice, None).await.unwrap();
    assert_eq!(world.read(bob, media, picture).await, hidden, "it is taken away");
}

#[tokio::test]
async fn only_an_image_that_one_uploaded_becomes_ones_picture() {
    let world = World::start().await;
    let (alice, bob) = (user(&world).await, user(&world).await);
    let file = File::new(2000, 301);
    let media = world.upload(alice, &file).await.media;
    assert_eq!(
        set(&world, bob, Some(media)).await,
        Err(ErrorReason::MediaNotFound)
    );
    assert_eq!(
        set(&world, alice, Some(MediaId::random())).await,
        Err(ErrorReason::MediaNotFound)
    );
    let mut page = file.clone();
    page.declared.content_type = "text/html".to_owned();
    let page = world.upload(alice, &page).await.media;
    assert_eq!(
        set(&world, alice, Some(page)).await,
        Err(ErrorReason::InvalidField)
    );
    let large = File::of(Bytes::from(vec![7; 17 << 20]));
    let large = world.upload(alice, &large).await.media;
    assert_eq!(
        set(&world, alice, Some(large)).await,
        Err(ErrorReason::InvalidField)
    );
    let nobody = person();
    let media = world.upload(nobody, &File::new(10, 302)).await.media;
    assert_eq!(
        set(&world, nobody, Some(media)).await,
        Err(ErrorReason::MediaNotFound)
    );
}

#[tokio::test]
async fn a_groups_picture_is_for_its_members_whenever_they_joined() {
    let world = World::start().await;
    let (alice, bob, eve) = (person(), person(), person());
    let file = File::new(2000, 303);
    let media = world.upload(alice, &file).await.media;
    let chat = world.chat(&[(alice, 1), (bob, 9)]).await;
    world.refer(chat, media, 2).await;
    let hidden = Err(ErrorReason::MediaNotFound);
    assert_eq!(world.read(bob, media, Through::Chat(chat)).await, hidden);
    group_picture(&world, chat, Some(media)).await;
    assert_eq!(
        world.read(bob, media, Through::Chat(chat)).await.unwrap(),
        file.bytes
    );
    assert_eq!(world.read(eve, media, Through::Chat(chat)).await, hidden);
    group_picture(&world, chat, None).await;
    assert_eq!(world.read(bob, media, Through::Chat(chat)).await, hidden);
    assert_eq!(
        world.read(alice, media, Through::Chat(chat)).await.unwrap(),
        file.bytes
    );
}

#[tokio::test]
async fn the_collector_leaves_pictures_until_they_are_replaced() {
    let world = World::start().await;
    let alice = user(&world).await;
    let [first, second, groups] = [304, 305, 306].map(|seed| File::new(500, seed));
    let first = world.upload(alice, &first).await.media;
    let second = world.upload(alice, &second).await.media;
    let groups = world.upload(alice, &groups).await.media;
    let chat = world.chat(&[(alice, 1)]).await;
    set(&world, alice, Some(first)).await.unwrap();
    set(&world, alice, Some(second)).await.unwrap();
    group_picture(&world, chat, Some(groups)).await;
    let all = world.collect_all().await;
    assert_eq!((all.condemned, all.deleted), (1, 1), "the first");
    assert!(world.read(alice, second, Through::PictureOf(alice)).await.is_ok());
    assert!(world.read(alice, groups, Through::Chat(chat)).await.is_ok());
    group_picture(&world, chat, None).await;
    set(&world, alice, None).await.unwrap();
    assert_eq!(world.collect_all().await.deleted, 2);
    assert_eq!(world.files(), 0);
}

#[tokio::test]
async fn what_the_collector_has_marked_becomes_no_picture() {
    let world = World::start().await;
    let alice = user(&world).await;
    let media = world.upload(alice, &File::new(500, 307)).await.media;
    let later = world.now() + DAY * 2;
    assert_eq!(world.collector.round(later).await.unwrap().condemned, 1);
    assert!(!world.media.store.set_picture(alice, media, later).await.unwrap());
    let refused = world.media.set_picture(alice, Some(media), later).await;
    assert_eq!(reason(refused), ErrorReason::MediaNotFound);
    // Conversely, a media that was made a picture just before is not marked.
    let media = world.upload(alice, &File::new(500, 308)).await.media;
    assert!(world.media.store.set_picture(alice, media, later).await.unwrap());
    world.media.store.remove_picture(alice).await.unwrap();
    assert_eq!(world.collector.round(later).await.unwrap().condemned, 0);
}
