"""Holds a conversation of two people, with the stubs that grpcio-tools makes from proto/.

    python examples/python/conversation.py [DIR]

DIR is where `tern-dev dev` keeps its keys: $TERN_DEV_DIR or .tern/dev. A back end (with the API key) makes two users
and links a device to each. Then the devices open their streams, write, acknowledge, and see each other's receipts.
Exits with 1 if anything expected does not happen.
"""

import asyncio
import collections
import contextlib
import os
import pathlib
import sys
import uuid

import grpc

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "generated")]

from cursors import Cursor  # noqa: E402
from tern.v1 import (  # noqa: E402
    accounts_pb2,
    accounts_pb2_grpc,
    chats_pb2,
    chats_pb2_grpc,
    entry_pb2,
    groups_pb2_grpc,
    messaging_pb2,
    messaging_pb2_grpc,
)

TIMEOUT_S = 60
RETRY = (messaging_pb2.SEND_ERROR_CODE_RATE_LIMITED, messaging_pb2.SEND_ERROR_CODE_UNAVAILABLE)


class BackEnd:
    """The part of a company's own server: it knows who people are, and links their devices."""

    def __init__(self, channel: grpc.aio.Channel, api_key: str):
        self.users = accounts_pb2_grpc.UsersStub(channel)
        self.devices = accounts_pb2_grpc.DevicesStub(channel)
        self.chats = chats_pb2_grpc.ChatsStub(channel)
        self.groups = groups_pb2_grpc.GroupsStub(channel)
        self.channel = channel
        self.metadata = [("authorization", f"Bearer {api_key}")]

    async def new_device(self, name: str) -> accounts_pb2.LinkDeviceResponse:
        """Makes a user with one device, and returns the device and its tokens."""
        user = accounts_pb2.CreateUserRequest(external_id=f"{name}-{uuid.uuid4()}", display_name=name)
        user = (await self.users.CreateUser(user, metadata=self.metadata)).user
        return await self.link_device(user.user_id)

    async def link_device(self, user_id: str) -> accounts_pb2.LinkDeviceResponse:
        """Links one more device to a user, and returns the device and its tokens."""
        link = accounts_pb2.LinkDeviceRequest(user_id=user_id, request_id=str(uuid.uuid4()), platform="python")
        return await self.devices.LinkDevice(link, metadata=self.metadata)


class Device:
    """A device on its stream. It follows rules 4 to 6 at Messaging.Stream. An app also has a database for logs, cursors
    and outbox, and opens a new stream when this one ends."""

    def __init__(self, name: str, channel: grpc.aio.Channel, linked: accounts_pb2.LinkDeviceResponse):
        self.name = name
        self.user_id = linked.device.user_id
        self.device_id = linked.device.device_id
        self.access_token = linked.tokens.access_token
        self.metadata = [("authorization", f"Bearer {self.access_token}")]
        self.chats = chats_pb2_grpc.ChatsStub(channel)
        self.groups = groups_pb2_grpc.GroupsStub(channel)
        self.call = messaging_pb2_grpc.MessagingStub(channel).Stream()
        self.events = self.read()
        self.heartbeats = None
        # The cursor of each chat, and the entries that are stored.
        self.cursors = {}
        self.logs = collections.defaultdict(list)
        # The messages that have no result yet, by request_id.
        self.outbox = {}
        # The messages of others that are stored and that nobody has looked at yet.
        self.news = collections.deque()

    async def say(self, **item) -> None:
        """Writes one item in a frame of its own."""
        await self.call.write(messaging_pb2.ClientFrame(items=[messaging_pb2.ClientItem(**item)]))

    async def read(self):
        """Yields the stream's events. An entry is stored, or held, before its event is yielded."""
        async for frame in self.call:
            for event in frame.events:
                kind = event.WhichOneof("event")
                if kind == "entry":
                    await self.place(event.entry.chat_id, event.entry.seq, event.entry)
                elif kind == "skipped":
                    await self.place(event.skipped.chat_id, event.skipped.to_seq)
                elif kind == "send_result" and event.send_result.WhichOneof("outcome") == "sent":
                    entry = self.own_entry(event.send_result)
                    await self.place(entry.chat_id, entry.seq, entry)
                yield event

    async def place(self, chat_id: str, seq: int, entry=None) -> None:
        """Takes an entry, or the Sent that stands for one. Without an entry it takes a Skipped."""
        cursor = await self.cursor(chat_id, seq)
        before = cursor.seq
        ready = cursor.entry(entry) if entry else cursor.skipped(seq)
        # An app stores these and the cursor in one transaction. Then, and only then, it acknowledges.
        self.logs[chat_id] += ready
        if cursor.seq > before or seq <= before:
            await self.say(ack=messaging_pb2.Ack(chat_id=chat_id, seq=cursor.seq))
        for entry in ready:
            if entry.sender_device_id == self.device_id:
                # The entry shows that the message was sent, even if its result was lost.
                self.outbox.pop(entry.request_id, None)
            elif entry.content.HasField("message"):
                self.news.append(entry)

    async def cursor(self, chat_id: str, seq: int) -> Cursor:
        """Returns the chat's cursor. In a chat that is new to this device it begins at 0, or where the server says."""
        if chat_id not in self.cursors:
            self.cursors[chat_id] = Cursor(0 if seq == 1 else await self.resume_seq(chat_id, seq))
        return self.cursors[chat_id]

    async def resume_seq(self, chat_id: str, seq: int) -> int:
        request = chats_pb2.GetChatRequest(chat_id=chat_id)
        try:
            return (await self.chats.GetChat(request, metadata=self.metadata)).chat.resume_seq
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                raise
            # The user is no longer a member, so what comes now (the removal at least) is all that the device gets.
            return seq - 1

    def own_entry(self, result: messaging_pb2.SendResult) -> entry_pb2.Entry:
        """Returns the entry that an own message became."""
        message = self.outbox.get(result.request_id, messaging_pb2.SendMessage())
        content = entry_pb2.Message(envelope=message.envelope, body=message.body)
        return entry_pb2.Entry(
            chat_id=result.sent.chat_id,
            seq=result.sent.seq,
            sent_at_ms=result.sent.sent_at_ms,
            sender_user_id=self.user_id,
            sender_device_id=self.device_id,
            request_id=result.request_id,
            content=entry_pb2.EntryContent(message=content),
        )

    async def until(self, what: str, found):
        """Takes events until `found` returns a value for one, and returns that value."""

        async def take():
            async for event in self.events:
                if value := found(event):
                    return value
            raise AssertionError(f"{self.name}: the stream ended before {what}")

        return await asyncio.wait_for(take(), TIMEOUT_S)

    async def expect(self, kind: str, wanted=lambda event: True):
        """Skips events until one of this kind comes that `wanted` accepts, and returns it."""

        def found(event):
            value = getattr(event, kind)
            return value if event.WhichOneof("event") == kind and wanted(value) else None

        return await self.until(kind, found)

    async def open(self) -> None:
        await self.say(open=messaging_pb2.Open(access_token=self.access_token, client_version="python-example/1"))
        opened = await self.expect("opened")
        self.heartbeats = asyncio.create_task(self.beat(opened.heartbeat_interval_ms / 1000))
        await self.expect("caught_up")
        print(f"{self.name:>6} is online, session {opened.session_id}")

    async def beat(self, interval_s: float) -> None:
        while True:
            await asyncio.sleep(interval_s)
            await self.say(heartbeat=messaging_pb2.Heartbeat())

    async def close(self) -> None:
        self.heartbeats.cancel()
        await self.call.done_writing()

    async def send(self, text: str, **to) -> messaging_pb2.Sent:
        """Sends a message, and returns when it is durable."""
        message = messaging_pb2.SendMessage(request_id=str(uuid.uuid4()), body=text.encode(), **to)
        self.outbox[message.request_id] = message
        while True:
            await self.say(send=message)
            result = await self.expect("send_result", lambda result: result.request_id == message.request_id)
            if result.WhichOneof("outcome") == "sent":
                print(f"{self.name:>6} > {text}   (sent, no. {result.sent.seq})")
                return result.sent
            # Sent again as often as one likes: one request_id makes one message.
            assert result.error.code in RETRY, f"{self.name}: {result.error}"
            await asyncio.sleep(result.error.retry_after_ms / 1000)

    async def has(self, chat_id: str, seq: int) -> None:
        """Waits until everything up to `seq` of a chat is stored."""

        def stored(event=None):
            return chat_id in self.cursors and self.cursors[chat_id].seq >= seq

        if not stored():
            await self.until(f"no. {seq}", stored)

    async def receive(self, text: str) -> entry_pb2.Entry:
        """Waits for a message. It is stored and acknowledged when this returns."""
        if not self.news:
            await self.until("a message", lambda event: self.news)
        entry = self.news.popleft()
        body = entry.content.message.body.decode()
        assert body == text, f"{self.name}: expected {text!r}, got {body!r}"
        print(f"{self.name:>6} < {body}   (no. {entry.seq})")
        return entry


@contextlib.asynccontextmanager
async def people(directory: pathlib.Path, *names: str):
    """Makes people, and yields the company's back end and a device of each person, online on the gateways in turn."""
    gateways = (directory / "gateways").read_text().split()
    api_key = (directory / "api-key").read_text().strip()
    credentials = grpc.ssl_channel_credentials((directory / "ca.pem").read_bytes())

    def channel(number: int) -> grpc.aio.Channel:
        address = gateways[number % len(gateways)].removeprefix("https://")
        return grpc.aio.secure_channel(address, credentials)

    async with contextlib.AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(channel(number)) for number in range(len(names))]
        back_end = BackEnd(channels[0], api_key)
        devices = []
        for name, own in zip(names, channels):
            devices.append(Device(name, own, await back_end.new_device(name)))
            await devices[-1].open()
        yield back_end, *devices
        for device in devices:
            await device.close()


@contextlib.asynccontextmanager
async def two_people(directory: pathlib.Path):
    """Makes Alice and Bob, and yields a device of each, online on different gateways."""
    async with people(directory, "Alice", "Bob") as (_, alice, bob):
        yield alice, bob


async def converse(directory: pathlib.Path) -> None:
    async with two_people(directory) as (alice, bob):
        # The first message to a person needs no chat: the result names it.
        sent = await alice.send("Hello Bob, this is Python.", peer_user_id=bob.user_id)
        await bob.receive("Hello Bob, this is Python.")
        await alice.expect("receipt", lambda receipt: receipt.user_id == bob.user_id and receipt.delivered_seq >= sent.seq)
        print("        … delivered")
        await bob.say(mark_read=messaging_pb2.MarkRead(chat_id=sent.chat_id, seq=sent.seq))
        await alice.expect("receipt", lambda receipt: receipt.user_id == bob.user_id and receipt.read_seq >= sent.seq)
        print("        … read")
        await bob.send("Hello Alice, I can read you.", chat_id=sent.chat_id)
        await alice.receive("Hello Alice, I can read you.")


def main(play, done: str) -> int:
    """Plays something on the platform, and prints `done`. Returns the exit code."""
    default = os.environ.get("TERN_DEV_DIR", ".tern/dev")
    directory = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else default)
    if not (directory / "gateways").exists():
        print(f"There is no platform in {directory}. Start one with `make run`, and run this again beside it.", file=sys.stderr)
        return 1
    try:
        asyncio.run(play(directory))
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.UNAVAILABLE:
            raise
        print(f"The platform of {directory} does not answer ({error.details()}). Is `make run` still up?", file=sys.stderr)
        return 1
    print(done)
    return 0


if __name__ == "__main__":
    sys.exit(main(converse, "A conversation was held."))
