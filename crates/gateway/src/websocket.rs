//! The device stream over a WebSocket, for browsers: one binary message is one frame, and everything else is as on
//! gRPC.
//!
//! - [`upgrade`]: makes a WebSocket of a request by HTTP/1.1
//! - [`messages`]: converts messages into frames, and frames and the stream's end into messages
//!
//! The slow-consumer rule holds as for every stream: the [`DeviceStream`] is asked for the next frame when the socket
//! has taken the last one, and the watchdog cuts off a socket that takes nothing.

pub mod messages;
pub mod upgrade;

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::SplitSink;
use futures::{SinkExt, StreamExt};
use tern_proto::ApiError;
use tern_transport::connections::Connection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use self::messages::Messages;
use crate::gateway::Gateway;
use crate::stream::DeviceStream;

/// The longest time for sending the close frame and waiting for the client's. If a connection is closed while bytes of
/// the client are on their way, it is reset, and the client may never read why.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Serves one device on an upgraded connection, until the stream has ended.
pub async fn serve<T>(gateway: Arc<Gateway>, io: T, connection: Option<Arc<Connection>>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(messages::config())).await;
    let (mut out, inbound) = socket.split();
    let mut stream = DeviceStream::new(gateway, Messages::new(inbound), connection);
    let Ok(outcome) = frames(&mut stream, &mut out).await else {
        return;
    };
    let inbound = stream.take_inbound();
    drop(stream);
    // If the time runs out, the client has been waited for long enough.
    let _ = tokio::time::timeout(CLOSE_WITHIN, close(out, inbound, outcome)).await;
}

/// The error for a socket that cannot be written to any more.
struct Broken;

type Sink<T> = SplitSink<WebSocketStream<T>, Message>;

/// Writes the stream's frames, and returns the stream's status. `Err` if the socket breaks before that.
async fn frames<T>(
    stream: &mut DeviceStream<Messages<T>>,
    out: &mut Sink<T>,
) -> Result<Option<ApiError>, Broken>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match poll_fn(|cx| stream.poll_next_frame(cx)).await {
            Some(Ok(frame)) => {
                for message in messages::of_frame(&frame) {
                    out.send(message).await.map_err(|_| Broken)?;
                }
            }
            Some(Err(error)) => return Ok(Some(error)),
            None => return Ok(None),
        }
    }
}

/// Sends the close frame, and reads on until the client has closed too.
async fn close<T>(mut out: Sink<T>, inbound: Option<Messages<T>>, outcome: Option<ApiError>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    // Sending fails if the client has closed first. Reading on answers its close frame.
    let _ = out.send(messages::close(outcome.as_ref())).await;
    if let Some(inbound) = inbound {
        inbound.discard(out).await;
    }
}
