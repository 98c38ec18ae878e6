//! The phone's task. It runs one stream after the other.

use std::collections::{BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::time::Duration;

use tern_proto::v1::{
    CloseCode, Envelope, GetChatRequest, GetReceiptsRequest, MarkRead, Message, Receipt, SendErrorCode,
    SendResult, Typing, client_item::Item, send_message, send_result::Outcome, server_event::Event,
};
use tern_types::{ChatId, RequestId};
use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::{Command, State, To};
use crate::wire::{self, Wire};
use crate::{Api, Device};

/// The pause between two attempts to open a stream.
const PAUSE: Duration = Duration::from_millis(100);
/// The time that a gateway may take to answer Open. A gateway answers, or ends the stream after 10 s, and later on a
/// busy machine; a gateway that has stopped does neither.
const OPEN_WITHIN: Duration = Duration::from_secs(60);
/// The time without an event after which the phone sends a heartbeat.
const QUIET: Duration = Duration::from_secs(4);
/// The time without an event after which the phone gives the stream up. An app would do so sooner. But no test stops a
/// gateway without killing it, and a busy gateway is no defect.
const DEAD: Duration = Duration::from_secs(60);

/// The most sends that have no result yet. The server allows twice as many (Limits.max_sends_in_flight).
const IN_FLIGHT: usize = 64;

/// A message of the outbox.
struct Outgoing {
    request: RequestId,
    to: To,
    envelope: Envelope,
    body: Vec<u8>,
    /// True if the message was written to the present stream, or has to wait before it is written again.
    busy: bool,
}

/// The task's state, with the ends of the channels to the [`super::Phone`].
pub struct Run {
    device: Device,
    gateways: Vec<Channel>,
    commands: mpsc::Receiver<Command>,
    /// The other end of `commands`, for commands that the phone gives itself later.
    again: mpsc::WeakSender<Command>,
    state: watch::Sender<State>,
    /// The messages that have no result yet, in the order in which the test sent them.
    outbox: VecDeque<Outgoing>,
    /// True if the phone is to be online.
    wanted: bool,
    /// The gateway at which the test wants the phone. `None`: the gateways are taken in turn.
    pinned: Option<usize>,
    /// The number of the next gateway, modulo their count, if none is pinned.
    next: usize,
    /// True if acknowledgements are sent.
    acknowledging: bool,
    /// The chats with something stored since the last acknowledgement.
    unacknowledged: BTreeSet<ChatId>,
}

impl Run {
    pub fn new(
        device: Device,
        gateways: Vec<Channel>,
        commands: mpsc::Receiver<Command>,
        again: mpsc::WeakSender<Command>,
        state: watch::Sender<State>,
    ) -> Self {
        let next = rand::random_range(0..gateways.len());
        Self {
            device,
            gateways,
            commands,
            again,
            state,
            outbox: VecDeque::new(),
            wanted: false,
            pinned: None,
            next,
            acknowledging: true,
            unacknowledged: BTreeSet::new(),
        }
    }

    pub async fn run(mut self) {
        loop {
            while !self.wanted {
                let Some(command) = self.commands.recv().await else {
                    return;
                };
                self.offline(command);
            }
            let gateway = self.pinned.unwrap_or(self.next) % self.gateways.len();
            self.next += 1;
            let end = self.session(self.gateways[gateway].clone()).await;
            self.state.send_modify(|state| {
                state.online = false;
                state.caught_up = false;
                if let Err(status) = &end {
                    state.ends.push(status.code());
                }
            });
            let again = tokio::time::Instant::now() + PAUSE;
            while self.wanted {
                match tokio::time::timeout_at(again, self.commands.recv()).await {
                    Ok(Some(command)) => self.offline(command),
                    Ok(None) => return,
                    Err(_) => break,
                }
            }
        }
    }

    /// Carries out a command while there is no stream.
    fn offline(&mut self, command: Command) {
        match command {
            Command::Send {
                request,
                to,
                envelope,
                body,
            } => self.outgoing(request, to, envelope, body),
            Command::Retry(_) | Command::Read { .. } | Command::Typing { .. } => {}
            Command::Online { wanted, gateway } => (self.wanted, self.pinned) = (wanted, gateway),
            Command::Acknowledge(on) => self.acknowledging = on,
            Command::Receipts(receipts) => self.receipts(&receipts),
        }
    }

    async fn session(&mut self, channel: Channel) -> Result<(), Status> {
        let open = Wire::try_open(channel.clone(), &self.device);
        let opened = tokio::time::timeout(OPEN_WITHIN, open).await;
        let (mut wire, opened) = opened.unwrap_or_else(|_| Err(Status::deadline_exceeded("no Opened")))?;
        self.state.send_modify(|state| {
            state.online = true;
            state.sessions += 1;
            state.store_epoch.clone_from(&opened.store_epoch);
        });
        self.outbox.iter_mut().for_each(|waiting| waiting.busy = false);
        self.write_out(&wire).await;
        let api = Api::new(channel, &self.device.access_token).once();
        let mut heard = tokio::time::Instant::now();
        loop {
            tokio::select! {
                biased;
                event = wire.event() => {
                    heard = tokio::time::Instant::now();
                    match event? {
                        Some(event) => self.event(event, &api, &wire).await,
                        None => return Ok(()),
                    }
                    if wire.drained() {
                        self.send_acks(&wire).await;
                    }
                }
                command = self.commands.recv() => match command {
                    Some(command) => if self.online(command, &wire).await.is_break() { return Ok(()) },
                    None => return Ok(()),
                },
                () = tokio::time::sleep_until(heard + DEAD) => return Err(Status::deadline_exceeded("silence")),
                () = tokio::time::sleep(QUIET) => wire.say(Item::Heartbeat(Default::default())).await,
            }
        }
    }

    async fn online(&mut self, command: Command, wire: &Wire) -> ControlFlow<()> {
        match command {
            Command::Send {
                request,
                to,
                envelope,
                body,
            } => {
                self.outgoing(request, to, envelope, body);
                self.write_out(wire).await;
            }
            Command::Retry(request) => {
                let waiting = self.outbox.iter_mut().find(|waiting| waiting.request == request);
                if let Some(waiting) = waiting {
                    waiting.busy = false;
                }
                self.write_out(wire).await;
            }
            Command::Read { chat, seq } => {
                wire.say(Item::MarkRead(MarkRead {
                    chat_id: chat.to_string(),
                    seq,
                }))
                .await;
            }
            Command::Typing { chat, stopped } => {
                let chat_id = chat.to_string();
                wire.say(Item::Typing(Typing { chat_id, stopped })).await;
            }
            Command::Acknowledge(on) => {
                self.acknowledging = on;
                self.send_acks(wire).await;
            }
            Command::Receipts(receipts) => self.receipts(&receipts),
            Command::Online { wanted, gateway } => {
                (self.wanted, self.pinned) = (wanted, gateway);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn outgoing(&mut self, request: RequestId, to: To, envelope: Envelope, body: Vec<u8>) {
        self.outbox.push_back(Outgoing {
            request,
            to,
            envelope,
            body,
            busy: false,
        });
    }

    /// Writes the first messages of the outbox, as many as may be without a result.
    async fn write_out(&mut self, wire: &Wire) {
        let mut items = Vec::new();
        for waiting in self
            .outbox
            .iter_mut()
            .take(IN_FLIGHT)
            .filter(|waiting| !waiting.busy)
        {
            waiting.busy = true;
            items.push(item(waiting));
        }
        for item in items {
            wire.say(item).await;
        }
    }

    async fn event(&mut self, event: Event, api: &Api, wire: &Wire) {
        match event {
            Event::Entry(entry) => {
                if let Ok(chat) = entry.chat_id.parse::<ChatId>() {
                    if !self.begin(chat, entry.seq, api).await {
                        // The entry is dropped, and comes again.
                        return;
                    }
                    self.unacknowledged.insert(chat);
                }
                self.state.send_modify(|state| state.entry(entry));
            }
            Event::Skipped(skipped) => {
                if let Ok(chat) = skipped.chat_id.parse::<ChatId>() {
                    self.unacknowledged.insert(chat);
                }
                self.state.send_modify(|state| state.skip(skipped));
            }
            Event::SendResult(result) => {
                self.result(result, api).await;
                self.write_out(wire).await;
            }
            Event::Receipt(receipt) => self.state.send_modify(|state| state.receipt(&receipt)),
            Event::CaughtUp(_) => {
                self.state.send_modify(|state| {
                    state.caught_up = true;
                    state.caught_ups += 1;
                });
                self.ask_receipts(api);
            }
            Event::Draining(_) => {
                self.state.send_modify(|state| state.drainings += 1);
            }
            Event::Closing(closing) => {
                use CloseCode as C;
                if matches!(
                    closing.code(),
                    C::SessionReplaced | C::DeviceRevoked | C::Unauthenticated
                ) {
                    self.wanted = false;
                }
                self.state.send_modify(|state| state.closings.push(closing));
            }
            Event::Opened(opened) => self
                .state
                .send_modify(|state| state.breach(format!("a second {opened:?}"))),
            Event::UserTyping(typing) => self.state.send_modify(|state| state.typing.push(typing)),
            Event::Presence(_) | Event::WatchResult(_) => {}
            Event::TokenExpiring(_) | Event::Reauthenticated(_) | Event::HeartbeatAck(_) => {}
        }
    }

    /// Asks for the receipts that the phone may have missed, as a client does after CaughtUp. Before the first CaughtUp
    /// it has missed none.
    fn ask_receipts(&self, api: &Api) {
        let state = self.state.borrow();
        if state.caught_ups < 2 {
            return;
        }
        for chat in state.logs.keys() {
            let request = GetReceiptsRequest {
                chat_id: chat.to_string(),
                ..Default::default()
            };
            let (api, commands) = (api.clone(), self.again.clone());
            tokio::spawn(async move {
                // A call that fails is made again after the next CaughtUp.
                let Ok(reply) = api.chats().get_receipts(request).await else {
                    return;
                };
                if let Some(commands) = commands.upgrade() {
                    // The phone may be gone.
                    let _ = commands
                        .send(Command::Receipts(reply.into_inner().receipts))
                        .await;
                }
            });
        }
    }

    /// Takes receipts that were asked for.
    fn receipts(&self, receipts: &[Receipt]) {
        self.state.send_modify(|state| {
            for receipt in receipts {
                state.marks(receipt);
            }
        });
    }

    /// Finds out where the cursor begins in a chat that the phone has not seen before. Returns false if nobody
    /// answered.
    async fn begin(&mut self, chat: ChatId, seq: u64, api: &Api) -> bool {
        if seq == 1 || self.state.borrow().logs.contains_key(&chat) {
            return true;
        }
        let request = GetChatRequest {
            chat_id: chat.to_string(),
            ..Default::default()
        };
        match api.chats().get_chat(request).await {
            Ok(reply) => {
                if let Some(found) = reply.into_inner().chat {
                    self.state
                        .send_modify(|state| state.begin(chat, found.resume_seq));
                }
                true
            }
            Err(status) => status.code() != Code::Unavailable,
        }
    }

    async fn result(&mut self, result: SendResult, api: &Api) {
        let Ok(request) = result.request_id.parse::<RequestId>() else {
            return self
                .state
                .send_modify(|state| state.breach(format!("a result for nothing: {result:?}")));
        };
        let place = self.outbox.iter().position(|waiting| waiting.request == request);
        match result.outcome {
            Some(Outcome::Sent(sent)) => {
                let Some(Outgoing { envelope, body, .. }) = place.and_then(|place| self.outbox.remove(place))
                else {
                    return;
                };
                if let Ok(chat) = sent.chat_id.parse::<ChatId>() {
                    if !self.begin(chat, sent.seq, api).await {
                        // The log gets the message when it comes as an entry.
                        let result = Ok(sent);
                        return self
                            .state
                            .send_modify(|state| drop(state.results.insert(request, result)));
                    }
                    self.unacknowledged.insert(chat);
                }
                let message = Message {
                    envelope: Some(envelope),
                    body: body.into(),
                };
                self.state.send_modify(|state| state.own(request, sent, message));
            }
            Some(Outcome::Error(error)) if again_later(error.code()) => {
                let after = Duration::from_millis(error.retry_after_ms.into());
                let Some(commands) = self.again.upgrade() else {
                    return;
                };
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    // The phone may be gone.
                    let _ = commands.send(Command::Retry(request)).await;
                });
            }
            Some(Outcome::Error(error)) => {
                if let Some(place) = place {
                    self.outbox.remove(place);
                }
                self.state.send_modify(|state| {
                    state.results.insert(request, Err(error));
                });
            }
            None => self
                .state
                .send_modify(|state| state.breach("a result without outcome")),
        }
    }

    async fn send_acks(&mut self, wire: &Wire) {
        if !self.acknowledging || self.unacknowledged.is_empty() {
            return;
        }
        let acks: Vec<Item> = {
            let state = self.state.borrow();
            self.unacknowledged
                .iter()
                .map(|chat| wire::ack(*chat, state.cursor(*chat)))
                .collect()
        };
        self.unacknowledged.clear();
        wire.frame(acks).await;
    }
}

fn again_later(code: SendErrorCode) -> bool {
    matches!(code, SendErrorCode::Unavailable | SendErrorCode::RateLimited)
}

fn item(message: &Outgoing) -> Item {
    let to = match message.to {
        To::Chat(chat) => send_message::To::ChatId(chat.to_string()),
        To::Person(peer) => send_message::To::PeerUserId(peer.to_string()),
    };
    wire::item(message.request, to, &message.envelope, message.body.clone())
}
