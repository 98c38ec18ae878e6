//! Fake nodes: they note what the gateway tells them, and send what the test says.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::Stream;
use tern_proto::internal::chat_link_server::ChatLink;
use tern_proto::internal::chat_node_server::ChatNode;
use tern_proto::internal::presence_server::Presence;
use tern_proto::internal::{
    AnnounceReplies, AnnounceReply, Announcement, Announcements, AppendOwnRequest, AppendOwnResponse,
    BlocksChangedRequest, BlocksChangedResponse, ControlDown, ControlUp, DeviceInbox, GetSessionsRequest,
    GetSessionsResponse, GetStatesRequest, GetStatesResponse, HaveWrittenRequest, HaveWrittenResponse,
    InboxRow, LinkDeviceRequest, LinkDeviceResponse, ListBarredResponse, LiveDown, LiveRequest,
    LookupReplies, LookupRequests, OpenedStream, PresenceChanges, ReadInboxRequest, ReadInboxResponse,
    UnlinkDeviceRequest, UnlinkDeviceResponse, UpItem, WatchRequests, WindowReplies, WindowRequest,
    WindowRequests,
};
use tern_types::UserId;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

pub type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

type Sender<T> = mpsc::Sender<Result<T, Status>>;

/// The messages that one stream to the gateway holds: more than any test puts there at once.
const ROOM: usize = 64;

/// The newest stream of one kind to the gateway, while it is open.
pub struct Downward<T>(Arc<Mutex<Option<Sender<T>>>>);

impl<T> Clone for Downward<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Downward<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Send + 'static> Downward<T> {
    fn open(&self) -> Response<Out<T>> {
        let (sender, stream) = mpsc::channel(ROOM);
        *self.0.lock().unwrap() = Some(sender);
        Response::new(Box::pin(ReceiverStream::new(stream)))
    }

    pub async fn say(&self, message: T) {
        let sender = self.0.lock().unwrap().clone().expect("a link");
        let said = sender.send(Ok(message)).await;
        assert!(said.is_ok(), "the link has gone");
    }

    /// Ends the stream in good order, as when the node has sent all that it had.
    pub fn end(&self) {
        self.0.lock().unwrap().take();
    }
}

/// Notes each item of the frames that a stream brings in.
fn note<F, I>(
    request: Request<Streaming<F>>,
    noted: mpsc::Sender<I>,
    items: impl Fn(F) -> Vec<I> + Send + 'static,
) where
    F: Send + 'static,
    I: Send + 'static,
{
    let mut frames = request.into_inner();
    tokio::spawn(async move {
        while let Ok(Some(frame)) = frames.message().await {
            for item in items(frame) {
                let _ = noted.send(item).await;
            }
        }
    });
}

/// A fake chat, presence and accounts node in one. It notes what the gateway tells it, and answers what the
/// test has set. Clones share the notes and the answers.
#[derive(Clone)]
pub struct FakeChat {
    pub items: mpsc::Sender<UpItem>,
    pub windows: mpsc::Sender<WindowRequest>,
    pub announced: mpsc::Sender<Announcement>,
    pub watched: mpsc::Sender<WatchRequests>,
    pub shown: Downward<PresenceChanges>,
    /// The users whom everybody may watch.
    pub visible: Arc<Mutex<Vec<UserId>>>,
    /// The number of times that accounts were asked who may be watched. While `answers_who_may_watch` is
    /// false these questions wait. They are answered by what was true when they came.
    pub asks_who_may_watch: Arc<watch::Sender<usize>>,
    pub answers_who_may_watch: Arc<watch::Sender<bool>>,
    pub down: Downward<ControlDown>,
    pub live: Downward<LiveDown>,
    pub replies: Downward<WindowReplies>,
    pub announce_streams: Arc<Mutex<Vec<Sender<AnnounceReplies>>>>,
    pub inbox: Arc<Mutex<Vec<InboxRow>>>,
    /// The name of the node that owns every chat. The other nodes answer that they are not the owner.
    pub owner: Arc<Mutex<String>>,
    pub name: String,
    /// The list of who is barred, as the accounts node says. `None` if it fails.
    pub barred: Arc<Mutex<Option<ListBarredResponse>>>,
    /// The number of times that accounts were asked for an API key.
    pub key_lookups: Arc<AtomicUsize>,
    /// The last number that a stream drew.
    pub stream_numbers: Arc<AtomicU64>,
    /// The streams that presence was told are open.
    pub opened: Arc<watch::Sender<Vec<OpenedStream>>>,
}

impl FakeChat {
    pub fn new(
        name: &str,
        items: mpsc::Sender<UpItem>,
        windows: mpsc::Sender<WindowRequest>,
        announced: mpsc::Sender<Announcement>,
        watched: mpsc::Sender<WatchRequests>,
    ) -> Self {
        Self {
            watched,
            shown: Downward::default(),
            visible: Arc::default(),
            asks_who_may_watch: Arc::default(),
            answers_who_may_watch: Arc::new(watch::Sender::new(true)),
            items,
            windows,
            announced,
            down: Downward::default(),
            live: Downward::default(),
            replies: Downward::default(),
            announce_streams: Arc::default(),
            inbox: Arc::default(),
            owner: Arc::new(Mutex::new(name.into())),
            name: name.into(),
            barred: Arc::new(Mutex::new(Some(ListBarredResponse::default()))),
            key_lookups: Arc::default(),
            stream_numbers: Arc::default(),
            opened: Arc::new(watch::Sender::new(Vec::new())),
        }
    }

    /// Makes another node that notes in the same place. It has links of its own, since the newest link of a node
    /// replaces the one before.
    pub fn beside(&self, name: &str) -> Self {
        Self {
            name: name.into(),
            down: Downward::default(),
            live: Downward::default(),
            replies: Downward::default(),
            ..self.clone()
        }
    }
}

#[tonic::async_trait]
impl ChatLink for FakeChat {
    type ControlStream = Out<ControlDown>;
    type LiveStream = Out<LiveDown>;
    type CatchUpStream = Out<WindowReplies>;

    async fn control(
        &self,
        request: Request<Streaming<ControlUp>>,
    ) -> Result<Response<Out<ControlDown>>, Status> {
        note(request, self.items.clone(), |frame| frame.items);
        Ok(self.down.open())
    }

    async fn live(&self, _: Request<LiveRequest>) -> Result<Response<Out<LiveDown>>, Status> {
        Ok(self.live.open())
    }

    async fn catch_up(
        &self,
        request: Request<Streaming<WindowRequests>>,
    ) -> Result<Response<Out<WindowReplies>>, Status> {
        note(request, self.windows.clone(), |frame| frame.requests);
        Ok(self.replies.open())
    }
}

#[tonic::async_trait]
impl ChatNode for FakeChat {
    async fn read_inbox(
        &self,
        request: Request<ReadInboxRequest>,
    ) -> Result<Response<ReadInboxResponse>, Status> {
        let rows = self.inbox.lock().unwrap().clone();
        let request = request.into_inner();
        let number = if request.opens {
            self.stream_numbers.fetch_add(1, Ordering::Relaxed) + 1
        } else {
            0
        };
        let devices = request.device_ids.into_iter();
        let devices = devices
            .map(|device_id| DeviceInbox {
                device_id,
                active: true,
                rows: rows.clone(),
                ..DeviceInbox::default()
            })
            .collect();
        Ok(Response::new(ReadInboxResponse {
            devices,
            store_epoch: "epoch".into(),
            stream_number: number,
            ..ReadInboxResponse::default()
        }))
    }

    async fn link_device(
        &self,
        _: Request<LinkDeviceRequest>,
    ) -> Result<Response<LinkDeviceResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn unlink_device(
        &self,
        _: Request<UnlinkDeviceRequest>,
    ) -> Result<Response<UnlinkDeviceResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn have_written(
        &self,
        _: Request<HaveWrittenRequest>,
    ) -> Result<Response<HaveWrittenResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn blocks_changed(
        &self,
        _: Request<BlocksChangedRequest>,
    ) -> Result<Response<BlocksChangedResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn append_own(&self, _: Request<AppendOwnRequest>) -> Result<Response<AppendOwnResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

#[tonic::async_trait]
impl Presence for FakeChat {
    type AnnounceStream = Out<AnnounceReplies>;
    type LookupStream = Out<LookupReplies>;

    async fn announce(
        &self,
        request: Request<Streaming<Announcements>>,
    ) -> Result<Response<Out<AnnounceReplies>>, Status> {
        let (tx, rx) = mpsc::channel(ROOM);
        self.announce_streams.lock().unwrap().push(tx.clone());
        let (announced, mut frames) = (self.announced.clone(), request.into_inner());
        let opened = self.opened.clone();
        tokio::spawn(async move {
            while let Ok(Some(frame)) = frames.message().await {
                opened.send_modify(|opened| opened.extend(frame.opened.iter().cloned()));
                let reply = |item: &Announcement| AnnounceReply {
                    r#ref: item.r#ref,
                    ..Default::default()
                };
                let items = frame.items.iter().map(reply).collect();
                let _ = tx
                    .send(Ok(AnnounceReplies {
                        map_version: 1,
                        items,
                    }))
                    .await;
                for item in frame.items {
                    let _ = announced.send(item).await;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }

    async fn lookup(
        &self,
        _: Request<Streaming<LookupRequests>>,
    ) -> Result<Response<Out<LookupReplies>>, Status> {
        Err(Status::unimplemented(""))
    }

    type WatchStream = Out<PresenceChanges>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequests>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        note(request, self.watched.clone(), |frame| vec![frame]);
        Ok(self.shown.open())
    }

    async fn get_states(&self, _: Request<GetStatesRequest>) -> Result<Response<GetStatesResponse>, Status> {
        Err(Status::unimplemented("nobody watches here"))
    }

    async fn get_sessions(
        &self,
        _: Request<GetSessionsRequest>,
    ) -> Result<Response<GetSessionsResponse>, Status> {
        Err(Status::unimplemented("nobody pushes here"))
    }
}
