//! Browsers call the unary services by gRPC-Web over HTTP/1.1, and first ask whether their page may.

use prost::Message as _;
use tern_proto::v1;
use tern_types::ChatId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::World;
use crate::support::items::people;

const APP: &str = "https://app.example.com";
const EVIL: &str = "https://evil.example";
const GET_CHAT: &str = "/tern.v1.Chats/GetChat";

/// Returns the answer to one request: the head in lower case, and the body.
async fn answer(world: &World, head: &str, body: &[u8]) -> (String, String) {
    let address = world.url.trim_start_matches("http://");
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "{head}host: {address}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_lowercase() + "\r\n", body.to_owned())
}

/// Makes a call as a page of `origin` does, or with `None` as a client that is no browser.
async fn call(world: &World, origin: Option<&str>, credentials: &str, chat: ChatId) -> (String, String) {
    let origin = origin.map(|origin| format!("origin: {origin}\r\n"));
    call_with(world, &origin.unwrap_or_default(), credentials, chat).await
}

async fn call_with(world: &World, headers: &str, credentials: &str, chat: ChatId) -> (String, String) {
    let request = v1::GetChatRequest {
        chat_id: chat.to_string(),
        ..Default::default()
    };
    let message = request.encode_to_vec();
    let body = [&[0, 0, 0, 0, message.len() as u8], &message[..]].concat();
    let head = format!(
        "POST {GET_CHAT} HTTP/1.1\r\ncontent-type: application/grpc-web+proto\r\n{headers}\
         authorization: Bearer {credentials}\r\n"
    );
    answer(world, &head, &body).await
}

/// Makes a browser's preflight request for a page of `origin`.
async fn ask(world: &World, origin: &str) -> (String, String) {
    let head = format!(
        "OPTIONS {GET_CHAT} HTTP/1.1\r\norigin: {origin}\r\naccess-control-request-method: POST\r\n\
         access-control-request-headers: authorization,content-type,x-grpc-web\r\n"
    );
    answer(world, &head, &[]).await
}

#[tokio::test]
async fn a_page_of_an_allowed_site_asks_calls_and_reads_the_answer() {
    let world = World::start(&["--gateway-allowed-origins", APP]).await;
    let (user, device) = people();
    let token = world.token(user, device);

    let (head, _) = ask(&world, APP).await;
    assert!(head.starts_with("http/1.1 204"), "{head}");
    for field in [
        "access-control-allow-origin: https://app.example.com\r\n",
        "access-control-allow-methods: post\r\n",
        "access-control-max-age: 7200\r\n",
        "vary: origin\r\n",
    ] {
        assert!(head.contains(field), "{field}: {head}");
    }
    let allowed = head
        .lines()
        .find(|line| line.starts_with("access-control-allow-headers"))
        .unwrap();
    for header in [
        "authorization",
        "content-type",
        "x-grpc-web",
        "x-user-agent",
        "grpc-timeout",
    ] {
        assert!(allowed.contains(header), "{header}: {allowed}");
    }

    let (head, body) = call(&world, Some(APP), &token, ChatId::own(user)).await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(
        body.contains(&format!("tern-user={user}")) && body.contains("grpc-status:0"),
        "{body}"
    );
    may_be_read(&head);
    // The status of a failure is in header fields, which a page must be allowed to read.
    let (head, _) = call(&world, Some(APP), "nonsense", ChatId::own(user)).await;
    assert!(
        head.contains("grpc-status: 16") && head.contains("grpc-status-details-bin: "),
        "{head}"
    );
    may_be_read(&head);
}

fn may_be_read(head: &str) {
    assert!(
        head.contains("access-control-allow-origin: https://app.example.com\r\n"),
        "{head}"
    );
    let exposed =
        "access-control-expose-headers: grpc-status, grpc-message, grpc-status-details-bin, x-request-id\r\n";
    assert!(head.contains(exposed), "{head}");
    assert!(!head.contains("access-control-allow-credentials"), "{head}");
}

#[tokio::test]
async fn a_page_of_another_site_neither_calls_nor_reads() {
    let world = World::start(&["--gateway-allowed-origins", APP]).await;
    let (user, device) = people();
    let token = world.token(user, device);
    let asked = ask(&world, EVIL).await;
    let called = call(&world, Some(EVIL), &token, ChatId::own(user)).await;
    for (head, body) in [asked, called] {
        assert!(head.starts_with("http/1.1 403"), "{head}");
        assert!(
            !head.contains("access-control-allow-origin") && !body.contains("tern-user"),
            "{head}{body}"
        );
    }
}

#[tokio::test]
async fn what_is_no_browser_calls_whatever_sites_are_allowed() {
    for flags in [&[][..], &["--gateway-allowed-origins", APP]] {
        let world = World::start(flags).await;
        let (user, device) = people();
        let (head, body) = call(&world, None, &world.token(user, device), ChatId::own(user)).await;
        assert!(
            head.starts_with("http/1.1 200") && body.contains("grpc-status:0"),
            "{head}{body}"
        );
        assert!(!head.contains("access-control"), "{head}");
    }
}

#[tokio::test]
async fn every_site_is_allowed_by_a_star_and_none_by_default() {
    let world = World::start(&["--gateway-allowed-origins", "*"]).await;
    let (head, _) = ask(&world, EVIL).await;
    assert!(
        head.contains("access-control-allow-origin: https://evil.example"),
        "{head}"
    );
    let world = World::start(&[]).await;
    assert!(ask(&world, APP).await.0.starts_with("http/1.1 403"));
}

#[tokio::test]
async fn a_call_takes_no_longer_than_its_client_wants() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    world.owner("nobody", 2, true);
    let (token, chat) = (world.token(user, device), ChatId::own(user));
    // A call waits for a node if there is none for its chat, and fails if none comes.
    for (headers, status) in [
        ("grpc-timeout: 50m\r\n", "grpc-status: 4\r\n"),
        ("", "grpc-status: 14\r\n"),
    ] {
        let (head, body) = call_with(&world, headers, &token, chat).await;
        assert!(head.contains(status), "{headers}: {head}{body}");
    }
}
