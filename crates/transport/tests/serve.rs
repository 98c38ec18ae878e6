//! Tests of the internal server as another node and a developer see it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use tern_proto::v1::ErrorReason;
use tern_transport::admin::Readiness;
use tern_transport::channels::Channels;
use tern_transport::serve::{Extras, internal};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_stream::StreamExt;
use tonic::Code;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

struct Server {
    channel: Channel,
    readiness: Readiness,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

async fn serve(reflection: bool) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let channel = Channels::default()
        .get(&listener.local_addr().unwrap().to_string())
        .unwrap();
    let readiness = Readiness::default();
    let (stop, stopped) = oneshot::channel();
    let serving = internal(
        listener,
        None,
        Routes::default(),
        Extras {
            reflection,
            ..Extras::default()
        },
        readiness.clone(),
        async move {
            let _ = stopped.await;
        },
    );
    Server {
        channel,
        readiness,
        stop,
        task: tokio::spawn(serving),
    }
}

#[tokio::test]
async fn grpc_health_follows_readiness() {
    let server = serve(false).await;
    let mut client = HealthClient::new(server.channel);
    let mut states = client
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    let mut next = async || states.next().await.unwrap().map(|state| state.status);
    // tonic-health may report another status before the first one is set.
    let mut status = next().await.unwrap();
    while status != ServingStatus::NotServing as i32 {
        status = next().await.unwrap();
    }
    server.readiness.set(true);
    assert_eq!(next().await.unwrap(), ServingStatus::Serving as i32);
    server.readiness.set(false);
    assert_eq!(next().await.unwrap(), ServingStatus::NotServing as i32);
    server.stop.send(()).unwrap();
    server.task.await.unwrap().unwrap();
}

async fn reflected(server: &Server) -> Result<String, Code> {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol(
            "tern.v1.Messaging".to_owned(),
        )),
    };
    let mut client = ServerReflectionClient::new(server.channel.clone());
    let replies = client.server_reflection_info(tokio_stream::once(request)).await;
    let reply = replies
        .map_err(|status| status.code())?
        .into_inner()
        .next()
        .await
        .unwrap()
        .unwrap();
    Ok(format!("{:?}", reply.message_response))
}

#[tokio::test]
async fn reflection_is_there_when_asked_for() {
    let shown = reflected(&serve(true).await).await.unwrap();
    assert!(shown.contains("FileDescriptorResponse"), "{shown}");
    assert_eq!(reflected(&serve(false).await).await, Err(Code::Unimplemented));
}

#[tokio::test]
async fn an_address_that_is_none_is_told_as_unavailable() {
    let channels = Channels::default();
    assert_eq!(
        channels.get("not an address").unwrap_err().reason,
        ErrorReason::Unavailable
    );
    assert!(channels.get("chat-0.tern:7000").is_ok());
}
