"""Gets a push while away, by Web Push or UnifiedPush: docs/push.md explains this code.

    python examples/python/web_push.py [DIR]

DIR is that of conversation.py. Bob's phone has no stream. It subscribes at a push service of its own, on this machine,
and registers the subscription. When Alice writes, it gets a push, decrypts it, fetches the message and acknowledges it.
What Bob reads on his laptop is withdrawn from the phone. Exits with 1 if anything expected does not happen.
"""

import asyncio
import base64
import http.server
import json
import os
import pathlib
import sys
import threading
import uuid

import http_ece
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from conversation import TIMEOUT_S, BackEnd, main, people
from tern.v1 import (
    accounts_pb2_grpc,
    entry_pb2,
    inbox_pb2,
    inbox_pb2_grpc,
    messaging_pb2,
    push_pb2,
    push_pb2_grpc,
)


class PushService:
    """A push service of a single subscription. A browser has one of its vendor's, and UnifiedPush one that the person
    chose. It sees neither the keys nor what they decrypt."""

    def __init__(self):
        self.came = asyncio.Queue()
        loop = asyncio.get_running_loop()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(handler):
                body = handler.rfile.read(int(handler.headers["content-length"]))
                handler.send_response(201)
                handler.send_header("content-length", "0")
                handler.end_headers()
                loop.call_soon_threadsafe(self.came.put_nowait, (dict(handler.headers.items()), body))

            def log_message(handler, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}/push/{uuid.uuid4()}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Subscription:
    """The keys of a subscription (RFC 8291). A browser makes them in PushManager.subscribe."""

    def __init__(self, endpoint: str):
        self.endpoint = endpoint
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.auth = os.urandom(16)

    def token(self) -> push_pb2.PushToken:
        p256dh = self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        subscription = push_pb2.WebPushSubscription(endpoint=self.endpoint, p256dh=p256dh, auth=self.auth)
        return push_pb2.PushToken(web_push=subscription)

    def decrypt(self, body: bytes) -> dict:
        """Returns what a push says: tag, badge, and either notification or withdraw. A browser does this by itself."""
        return json.loads(http_ece.decrypt(body, private_key=self.key, auth_secret=self.auth, version="aes128gcm"))


def announced(push: dict) -> push_pb2.Notification:
    """Returns the notification of a push. One without it changes the badge, or withdraws what is shown."""
    return push_pb2.Notification.FromString(base64.b64decode(push.get("notification", "")))


class Phone:
    """A device without a stream."""

    def __init__(self, back_end: BackEnd, linked):
        self.metadata = [("authorization", f"Bearer {linked.tokens.access_token}")]
        self.devices = accounts_pb2_grpc.DevicesStub(back_end.channel)
        self.inbox = inbox_pb2_grpc.InboxStub(back_end.channel)
        self.push = push_pb2_grpc.PushStub(back_end.channel)

    async def web_push_key(self) -> bytes:
        """Returns the key that a browser restricts the subscription to (applicationServerKey)."""
        answer = await self.push.GetWebPushKey(push_pb2.GetWebPushKeyRequest(), metadata=self.metadata)
        return answer.key

    async def register(self, token: push_pb2.PushToken) -> None:
        """Says where this device gets its pushes. An app does so at each start."""
        await self.devices.SetPushToken(push_pb2.SetPushTokenRequest(token=token), metadata=self.metadata)

    async def fetch(self, chat_id: str) -> list[entry_pb2.Entry]:
        """Returns what waits for this device in a chat."""
        request = inbox_pb2.FetchRequest(chat_id=chat_id)
        answer = await self.inbox.Fetch(request, metadata=self.metadata)
        return [event.entry for event in answer.events if event.HasField("entry")]

    async def acknowledge(self, chat_id: str, seq: int) -> None:
        """Says that everything up to `seq` is stored. Then no push comes for it, on this device."""
        await self.inbox.Ack(inbox_pb2.AckRequest(chat_id=chat_id, seq=seq), metadata=self.metadata)


def is_ours(headers: dict, key: bytes) -> bool:
    """Returns whether a push names the server's key (RFC 8292). A push service also verifies the signature by it."""
    named = headers["authorization"].split("k=")[1].split(",")[0].strip()
    return base64.urlsafe_b64decode(named + "=" * (-len(named) % 4)) == key


async def play(directory: pathlib.Path) -> None:
    async with people(directory, "Alice", "Bob") as (back_end, alice, laptop):
        phone = Phone(back_end, await back_end.link_device(laptop.user_id))
        key = await phone.web_push_key()
        with PushService() as service:
            subscription = Subscription(service.endpoint)
            await phone.register(subscription.token())

            async def next_push(wanted) -> dict:
                """Returns the next push that is wanted. What is news to the account is announced too."""
                while True:
                    headers, body = await asyncio.wait_for(service.came.get(), TIMEOUT_S)
                    headers = {name.lower(): value for name, value in headers.items()}
                    assert is_ours(headers, key), headers
                    push = subscription.decrypt(body)
                    assert headers["topic"] == push["tag"], headers
                    if wanted(push):
                        return push

            is_message = lambda push: announced(push).reason == push_pb2.NOTIFICATION_REASON_MESSAGE
            sent = await alice.send("Dinner at eight?", peer_user_id=laptop.user_id)
            push = await next_push(is_message)
            notification = announced(push)
            assert (notification.sender_name, notification.chat_id) == ("Alice", sent.chat_id), notification
            print(f" Phone ! {notification.sender_name} wrote, {push['badge']} unread")
            entries = await phone.fetch(notification.chat_id)
            assert entries[-1].content.message.body == b"Dinner at eight?", entries
            print(f" Phone < {entries[-1].content.message.body.decode()}   (no. {entries[-1].seq})")
            await phone.acknowledge(notification.chat_id, entries[-1].seq)

            # What is read on the laptop goes from the phone's screen.
            sent = await alice.send("Or at nine?", chat_id=sent.chat_id)
            shown = await next_push(is_message)
            assert shown["tag"] == push["tag"], "it takes the place of the first one"
            await laptop.has(sent.chat_id, sent.seq)
            await laptop.say(mark_read=messaging_pb2.MarkRead(chat_id=sent.chat_id, seq=sent.seq))
            withdrawn = await next_push(lambda push: push.get("withdraw", False))
            assert withdrawn["tag"] == shown["tag"], withdrawn
            print(" Phone . read on the laptop")


if __name__ == "__main__":
    sys.exit(main(play, "A phone was woken."))
