"""Runs a group as its members and the company's back end do: docs/groups.md explains this code.

    python examples/python/groups.py [DIR]

DIR is that of conversation.py. Alice owns a group. Bob joins by a link, Carol when her request was accepted. The policy
slows members down, the back end freezes the group, and Alice hands it over. Exits with 1 if anything expected does not
happen.
"""

import pathlib
import sys
import uuid

import grpc

from conversation import BackEnd, Device, main, people
from messages import reason_of
from tern.v1 import chats_pb2, entry_pb2, groups_pb2


async def create_group(device: Device, title: str, *members: str) -> str:
    """Makes a group that this person owns, and returns its id."""
    request = chats_pb2.CreateGroupRequest(request_id=str(uuid.uuid4()), title=title, member_user_ids=members)
    return (await device.chats.CreateGroup(request, metadata=device.metadata)).chat.chat_id


async def view(device: Device, chat_id: str) -> chats_pb2.Chat:
    request = chats_pb2.GetChatRequest(chat_id=chat_id)
    return (await device.chats.GetChat(request, metadata=device.metadata)).chat


async def describe(device: Device, chat_id: str, text: str) -> int:
    request = groups_pb2.SetDescriptionRequest(chat_id=chat_id, request_id=str(uuid.uuid4()), description=text)
    return (await device.groups.SetDescription(request, metadata=device.metadata)).seq


async def change_policy(device: Device, chat_id: str, **changes) -> int:
    """Changes some of the policy. The call sets the whole of it, so the rest is sent as it is."""
    policy = (await view(device, chat_id)).policy
    for field, value in changes.items():
        setattr(policy, field, value)
    request = groups_pb2.SetPolicyRequest(chat_id=chat_id, request_id=str(uuid.uuid4()), policy=policy)
    return (await device.groups.SetPolicy(request, metadata=device.metadata)).seq


async def hand_over(device: Device, chat_id: str, user_id: str) -> int:
    """Makes a member the owner, and this person an admin, in one moment."""
    request = chats_pb2.SetRoleRequest(
        chat_id=chat_id, request_id=str(uuid.uuid4()), user_id=user_id, role=entry_pb2.ROLE_OWNER, hand_over=True
    )
    return (await device.chats.SetRole(request, metadata=device.metadata)).seq


async def invite(device: Device, chat_id: str, **limits) -> groups_pb2.Invite:
    """Makes a link. Limits are expires_after_s, max_uses and needs_approval."""
    request = groups_pb2.CreateInviteRequest(chat_id=chat_id, request_id=str(uuid.uuid4()), **limits)
    return (await device.groups.CreateInvite(request, metadata=device.metadata)).invite


def url(chat_id: str, token: str) -> str:
    """Returns what a person is sent. The page behind it opens the app, and says nothing about the group by itself."""
    return f"https://chat.example.com/join/{chat_id}/{token}"


async def look_up(device: Device, chat_id: str, token: str):
    """Returns what the page "join?" shows; None if the link leads nowhere."""
    request = groups_pb2.LookUpInviteRequest(chat_id=chat_id, token=token)
    try:
        return await device.groups.LookUpInvite(request, metadata=device.metadata)
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.NOT_FOUND:
            raise
        return None


async def join(device: Device, chat_id: str, token: str) -> groups_pb2.JoinByInviteResponse:
    """Joins a group, or asks to. In both cases the chat comes by the stream once the person is a member."""
    request = groups_pb2.JoinByInviteRequest(chat_id=chat_id, request_id=str(uuid.uuid4()), token=token)
    return await device.groups.JoinByInvite(request, metadata=device.metadata)


async def revoke(device: Device, chat_id: str, invite_id: str) -> None:
    request = groups_pb2.RevokeInviteRequest(chat_id=chat_id, invite_id=invite_id)
    await device.groups.RevokeInvite(request, metadata=device.metadata)


async def asking(device: Device, chat_id: str) -> list[str]:
    """Returns the ids of those who ask to join, the oldest request first."""
    request = groups_pb2.ListJoinRequestsRequest(chat_id=chat_id)
    listed = await device.groups.ListJoinRequests(request, metadata=device.metadata)
    return [asks.user_id for asks in listed.requests]


async def answer(device: Device, chat_id: str, user_id: str, accept: bool) -> int:
    request = groups_pb2.AnswerJoinRequestRequest(
        chat_id=chat_id, request_id=str(uuid.uuid4()), user_id=user_id, accept=accept
    )
    return (await device.groups.AnswerJoinRequest(request, metadata=device.metadata)).seq


async def freeze(back_end: BackEnd, chat_id: str, frozen: bool) -> int:
    """Stops a chat, or lets it go on. Only the company's back end may."""
    request = groups_pb2.FreezeRequest(chat_id=chat_id, request_id=str(uuid.uuid4()), frozen=frozen)
    return (await back_end.groups.Freeze(request, metadata=back_end.metadata)).seq


async def history(device: Device, chat_id: str):
    """Yields what a chat shows, the newest first: messages, and gaps that this person may not read."""
    request = chats_pb2.ListMessagesRequest(chat_id=chat_id, folded=True)
    while True:
        page = await device.chats.ListMessages(request, metadata=device.metadata)
        shown = {message.entry.seq: message for message in page.messages}
        shown |= {gap.from_seq: gap for gap in page.gaps}
        for seq in sorted(shown, reverse=True):
            yield shown[seq]
        request.before_seq = page.next_before_seq
        if not request.before_seq:
            return


def line(entry: entry_pb2.Entry) -> str:
    """Returns the line that a chat shows in the place of an entry that changes the group."""
    content = entry.content
    who = entry.sender_user_id or "The company"
    match content.WhichOneof("content"):
        case "chat_created":
            return f"{who} made the group"
        case "members_added" if list(content.members_added.user_ids) == [entry.sender_user_id]:
            return f"{who} joined by a link"
        case "members_added":
            return f"{who} added {', '.join(content.members_added.user_ids)}"
        case "member_removed":
            gone = content.member_removed
            said = f"{gone.user_id} left" if gone.left else f"{who} removed {gone.user_id}"
            return f"{said}; {gone.new_owner_user_id} owns the group now" if gone.new_owner_user_id else said
        case "role_changed" if content.role_changed.handed_over:
            return f"{who} handed the group over to {content.role_changed.user_id}"
        case "role_changed":
            return f"{content.role_changed.user_id} is {entry_pb2.Role.Name(content.role_changed.role)} now"
        case "chat_description_changed":
            return f"{who} changed the description"
        case "group_policy_changed":
            return f"{who} changed who may do what"
        case "chat_frozen":
            return f"{who} {'stopped' if content.chat_frozen.frozen else 'resumed'} the chat"
    return ""


async def told(device: Device, what: str, wanted) -> None:
    """Waits until an entry has come, in whatever chat, that is wanted."""

    def found(event=None) -> bool:
        return any(wanted(entry) for log in device.logs.values() for entry in log)

    if not found():
        await device.until(what, found)


async def play(directory: pathlib.Path) -> None:
    async with people(directory, "Alice", "Bob", "Carol") as (back_end, alice, bob, carol):
        chat_id = await create_group(alice, "Chess")
        first = await alice.send("Who brings a board?", chat_id=chat_id)
        await describe(alice, chat_id, "Mondays at 7.\nBring a board.")
        last = entry_pb2.JOINER_HISTORY_LAST
        await change_policy(alice, chat_id, joiner_history=last, joiner_history_entries=100)
        await people_join(chat_id, first.seq, alice, bob, carol)

        # Members wait between two messages, and the owner does not.
        slow = await change_policy(alice, chat_id, slow_mode_s=3600)
        assert (await view(bob, chat_id)).policy.joiner_history == last, "the rest of the policy stays"
        await bob.has(chat_id, slow)
        await bob.send("I do.", chat_id=chat_id)
        assert await reason_of(bob, chat_id, entry_pb2.Envelope(), "And clocks.") == "RESOURCE_EXHAUSTED"
        await alice.send("Good.", chat_id=chat_id)
        only_admins = await change_policy(alice, chat_id, slow_mode_s=0, send_role=entry_pb2.ROLE_ADMIN)
        await bob.has(chat_id, only_admins)
        assert await reason_of(bob, chat_id, entry_pb2.Envelope(), "And clocks.") == "PERMISSION_DENIED"

        frozen = await freeze(back_end, chat_id, True)
        await alice.has(chat_id, frozen)
        assert await reason_of(alice, chat_id, entry_pb2.Envelope(), "Hello?") == "PERMISSION_DENIED"
        await freeze(back_end, chat_id, False)
        handed = await hand_over(alice, chat_id, bob.user_id)
        await bob.has(chat_id, handed)
        assert (await view(bob, chat_id)).role == entry_pb2.ROLE_OWNER
        assert (await view(alice, chat_id)).role == entry_pb2.ROLE_ADMIN
        for entry in bob.logs[chat_id]:
            if said := line(entry):
                print(f"        {said}")


async def people_join(chat_id: str, first: int, alice: Device, bob: Device, carol: Device) -> None:
    """Bob joins by a link, reads what was said before, and Carol is let in by Alice."""
    made = await invite(alice, chat_id, max_uses=1)
    print(f"        the link: {url(chat_id, made.token)}")
    leads = await look_up(bob, chat_id, made.token)
    assert (leads.title, leads.member_count, leads.is_member) == ("Chess", 1, False), leads
    joined = await join(bob, chat_id, made.token)
    await bob.has(chat_id, joined.seq)
    shown = [item.entry.seq async for item in history(bob, chat_id)]
    assert first in shown, shown
    assert await look_up(carol, chat_id, made.token) is None, "it was for one"

    made = await invite(alice, chat_id, needs_approval=True, expires_after_s=3600)
    asked = await join(carol, chat_id, made.token)
    assert asked.requested and not asked.seq, asked
    await told(alice, "a request to join", lambda entry: entry.content.join_requested.user_id == carol.user_id)
    assert await asking(alice, chat_id) == [carol.user_id]
    accepted = await answer(alice, chat_id, carol.user_id, accept=True)
    await carol.has(chat_id, accepted)
    await revoke(alice, chat_id, made.invite_id)
    assert (await view(carol, chat_id)).member_count == 3


if __name__ == "__main__":
    sys.exit(main(play, "A group was run."))
