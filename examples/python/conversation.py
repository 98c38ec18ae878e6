"""Two people have a conversation, by the stubs that grpcio-tools makes from proto/.

    python examples/python/conversation.py [DIR]

DIR is where `tern dev` keeps its keys: $TERN_DEV_DIR or .tern/dev. A back end (with the API key) makes two users and links a device to
each; then the devices open their streams, write, acknowledge, and see each other's receipts. Exits with 1 when anything
expected does not happen.
"""

import asyncio
import os
import pathlib
import sys
import uuid

import grpc

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE / "generated"))

from tern.v1 import accounts_pb2, accounts_pb2_grpc, entry_pb2, messaging_pb2, messaging_pb2_grpc  # noqa: E402

TIMEOUT_S = 15


class BackEnd:
    """What a company's own server does: it knows who people are, and brings their devices in."""

    def __init__(self, channel: grpc.aio.Channel, api_key: str):
        self.users = accounts_pb2_grpc.UsersStub(channel)
        self.devices = accounts_pb2_grpc.DevicesStub(channel)
        self.metadata = [("authorization", f"Bearer {api_key}")]

    async def new_device(self, name: str) -> tuple[str, str]:
        """Makes a user with one device; returns the user's id and the device's access token."""
        user = accounts_pb2.CreateUserRequest(external_id=f"{name}-{uuid.uuid4()}", display_name=name)
        user = (await self.users.CreateUser(user, metadata=self.metadata)).user
        link = accounts_pb2.LinkDeviceRequest(user_id=user.user_id, request_id=str(uuid.uuid4()), platform="python")
        link = await self.devices.LinkDevice(link, metadata=self.metadata)
        return user.user_id, link.tokens.access_token


class Device:
    """A device on its stream."""

    def __init__(self, name: str, channel: grpc.aio.Channel, access_token: str):
        self.name = name
        self.call = messaging_pb2_grpc.MessagingStub(channel).Stream()
        self.events = self.read()
        self.access_token = access_token

    async def say(self, **item) -> None:
        """Writes one item in a frame of its own."""
        await self.call.write(messaging_pb2.ClientFrame(items=[messaging_pb2.ClientItem(**item)]))

    async def read(self):
        async for frame in self.call:
            for event in frame.events:
                yield event

    async def expect(self, kind: str, wanted=lambda event: True):
        """Passes over events until one of this kind comes that is wanted."""

        async def find():
            async for event in self.events:
                if event.WhichOneof("event") == kind and wanted(getattr(event, kind)):
                    return getattr(event, kind)
            raise AssertionError(f"{self.name}: the stream ended before {kind}")

        return await asyncio.wait_for(find(), TIMEOUT_S)

    async def open(self) -> None:
        await self.say(open=messaging_pb2.Open(access_token=self.access_token, client_version="python-example/1"))
        opened = await self.expect("opened")
        await self.expect("caught_up")
        print(f"{self.name:>6} is online, session {opened.session_id}")

    async def send(self, text: str, **to) -> messaging_pb2.Sent:
        """Sends a message; returns when it is durable."""
        request_id = str(uuid.uuid4())
        message = messaging_pb2.SendMessage(request_id=request_id, body=text.encode(), **to)
        await self.say(send=message)
        result = await self.expect("send_result", lambda result: result.request_id == request_id)
        assert result.WhichOneof("outcome") == "sent", f"{self.name}: {result.error}"
        print(f"{self.name:>6} > {text}   (sent, no. {result.sent.seq})")
        return result.sent

    async def receive(self, text: str) -> entry_pb2.Entry:
        """Waits for a message, stores it (here: prints it), then acknowledges it."""
        entry = await self.expect("entry")
        body = entry.content.message.body.decode()
        assert body == text, f"{self.name}: expected {text!r}, got {body!r}"
        print(f"{self.name:>6} < {body}   (no. {entry.seq})")
        await self.say(ack=messaging_pb2.Ack(chat_id=entry.chat_id, seq=entry.seq))
        return entry


async def converse(directory: pathlib.Path) -> None:
    gateways = (directory / "gateways").read_text().split()
    api_key = (directory / "api-key").read_text().strip()
    credentials = grpc.ssl_channel_credentials((directory / "ca.pem").read_bytes())

    def channel(number: int) -> grpc.aio.Channel:
        address = gateways[number % len(gateways)].removeprefix("https://")
        return grpc.aio.secure_channel(address, credentials)

    # The two are on different gateways.
    async with channel(0) as first, channel(1) as second:
        back_end = BackEnd(first, api_key)
        alice_id, alice_token = await back_end.new_device("Alice")
        bob_id, bob_token = await back_end.new_device("Bob")
        alice, bob = Device("Alice", first, alice_token), Device("Bob", second, bob_token)
        await alice.open()
        await bob.open()

        # The first message to a person needs no chat: the result names it.
        sent = await alice.send("Hello Bob, this is Python.", peer_user_id=bob_id)
        await bob.receive("Hello Bob, this is Python.")
        await alice.expect("receipt", lambda receipt: receipt.user_id == bob_id and receipt.delivered_seq >= sent.seq)
        print("        … delivered")
        await bob.say(mark_read=messaging_pb2.MarkRead(chat_id=sent.chat_id, seq=sent.seq))
        await alice.expect("receipt", lambda receipt: receipt.user_id == bob_id and receipt.read_seq >= sent.seq)
        print("        … read")
        await bob.send("Hello Alice, I can read you.", chat_id=sent.chat_id)
        await alice.receive("Hello Alice, I can read you.")


if __name__ == "__main__":
    default = os.environ.get("TERN_DEV_DIR", ".tern/dev")
    asyncio.run(converse(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else default)))
    print("A conversation was held.")
