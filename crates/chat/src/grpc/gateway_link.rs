//! Serves the three streams of a gateway's link: control, live and catch-up.
//!
//! Items of the control stream become events of the shards. A full shard holds the stream back, which holds the
//! gateway back. Live events are dropped if the gateway does not keep up. Windows of logs are read beside the shards,
//! a bounded number at a time.
//!
//! - `items`: handles each item of a control stream
//! - `windows`: reads windows of logs

mod items;
mod windows;

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use tern_cluster::links::{gather, identity};
use tern_cluster::shedding::{Level, Shedding, gather_or_level};
use tern_identity::ticket::Tickets;
use tern_proto::internal::chat_link_server::ChatLink;
use tern_proto::internal::{ControlDown, ControlUp, LiveDown, LiveRequest, WindowReplies, WindowRequests};
use tern_store::Pools;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;

use crate::epoch::StoreEpoch;
use crate::gateways::Gateways;
use crate::ownership::Ownership;
use crate::shard_loop::Shards;
use crate::store::seal::MasterKey;
use items::Reader;
pub use windows::event;
use windows::{WINDOWS, Windows};

/// The most items or pushes of one frame to a gateway.
const GATHER: usize = 256;

/// The stream of frames to a gateway.
type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The parts of the node that handle the items of a link.
#[derive(Clone)]
pub struct Parts {
    pub shards: Shards,
    pub gateways: Gateways,
    pub ownership: Ownership,
    pub shedding: Shedding,
    pub epoch: StoreEpoch,
    /// The keys of media tickets; `None` if this server has no media.
    pub tickets: Option<Tickets>,
}

/// The service of the gateways' links.
pub struct LinkService {
    parts: Parts,
    windows: Arc<Windows>,
}

impl LinkService {
    /// Wires the service, which reads windows from these pools.
    pub fn new(parts: Parts, pools: Pools, master: MasterKey) -> Self {
        let windows = Windows::new(parts.ownership.clone(), pools, master);
        Self {
            parts,
            windows: Arc::new(windows),
        }
    }
}

#[tonic::async_trait]
impl ChatLink for LinkService {
    type ControlStream = Out<ControlDown>;
    type LiveStream = Out<LiveDown>;
    type CatchUpStream = Out<WindowReplies>;

    async fn control(
        &self,
        request: Request<Streaming<ControlUp>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let (link, mut items) = self.parts.gateways.open_control(identity(&request)?);
        let reader = Reader {
            link: link.number,
            gateway: self.parts.shedding.hear(),
            parts: self.parts.clone(),
        };
        let reading = tokio::spawn(reader.run(request.into_inner()).in_current_span());
        let (ownership, mut own) = (self.parts.ownership.clone(), self.parts.shedding.own());
        let out = async_stream::stream! {
            let (_link, mut reading) = (link, AbortOnDrop(reading));
            while let Some(items) = next_frame(&mut reading.0, &mut items, &mut own).await {
                let shed_level = own.borrow().to_wire();
                yield Ok(ControlDown { map_version: ownership.map_version(), items, shed_level });
            }
        };
        Ok(Response::new(Box::pin(out)))
    }

    async fn live(&self, request: Request<LiveRequest>) -> Result<Response<Self::LiveStream>, Status> {
        let gateway = identity(&request)?;
        let (gateways, name) = (self.parts.gateways.clone(), gateway.name.clone());
        let frame = move |pushes| {
            let missed = gateways.take_missed(&name);
            LiveDown {
                pushes,
                missed_sessions: missed.sessions.into_iter().collect(),
                missed_any: missed.any,
            }
        };
        let (link, mut pushes) = self.parts.gateways.open_live(gateway);
        let out = async_stream::stream! {
            let _link = link;
            // The first frame says which receipts the gateway's sessions missed while it had no link.
            yield Ok(frame(Vec::new()));
            while let Some(pushes) = gather(&mut pushes, GATHER).await {
                yield Ok(frame(pushes));
            }
        };
        Ok(Response::new(Box::pin(out)))
    }

    async fn catch_up(
        &self,
        request: Request<Streaming<WindowRequests>>,
    ) -> Result<Response<Self::CatchUpStream>, Status> {
        let (replies, replies_out) = mpsc::channel(WINDOWS);
        let work = self.windows.clone().serve(request.into_inner(), replies);
        tokio::spawn(work.in_current_span());
        Ok(Response::new(ReceiverStream::new(replies_out).boxed()))
    }
}

/// Takes the items of the next frame to a gateway, which are none if only this node's level has changed. Returns `None`
/// as soon as the reader of the gateway's items has ended: nothing more is heard on the link then.
async fn next_frame<T>(
    reading: &mut JoinHandle<()>,
    items: &mut mpsc::Receiver<T>,
    own: &mut watch::Receiver<Level>,
) -> Option<Vec<T>> {
    tokio::select! {
        biased;
        _ended = reading => None,
        items = gather_or_level(items, GATHER, own) => items,
    }
}

/// A task that is aborted when this is dropped.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_link_ends_with_its_reader_although_nothing_is_to_go_out() {
        let (_queue, mut items) = mpsc::channel::<()>(1);
        let mut own = Shedding::off().own();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let mut reading = tokio::spawn(async move { drop(ended.await) });
        let frame = next_frame(&mut reading, &mut items, &mut own);
        let frame = tokio::time::timeout(Duration::from_secs(2), frame);
        let (frame, ()) = tokio::join!(frame, async move { drop(end) });
        assert_eq!(frame.ok(), Some(None));
    }
}
