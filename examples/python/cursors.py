"""The cursors of a device, which say how far each chat is stored: rules 4 and 5 at Messaging.Stream.

A server may send an entry again, too early, or much later. A device that acknowledged the newest entry that came would
lose the missing ones before it. So it acknowledges its cursor: the seq up to which everything is stored.
"""

# The most entries of one chat that wait for earlier ones. Further ones are dropped, and come again.
HELD = 256


class Cursor:
    """The cursor of one chat. Its methods return the entries that the device stores and shows now, in this order."""

    def __init__(self, seq: int):
        self.seq = seq
        self.held = {}

    def entry(self, entry) -> list:
        """Takes an Entry, or the Sent of an own message, which stands for an entry."""
        if entry.seq > self.seq:
            self.held[entry.seq] = entry
            if len(self.held) > HELD:
                del self.held[max(self.held)]
        return self.advance()

    def skipped(self, to_seq: int) -> list:
        """Takes a Skipped: the device gets no more entries up to to_seq."""
        self.seq = max(self.seq, to_seq)
        self.held = {seq: entry for seq, entry in self.held.items() if seq > self.seq}
        return self.advance()

    def advance(self) -> list:
        ready = []
        while self.seq + 1 in self.held:
            self.seq += 1
            ready.append(self.held.pop(self.seq))
        return ready
