"""Keeps two devices of one person alike, and lets messages disappear: docs/own-log.md explains this code.

    python examples/python/own_log.py [DIR]

DIR is that of conversation.py. Alice has a phone and a tablet. She mutes and pins a chat, hides a message, and has the
messages from then on disappear. Exits with 1 if anything expected does not happen.
"""

import collections
import dataclasses
import hashlib
import pathlib
import sys
import time
import uuid

from conversation import Device, main, people
from groups import told
from tern.v1 import chats_pb2, entry_pb2, own_pb2, retention_pb2

# The settings of a chat that is muted for good.
FOR_EVER = 2**63 - 1
NAMESPACE = uuid.UUID("6d0f9d0a-52c1-4c0e-9f0b-7465726e0002")


def own_log_id(user_id: str) -> str:
    """Returns the id of a user's own log: a UUID of version 5 whose name is the 16 bytes of the user's id."""
    digest = hashlib.sha1(NAMESPACE.bytes + uuid.UUID(user_id).bytes).digest()
    return str(uuid.UUID(bytes=digest[:16], version=5))


async def keep(device: Device, chat_id: str, **settings) -> own_pb2.ChatSettings:
    """Changes how this person keeps a chat: muted_until_ms, archived, pinned, marked_unread, draft, mentions_only."""
    request = own_pb2.SetChatSettingsRequest(chat_id=chat_id, request_id=str(uuid.uuid4()), **settings)
    return (await device.chats.SetChatSettings(request, metadata=device.metadata)).settings


async def hide(device: Device, chat_id: str, *seqs: int) -> None:
    """Deletes messages for this person alone."""
    request = own_pb2.HideMessagesRequest(chat_id=chat_id, request_id=str(uuid.uuid4()), seqs=seqs)
    await device.chats.HideMessages(request, metadata=device.metadata)


async def set_retention(device: Device, chat_id: str, **retention) -> int:
    """Says how long a chat is kept: mode, keep_s, disappear_after_s."""
    request = retention_pb2.SetRetentionRequest(
        chat_id=chat_id, request_id=str(uuid.uuid4()), retention=retention_pb2.Retention(**retention)
    )
    return (await device.chats.SetRetention(request, metadata=device.metadata)).seq


@dataclasses.dataclass
class Kept:
    """What a device knows by its user's own log. An app stores it with the log's cursor, in one transaction."""

    settings: dict = dataclasses.field(default_factory=dict)
    hidden: dict = dataclasses.field(default_factory=lambda: collections.defaultdict(set))
    requests: list = dataclasses.field(default_factory=list)
    # What of the account is to be read anew, or shown to the person.
    news: list = dataclasses.field(default_factory=list)


def apply_own(kept: Kept, entry: entry_pb2.Entry) -> None:
    """Applies an entry of the own log. Entries come in the order of their seqs."""
    content = entry.content
    match content.WhichOneof("content"):
        case "chat_settings_changed":
            kept.settings[content.chat_settings_changed.chat_id] = content.chat_settings_changed.settings
        case "messages_hidden":
            kept.hidden[content.messages_hidden.chat_id].update(content.messages_hidden.seqs)
        case "join_requested":
            kept.requests.append((content.join_requested.chat_id, content.join_requested.user_id))
        case "account_changed":
            kept.news.append((content.account_changed.change, content.account_changed.subject_id))


def kept_by(device: Device) -> Kept:
    """Returns what this device knows by the own log."""
    kept = Kept()
    for entry in device.logs[own_log_id(device.user_id)]:
        apply_own(kept, entry)
    return kept


def disappears_at_ms(entry: entry_pb2.Entry) -> int:
    """Returns when a device erases a message, by the server's clock. 0: never."""
    after_s = entry.content.expires_after_s
    return entry.sent_at_ms + after_s * 1000 if after_s else 0


def shown(device: Device, chat_id: str, now_ms: int) -> list[str]:
    """Returns the messages that this device shows: neither those that were hidden nor those that have disappeared."""
    hidden = kept_by(device).hidden[chat_id]
    texts = []
    for entry in device.logs[chat_id]:
        over = 0 < disappears_at_ms(entry) <= now_ms
        if entry.content.HasField("message") and entry.seq not in hidden and not over:
            texts.append(entry.content.message.body.decode())
    return texts


async def chats(device: Device, filter: int = chats_pb2.CHAT_FILTER_UNSPECIFIED, changed_since: str = ""):
    """Lists chats, those that are pinned first, and returns them with the token for the next question."""
    request = chats_pb2.ListChatsRequest(filter=filter, changed_since=changed_since)
    found, token = [], None
    while True:
        page = await device.chats.ListChats(request, metadata=device.metadata)
        found += page.chats
        token = token or page.changes_token
        request.page_token = page.next_page_token
        if not request.page_token:
            return found, token


def is_hidden(chat_id: str, seq: int):
    return lambda entry: chat_id == entry.content.messages_hidden.chat_id and seq in entry.content.messages_hidden.seqs


async def play(directory: pathlib.Path) -> None:
    async with people(directory, "Alice", "Bob") as (back_end, phone, bob):
        tablet = Device("Tablet", back_end.channel, await back_end.link_device(phone.user_id))
        await tablet.open()
        linked = lambda entry: entry.content.account_changed.subject_id == tablet.device_id
        await told(phone, "the new device", linked)
        sent = await bob.send("Happy birthday!", peer_user_id=phone.user_id)
        chat_id = sent.chat_id
        other = await bob.send("Whose birthday is it?", chat_id=chat_id)
        for device in (phone, tablet):
            await device.has(chat_id, other.seq)

        await keep(phone, chat_id, muted_until_ms=FOR_EVER, pinned=True, draft=b"Thank y")
        muted = lambda entry: entry.content.chat_settings_changed.settings.draft == b"Thank y"
        await told(tablet, "the settings", muted)
        assert kept_by(tablet).settings[chat_id].muted_until_ms == FOR_EVER
        listed, token = await chats(tablet)
        assert [chat.chat_id for chat in listed] == [chat_id] and listed[0].settings.pinned_at_ms, listed
        await keep(tablet, chat_id, archived=True, draft=b"")
        assert [chat.chat_id for chat in (await chats(phone, changed_since=token))[0]] == [chat_id]
        assert not (await chats(phone, chats_pb2.CHAT_FILTER_ACTIVE))[0]

        await hide(phone, chat_id, other.seq)
        await told(tablet, "the hidden message", is_hidden(chat_id, other.seq))
        now_ms = time.time_ns() // 1_000_000
        assert shown(tablet, chat_id, now_ms) == ["Happy birthday!"]
        assert shown(bob, chat_id, now_ms) == ["Happy birthday!", "Whose birthday is it?"]
        await disappearing(chat_id, phone, tablet, bob)
        await tablet.close()


async def disappearing(chat_id: str, phone: Device, tablet: Device, bob: Device) -> None:
    """Has the messages from now on disappear after a minute."""
    changed = await set_retention(phone, chat_id, disappear_after_s=60)
    await bob.has(chat_id, changed)
    secret = await bob.send("It is in the oven.", chat_id=chat_id)
    await tablet.has(chat_id, secret.seq)
    entry = next(entry for entry in tablet.logs[chat_id] if entry.seq == secret.seq)
    assert disappears_at_ms(entry) == secret.sent_at_ms + 60_000, entry
    assert shown(tablet, chat_id, secret.sent_at_ms)[-1] == "It is in the oven."
    assert shown(tablet, chat_id, secret.sent_at_ms + 60_000)[-1] == "Happy birthday!"


if __name__ == "__main__":
    sys.exit(main(play, "Two devices were kept alike."))
