"""Does to messages what the members of a chat do, and shows each message as it is: docs/messages.md explains this code.

    python examples/python/messages.py [DIR]

DIR is that of conversation.py. Alice and Bob edit, delete, react to, reply to, mention, pin and forward messages. Each
device's own view of the chat must be the server's. Exits with 1 if anything expected does not happen.
"""

import collections
import dataclasses
import pathlib
import sys
import uuid

import grpc

from conversation import Device, main, two_people
from tern.v1 import chats_pb2, entry_pb2, history_pb2, messaging_pb2


async def edit(device: Device, chat_id: str, seq: int, envelope: entry_pb2.Envelope, text: str) -> messaging_pb2.Sent:
    """Gives the message at `seq` another text. The edit replaces the envelope too, so the rest of it is sent again."""
    changed = entry_pb2.Envelope()
    changed.CopyFrom(envelope)
    changed.kind, changed.target_seq = entry_pb2.MESSAGE_KIND_EDIT, seq
    return await device.send(text, chat_id=chat_id, envelope=changed)


async def delete(device: Device, chat_id: str, seq: int) -> messaging_pb2.Sent:
    envelope = entry_pb2.Envelope(kind=entry_pb2.MESSAGE_KIND_DELETE, target_seq=seq)
    return await device.send("", chat_id=chat_id, envelope=envelope)


async def react(device: Device, chat_id: str, seq: int, emoji: str, take_back: bool = False) -> messaging_pb2.Sent:
    envelope = entry_pb2.Envelope(kind=entry_pb2.MESSAGE_KIND_REACTION, target_seq=seq, take_back=take_back)
    return await device.send(emoji, chat_id=chat_id, envelope=envelope)


async def reply(device: Device, chat_id: str, seq: int, root: int, text: str) -> messaging_pb2.Sent:
    """Replies to the message at `seq`, in the thread that begins with the message at `root`."""
    envelope = entry_pb2.Envelope(reply_to_seq=seq, thread_root_seq=root)
    return await device.send(text, chat_id=chat_id, envelope=envelope)


async def mention(device: Device, chat_id: str, user_id: str, text: str) -> messaging_pb2.Sent:
    envelope = entry_pb2.Envelope(mentioned_user_ids=[user_id])
    return await device.send(text, chat_id=chat_id, envelope=envelope)


async def pin(device: Device, chat_id: str, seq: int, take_back: bool = False) -> messaging_pb2.Sent:
    envelope = entry_pb2.Envelope(kind=entry_pb2.MESSAGE_KIND_PIN, target_seq=seq, take_back=take_back)
    return await device.send("", chat_id=chat_id, envelope=envelope)


async def forward(device: Device, chat_id: str, shown: "Shown") -> messaging_pb2.Sent:
    """Passes a message on to another chat. What it replied to and whom it mentioned is not known there."""
    envelope = entry_pb2.Envelope(times_forwarded=shown.envelope.times_forwarded + 1)
    return await device.send(shown.text, chat_id=chat_id, envelope=envelope)


@dataclasses.dataclass
class Shown:
    """A message as a person sees it."""

    seq: int
    sender: str
    envelope: entry_pb2.Envelope = dataclasses.field(default_factory=entry_pb2.Envelope)
    text: str = ""
    edited: bool = False
    deleted: bool = False
    pinned: bool = False
    # The people who reacted, by reaction.
    reactions: dict = dataclasses.field(default_factory=lambda: collections.defaultdict(set))


def apply(messages: dict, entry: entry_pb2.Entry) -> None:
    """Applies an entry to the messages of a chat, which are by seq. Entries come in the order of their seqs."""
    content = entry.content
    if content.HasField("erased") and content.erased.kind == entry_pb2.MESSAGE_KIND_MESSAGE:
        messages[entry.seq] = Shown(entry.seq, entry.sender_user_id, deleted=True)
    if not content.HasField("message"):
        return
    envelope, body = content.message.envelope, content.message.body.decode()
    if envelope.kind in (entry_pb2.MESSAGE_KIND_UNSPECIFIED, entry_pb2.MESSAGE_KIND_MESSAGE):
        messages[entry.seq] = Shown(entry.seq, entry.sender_user_id, envelope, body)
        return
    message = messages.get(envelope.target_seq)
    if message is None or message.deleted:
        return
    if envelope.kind == entry_pb2.MESSAGE_KIND_EDIT:
        message.envelope, message.text, message.edited = envelope, body, True
    elif envelope.kind == entry_pb2.MESSAGE_KIND_DELETE:
        messages[message.seq] = Shown(message.seq, message.sender, deleted=True)
    elif envelope.kind == entry_pb2.MESSAGE_KIND_REACTION:
        people = message.reactions[body]
        (people.discard if envelope.take_back else people.add)(entry.sender_user_id)
    elif envelope.kind == entry_pb2.MESSAGE_KIND_PIN:
        message.pinned = not envelope.take_back


async def history(device: Device, chat_id: str, **only):
    """Yields a chat's messages as they are now, the newest first."""
    request = chats_pb2.ListMessagesRequest(chat_id=chat_id, folded=True, page_size=50, **only)
    while True:
        page = await device.chats.ListMessages(request, metadata=device.metadata)
        for message in page.messages:
            yield message
        request.before_seq = page.next_before_seq
        if not request.before_seq:
            return


async def was_stored(device: Device, chat_id: str, request_id: str) -> bool:
    """Finds out what became of a message of this person whose result was lost."""
    request = history_pb2.GetMessageRequest(chat_id=chat_id, request_id=request_id)
    try:
        await device.chats.GetMessage(request, metadata=device.metadata)
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.NOT_FOUND:
            raise
        return False
    return True


def seen_by(device: Device, chat_id: str) -> dict:
    """Returns the messages of a chat as this device shows them."""
    messages = {}
    for entry in device.logs[chat_id]:
        apply(messages, entry)
    return messages


async def agrees_with_the_server(device: Device, chat_id: str) -> None:
    """Checks that the device shows what the server's history has."""
    messages, seqs = seen_by(device, chat_id), []
    async for now in history(device, chat_id):
        shown, content = messages[now.entry.seq], now.entry.content
        seqs.append(shown.seq)
        assert shown.deleted == bool(now.deleted_seq) == content.HasField("erased"), f"{shown} and {now}"
        assert shown.text == content.message.body.decode(), f"{shown} and {now}"
        assert shown.edited == bool(now.edited_seq) or shown.deleted, f"{shown} and {now}"
        assert shown.pinned == bool(now.pinned_seq), f"{shown} and {now}"
        people = {reaction: len(people) for reaction, people in shown.reactions.items() if people}
        assert people == {one.reaction.decode(): one.count for one in now.reactions}, f"{shown} and {now}"
    assert seqs == sorted(messages, reverse=True), f"{device.name}: {seqs}"


async def reason_of(device: Device, chat_id: str, envelope: entry_pb2.Envelope, text: str) -> str:
    """Sends by a call what must be refused, and returns the status."""
    request = chats_pb2.SendMessageRequest(
        chat_id=chat_id, request_id=str(uuid.uuid4()), envelope=envelope, body=text.encode()
    )
    try:
        sent = await device.chats.SendMessage(request, metadata=device.metadata)
    except grpc.aio.AioRpcError as error:
        return error.code().name
    raise AssertionError(f"{device.name}: {sent} should have been refused")


async def play(directory: pathlib.Path) -> None:
    async with two_people(directory) as (alice, bob):
        sent = await alice.send("I come at 8.", peer_user_id=bob.user_id)
        chat_id, first = sent.chat_id, sent.seq
        await edit(alice, chat_id, first, entry_pb2.Envelope(), "I come at 9.")
        await react(bob, chat_id, first, "👍")
        await react(bob, chat_id, first, "❤")
        await react(bob, chat_id, first, "👍", take_back=True)
        answer = await reply(bob, chat_id, first, first, "Fine.")
        mentioned = await mention(bob, chat_id, alice.user_id, "Alice, bring the map.")
        await alice.has(chat_id, mentioned.seq)
        request = chats_pb2.GetChatRequest(chat_id=chat_id)
        chat = (await alice.chats.GetChat(request, metadata=alice.metadata)).chat
        assert (chat.unread_mention_count, chat.first_unread_mention_seq) == (1, mentioned.seq), chat
        await pin(alice, chat_id, first)
        copy = await forward(alice, chat_id, seen_by(alice, chat_id)[first])
        for device in (alice, bob):
            await device.has(chat_id, copy.seq)
            await agrees_with_the_server(device, chat_id)
        shown = seen_by(bob, chat_id)[first]
        assert (shown.text, shown.edited, shown.pinned) == ("I come at 9.", True, True), shown
        assert shown.reactions["❤"] == {bob.user_id} and not shown.reactions["👍"], shown
        thread = [reply.entry.seq async for reply in history(bob, chat_id, thread_root_seq=first)]
        assert thread == [answer.seq], thread
        await read_one(alice, chat_id, first, copy.seq)

        deletion = await delete(alice, chat_id, first)
        for device in (alice, bob):
            await device.has(chat_id, deletion.seq)
            await agrees_with_the_server(device, chat_id)
        assert seen_by(bob, chat_id)[first].deleted
        late = entry_pb2.Envelope(kind=entry_pb2.MESSAGE_KIND_REACTION, target_seq=first)
        assert await reason_of(bob, chat_id, late, "👍") == "NOT_FOUND"
        others = entry_pb2.Envelope(kind=entry_pb2.MESSAGE_KIND_EDIT, target_seq=copy.seq)
        assert await reason_of(bob, chat_id, others, "I never come.") == "PERMISSION_DENIED"


async def read_one(device: Device, chat_id: str, edited: int, last: int) -> None:
    """Reads the edits of one message, and finds another one by its request."""
    request = history_pb2.ListEditsRequest(chat_id=chat_id, seq=edited)
    edits = (await device.chats.ListEdits(request, metadata=device.metadata)).edits
    assert [entry.content.message.body.decode() for entry in edits] == ["I come at 9."], edits
    request_id = next(entry.request_id for entry in device.logs[chat_id] if entry.seq == last)
    assert await was_stored(device, chat_id, request_id)
    assert not await was_stored(device, chat_id, str(uuid.uuid4()))


if __name__ == "__main__":
    sys.exit(main(play, "Messages were edited, deleted, reacted to, answered, pinned and forwarded."))
