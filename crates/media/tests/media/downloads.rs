//! Tests of who may read which media.

use tern_media::domain::cdn::Cdn;
use tern_media::media::Media;
use tern_media::store::access::Through;
use tern_proto::v1::ErrorReason;
use tern_types::{ChatId, Timestamp};
use uuid::Uuid;

use crate::world::{File, World, get, in_cell_of, person, reason};

#[tokio::test]
async fn members_read_what_is_in_their_chat_since_they_joined() {
    let world = World::start().await;
    let (alice, bob, carol, dave) = (person(), person(), person(), person());
    let file = File::new(3000, 20);
    let media = world.upload(alice, &file).await.media;
    let chat = world.chat(&[(alice, 1), (bob, 5), (carol, 6)]).await;
    let in_chat = Through::Chat(chat);
    assert_eq!(
        world.read(bob, media, in_chat).await,
        Err(ErrorReason::MediaNotFound)
    );
    world.refer(chat, media, 5).await;
    assert_eq!(world.read(alice, media, in_chat).await.unwrap(), file.bytes);
    assert_eq!(
        world.read(bob, media, in_chat).await.unwrap(),
        file.bytes,
        "it is the entry he joined with"
    );
    for (user, through, what) in [
        (carol, in_chat, "she joined later"),
        (dave, in_chat, "no member"),
        (bob, Through::OwnUpload, "not his upload"),
        (bob, Through::Chat(ChatId(Uuid::new_v4())), "no such chat"),
    ] {
        assert_eq!(
            world.read(user, media, through).await,
            Err(ErrorReason::MediaNotFound),
            "{what}"
        );
        let forward = world.media.forward(user, media, through, world.now()).await;
        assert_eq!(reason(forward), ErrorReason::MediaNotFound, "{what}");
    }
    // When the media is sent again, after she joined, she may read it.
    world.refer(chat, media, 9).await;
    assert_eq!(world.read(carol, media, in_chat).await.unwrap(), file.bytes);
    // A member who has left may read nothing. After coming back, he may read what falls into his times.
    world.leave(chat, bob, 12).await;
    assert_eq!(
        world.read(bob, media, in_chat).await,
        Err(ErrorReason::MediaNotFound)
    );
    let insert =
        "INSERT INTO CELL.members (chat_id, user_id, joined_seq, role, devices) VALUES ($1, $2, 20, 1, '{}')";
    sqlx::query(in_cell_of(chat, insert))
        .bind(chat.0)
        .bind(bob.0)
        .execute(&world.pool)
        .await
        .unwrap();
    assert_eq!(world.read(bob, media, in_chat).await.unwrap(), file.bytes);
}

/// The group's policy let them read a part of what was there before them.
#[tokio::test]
async fn members_read_what_their_history_has_from_before_they_joined() {
    let world = World::start().await;
    let (alice, bob) = (person(), person());
    let file = File::new(3000, 24);
    let media = world.upload(alice, &file).await.media;
    let chat = world.chat(&[(alice, 1), (bob, 20)]).await;
    let in_chat = Through::Chat(chat);
    world.refer(chat, media, 5).await;
    for (history, may) in [(6_i64, false), (5, true), (1, true)] {
        let update = "UPDATE CELL.members SET history_seq = $3 WHERE chat_id = $1 AND user_id = $2";
        sqlx::query(in_cell_of(chat, update))
            .bind(chat.0)
            .bind(bob.0)
            .bind(history)
            .execute(&world.pool)
            .await
            .unwrap();
        let read = world.read(bob, media, in_chat).await;
        assert_eq!(read.is_ok(), may, "from {history} on");
    }
    // He need not upload what he may read.
    let stored = world.media.store.stored_for(bob, &file.declared).await;
    assert_eq!(stored.unwrap(), Some(media));
}

#[tokio::test]
async fn forwarding_gives_a_ticket_of_ones_own_for_the_same_bytes() {
    let world = World::start().await;
    let (alice, bob) = (person(), person());
    let media = world.upload(alice, &File::new(3000, 21)).await.media;
    let chat = world.chat(&[(alice, 1), (bob, 1)]).await;
    world.refer(chat, media, 1).await;
    let ticket = world
        .media
        .forward(bob, media, Through::Chat(chat), world.now())
        .await
        .unwrap();
    assert_eq!(ticket.media, media);
    assert!(world.media.tickets.verify(&ticket.ticket, media, bob).is_some());
    assert!(world.media.tickets.verify(&ticket.ticket, media, alice).is_none());
    assert_eq!(world.count("media").await, 1);
}

#[tokio::test]
async fn a_download_is_an_attachment_of_the_declared_type() {
    let world = World::start().await;
    let alice = person();
    let media = world.upload(alice, &File::new(3000, 22)).await.media;
    let download = world
        .media
        .download(alice, media, Through::OwnUpload, world.now())
        .await
        .unwrap();
    assert_eq!(
        (download.media.length, download.media.content_type.as_str()),
        (3000, "image/png")
    );
    let answer = get(&download.url).await.unwrap();
    assert_eq!(answer.headers["content-type"], "image/png");
    assert_eq!(answer.headers["content-disposition"], "attachment");
    let old = Timestamp(world.now().0 - 3_600_000);
    let ended = world
        .media
        .download(alice, media, Through::OwnUpload, old)
        .await
        .unwrap();
    assert_eq!(get(&ended.url).await.unwrap().status, 403);
}

#[tokio::test]
async fn with_a_delivery_network_downloads_go_there() {
    let world = World::start().await;
    let alice = person();
    let media = world.upload(alice, &File::new(3000, 23)).await.media;
    let with_cdn = Media {
        store: world.media.store.clone(),
        s3: world.media.s3.clone(),
        tickets: world.media.tickets.clone(),
        cdn: Some(Cdn::new("https://cdn.example", &"ab".repeat(32)).unwrap()),
        quota: world.media.quota,
        url_ttl: world.media.url_ttl,
    };
    let key = world.object_key(media).await.unwrap();
    let download = with_cdn
        .download(alice, media, Through::OwnUpload, world.now())
        .await
        .unwrap();
    assert!(
        download
            .url
            .starts_with(&format!("https://cdn.example/{key}?expires=")),
        "{}",
        download.url
    );
}
