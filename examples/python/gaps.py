"""Runs the example's device against a server that does all that Messaging.Stream allows: it sends entries early, late
and twice, leaves some out for a while, skips entries that are not the device's, and sends Sent before entries with
lower seqs. Exits with 1 if the device lost, doubled or disordered an entry, or acknowledged an entry that it was not
given.

    python examples/python/gaps.py [SEED …]
"""

import asyncio
import contextlib
import random
import sys
import uuid

import grpc

from conversation import Device
from tern.v1 import accounts_pb2, chats_pb2, chats_pb2_grpc, entry_pb2, messaging_pb2, messaging_pb2_grpc

SEEDS = range(100)
CHATS = 3
OWN_MESSAGES = 12
# The time limit of a history, which takes far less. A device that stands still has lost something.
BOUND_S = 120


def event(**kind) -> messaging_pb2.ServerEvent:
    return messaging_pb2.ServerEvent(**kind)


class Log:
    """One chat, with the entries that the device has to get and those that it was given."""

    def __init__(self, chance: random.Random):
        self.chat_id = str(uuid.UUID(int=chance.getrandbits(128)))
        self.entries = {}
        for _ in range(chance.randint(1, 60)):
            self.add(request_id=str(uuid.UUID(int=chance.getrandbits(128))))
        # The seq at which the device's cursor begins. 0: the chat is new.
        self.resume_seq = chance.choice([0, 0, chance.randint(0, self.head)])
        # The seqs that the device does not get. It always gets the first entry of a new chat.
        self.hidden = {seq for seq in range(2, self.head) if chance.random() < 0.2}
        self.given = set(range(1, self.resume_seq + 1))
        self.acked = self.resume_seq

    def add(self, **entry) -> entry_pb2.Entry:
        seq = len(self.entries) + 1
        content = entry_pb2.EntryContent(message=entry_pb2.Message(body=f"no. {seq}".encode()))
        self.entries[seq] = entry_pb2.Entry(chat_id=self.chat_id, seq=seq, content=content, **entry)
        return self.entries[seq]

    @property
    def head(self) -> int:
        return len(self.entries)

    def due(self) -> list[int]:
        """Returns the seqs that the device has to have in the end, in order."""
        return [seq for seq in range(self.resume_seq + 1, self.head + 1) if seq not in self.hidden]

    def hint(self, chance: random.Random) -> list[messaging_pb2.ServerEvent]:
        """Returns any entry, as a live push may bring it at any time."""
        due = self.due()
        return [self.give(chance.choice(due))] if due else []

    def window(self, chance: random.Random) -> tuple[int, list[messaging_pb2.ServerEvent]]:
        """Returns the last seq and the events after the acknowledged ones. A run of hidden entries is one Skipped."""
        seq, events = self.acked, []
        for _ in range(chance.randint(1, 20)):
            if seq < self.head:
                seq += 1
                if seq in self.hidden:
                    while seq + 1 in self.hidden:
                        seq += 1
                    self.given.update(range(1, seq + 1))
                    events.append(event(skipped=messaging_pb2.Skipped(chat_id=self.chat_id, to_seq=seq)))
                else:
                    events.append(self.give(seq))
        return seq, events

    def give(self, seq: int) -> messaging_pb2.ServerEvent:
        self.given.add(seq)
        return event(entry=self.entries[seq])

    def acknowledge(self, seq: int) -> None:
        missing = [below for below in range(1, seq + 1) if below not in self.given]
        assert not missing, f"{seq} was acknowledged, and {missing} never given"
        self.acked = max(self.acked, seq)


class Server(messaging_pb2_grpc.MessagingServicer, chats_pb2_grpc.ChatsServicer):
    """Serves one device once, from logs of its own."""

    def __init__(self, chance: random.Random):
        self.chance = chance
        logs = [Log(chance) for _ in range(CHATS)]
        self.logs = {log.chat_id: log for log in logs}
        self.own_left = OWN_MESSAGES
        self.results = []
        self.heard = asyncio.Event()
        self.fault = None

    async def GetChat(self, request, context):
        log = self.logs[request.chat_id]
        return chats_pb2.GetChatResponse(chat=chats_pb2.Chat(chat_id=log.chat_id, resume_seq=log.resume_seq))

    async def Stream(self, frames, context):
        opened = messaging_pb2.Opened(session_id="gaps", heartbeat_interval_ms=60_000, window=256)
        yield messaging_pb2.ServerFrame(events=[event(opened=opened), event(caught_up=messaging_pb2.CaughtUp())])
        listening = asyncio.create_task(self.listen(frames))
        while not self.done():
            log = self.chance.choice(list(self.logs.values()))
            upto, events = log.window(self.chance)
            for _ in range(self.chance.randint(0, 6)):
                others = self.chance.choice(list(self.logs.values())).hint(self.chance)
                at = self.chance.randint(0, len(events))
                events[at:at] = others
            events, self.results = self.results + events, []
            while events:
                count = self.chance.randint(1, 8)
                yield messaging_pb2.ServerFrame(events=events[:count])
                events = events[count:]
            # The next window is sent when this one is acknowledged.
            await self.until(lambda: log.acked >= upto)
        # The device has everything or has done something wrong, and is told to leave.
        yield messaging_pb2.ServerFrame(events=[event(draining=messaging_pb2.Draining())])
        await listening

    def done(self) -> bool:
        everything = all(log.acked == log.head for log in self.logs.values())
        return self.fault is not None or (everything and not self.own_left and not self.results)

    async def until(self, holds) -> None:
        while not holds() and self.fault is None:
            self.heard.clear()
            await self.heard.wait()

    async def listen(self, frames) -> None:
        async for frame in frames:
            for item in frame.items:
                try:
                    self.hear(item)
                except AssertionError as fault:
                    self.fault = self.fault or fault
            self.heard.set()

    def hear(self, item: messaging_pb2.ClientItem) -> None:
        kind = item.WhichOneof("item")
        if kind == "ack":
            self.logs[item.ack.chat_id].acknowledge(item.ack.seq)
        elif kind == "send":
            entry = self.logs[item.send.chat_id].add(request_id=item.send.request_id, sender_device_id="mine")
            entry.content.message.body = item.send.body
            self.logs[entry.chat_id].given.add(entry.seq)
            sent = messaging_pb2.Sent(chat_id=entry.chat_id, seq=entry.seq)
            self.results.append(event(send_result=messaging_pb2.SendResult(request_id=entry.request_id, sent=sent)))
            self.own_left -= 1


async def survive(seed: int) -> None:
    """Runs one history. Raises an error that says what is wrong."""
    service, server = Server(random.Random(seed)), grpc.aio.server()
    messaging_pb2_grpc.add_MessagingServicer_to_server(service, server)
    chats_pb2_grpc.add_ChatsServicer_to_server(service, server)
    port = server.add_insecure_port("localhost:0")
    await server.start()
    linked = accounts_pb2.LinkDeviceResponse(device=accounts_pb2.Device(device_id="mine"))
    async with grpc.aio.insecure_channel(f"localhost:{port}") as channel:
        device = Device("device", channel, linked)
        with contextlib.redirect_stdout(None):
            await device.open()
        for number in range(OWN_MESSAGES):
            chat_id = service.chance.choice(list(service.logs))
            message = messaging_pb2.SendMessage(request_id=str(uuid.uuid4()), chat_id=chat_id, body=f"own {number}".encode())
            device.outbox[message.request_id] = message
            await device.say(send=message)
        await device.expect("draining")
        await device.close()
        async for _ in device.events:
            pass
    await server.stop(None)
    if service.fault:
        raise service.fault
    for log in service.logs.values():
        stored = [(entry.seq, entry.content.message.body) for entry in device.logs[log.chat_id]]
        due = [(seq, log.entries[seq].content.message.body) for seq in log.due()]
        assert stored == due, f"stored {[seq for seq, _ in stored]} of {log.due()}"
    assert not device.outbox, f"still unsent: {device.outbox}"


async def main(seeds) -> int:
    for seed in seeds:
        try:
            await asyncio.wait_for(survive(seed), BOUND_S)
        except (AssertionError, asyncio.TimeoutError) as fault:
            print(f"seed {seed}: {fault or 'the device stands still'}", file=sys.stderr)
            return 1
    print(f"The device kept {len(seeds)} histories with gaps whole.")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main([int(seed) for seed in sys.argv[1:]] or SEEDS)))
