"""How far each chat is stored on a device: rules 4 and 5 at Messaging.Stream.

A server may send an entry again, too early, or not at all until later. Whoever acknowledges the newest entry that came loses
those before it. What is acknowledged is the cursor: everything up to there is stored.
"""

# Entries of one chat that wait for earlier ones. Those beyond are dropped, and come again.
HELD = 256


class Cursor:
    """The cursor of one chat. What its methods return is to be stored now, in this order, and shown."""

    def __init__(self, seq: int):
        self.seq = seq
        self.held = {}

    def entry(self, entry) -> list:
        """An Entry came, or the Sent of an own message, which is an entry too."""
        if entry.seq > self.seq:
            self.held[entry.seq] = entry
            if len(self.held) > HELD:
                del self.held[max(self.held)]
        return self.advance()

    def skipped(self, to_seq: int) -> list:
        """The device gets nothing more up to to_seq."""
        self.seq = max(self.seq, to_seq)
        self.held = {seq: entry for seq, entry in self.held.items() if seq > self.seq}
        return self.advance()

    def advance(self) -> list:
        ready = []
        while self.seq + 1 in self.held:
            self.seq += 1
            ready.append(self.held.pop(self.seq))
        return ready
