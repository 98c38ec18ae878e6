// Runs the device of docs/browser.md against a server that does all that Messaging.Stream allows: it sends entries
// early, late and twice, leaves some out for a while, skips entries that are not the device's, and sends Sent before
// entries with lower seqs. Exits with 1 if the device lost, doubled or disordered an entry, or acknowledged an entry
// that it was not given.
//
//     examples/browser/run [SEED …]

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { WebSocket, WebSocketServer } from "ws";
import { openDevice } from "./device.js";
import { ClientFrameSchema, ServerFrameSchema } from "./gen/tern/v1/messaging_pb.js";

globalThis.WebSocket = WebSocket;

const SEEDS = Array.from({ length: 100 }, (_, seed) => seed);
const CHATS = 3;
const OWN_MESSAGES = 12;
// The time limit of a history, which takes far less. A device that stands still has lost something.
const BOUND_MS = 120_000;

// Returns a generator (xorshift) of numbers from 0 to n - 1, which are always the same for a seed.
function chance(seed) {
  let state = (seed + 1) * 2654435761;
  return (n) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % n;
  };
}

// One chat, with the entries that the device has to get and those that it was given.
class Log {
  constructor(chatId, pick) {
    this.chatId = chatId;
    this.pick = pick;
    this.entries = [];
    for (let count = 1 + pick(60); count > 0; count -= 1) this.add({});
    // The seq at which the device's cursor begins. 0: the chat is new.
    this.resumeSeq = pick(3) < 2 ? 0 : pick(this.head + 1);
    // The seqs that the device does not get. It always gets the first entry of a new chat.
    this.hidden = new Set();
    for (let seq = 2; seq < this.head; seq += 1) if (pick(5) === 0) this.hidden.add(seq);
    this.given = new Set(Array.from({ length: this.resumeSeq }, (_, index) => index + 1));
    this.acked = this.resumeSeq;
  }

  get head() {
    return this.entries.length;
  }

  add(entry) {
    this.entries.push({ chatId: this.chatId, seq: BigInt(this.head + 1), ...entry });
    return this.entries.at(-1);
  }

  due() {
    const all = Array.from({ length: this.head - this.resumeSeq }, (_, index) => this.resumeSeq + 1 + index);
    return all.filter((seq) => !this.hidden.has(seq));
  }

  give(seq) {
    this.given.add(seq);
    return { event: { case: "entry", value: this.entries[seq - 1] } };
  }

  // Returns any entry, as a live push may bring it at any time.
  hint() {
    const due = this.due();
    return due.length ? [this.give(due[this.pick(due.length)])] : [];
  }

  // Returns the entries after the acknowledged ones, in order. Neighbouring hidden entries become one Skipped.
  window() {
    const events = [];
    let seq = this.acked;
    for (let count = 1 + this.pick(20); count > 0 && seq < this.head; count -= 1) {
      seq += 1;
      if (!this.hidden.has(seq)) {
        events.push(this.give(seq));
        continue;
      }
      while (this.hidden.has(seq + 1)) seq += 1;
      for (let below = 1; below <= seq; below += 1) this.given.add(below);
      events.push({ event: { case: "skipped", value: { chatId: this.chatId, toSeq: BigInt(seq) } } });
    }
    return { upto: seq, events };
  }

  acknowledge(seq) {
    for (let below = 1; below <= seq; below += 1) {
      if (!this.given.has(below)) throw new Error(`${seq} was acknowledged, and ${below} never given`);
    }
    this.acked = Math.max(this.acked, seq);
  }
}

// Serves one device, and ends when the device has acknowledged everything.
async function serve(socket, logs, pick) {
  const results = [];
  let ownLeft = OWN_MESSAGES;
  let fault;
  let heard = () => {};
  socket.on("message", (data) => {
    for (const { item } of fromBinary(ClientFrameSchema, data).items) {
      try {
        if (item.case === "ack") logs.get(item.value.chatId).acknowledge(Number(item.value.seq));
      } catch (error) {
        fault ??= error;
      }
      if (item.case !== "send") continue;
      const { requestId, to, body } = item.value;
      const { chatId, seq } = logs.get(to.value).add({ requestId, body });
      logs.get(chatId).given.add(Number(seq));
      results.push({ event: { case: "sendResult", value: { requestId, outcome: { case: "sent", value: { chatId, seq } } } } });
      ownLeft -= 1;
    }
    heard();
  });
  const until = async (holds) => {
    while (!holds() && !fault) await new Promise((resolve) => (heard = resolve));
  };
  const write = (events) => socket.send(toBinary(ServerFrameSchema, create(ServerFrameSchema, { events })));

  write([{ event: { case: "opened", value: { heartbeatIntervalMs: 60_000 } } }, { event: { case: "caughtUp", value: {} } }]);
  const all = [...logs.values()];
  while (!fault && (ownLeft > 0 || results.length > 0 || all.some((log) => log.acked < log.head))) {
    const log = all[pick(all.length)];
    const { upto, events } = log.window();
    for (let count = pick(7); count > 0; count -= 1) {
      events.splice(pick(events.length + 1), 0, ...all[pick(all.length)].hint());
    }
    events.unshift(...results.splice(0));
    while (events.length > 0) write(events.splice(0, 1 + pick(8)));
    // The next window is sent when this one is acknowledged.
    await until(() => log.acked >= upto);
  }
  write([{ event: { case: "draining", value: {} } }]);
  if (fault) throw fault;
}

async function survive(seed) {
  const pick = chance(seed);
  const logs = new Map(Array.from({ length: CHATS }, (_, chat) => [`chat ${chat}`, new Log(`chat ${chat}`, pick)]));
  const server = new WebSocketServer({ port: 0 });
  const served = new Promise((resolve, reject) => {
    server.on("connection", (socket) => serve(socket, logs, pick).then(resolve, reject));
  });
  const stored = new Map([...logs.keys()].map((chatId) => [chatId, { entries: [], cursor: undefined }]));
  const outbox = new Map(
    Array.from({ length: OWN_MESSAGES }, (_, number) => {
      const requestId = crypto.randomUUID();
      const to = { case: "chatId", value: [...logs.keys()][pick(CHATS)] };
      return [requestId, { requestId, to, body: new TextEncoder().encode(`own ${number}`) }];
    }),
  );
  const ended = new Promise((resolve) => {
    const device = openDevice(`ws://localhost:${server.address().port}`, "token", {
      cursor: (chatId) => stored.get(chatId).cursor,
      resumeSeq: async (chatId) => BigInt(logs.get(chatId).resumeSeq),
      store: async (chatId, entries, cursor) => {
        // This stands for the time that a database takes.
        await new Promise(setImmediate);
        stored.get(chatId).entries.push(...entries);
        stored.get(chatId).cursor = cursor;
      },
      outbox: () => [...outbox.values()],
      settled: (requestId) => outbox.delete(requestId),
      onEvent: (event) => event.case === "draining" && device.close(),
      onEnd: resolve,
    });
  });
  let bound;
  const late = new Promise((_, reject) => (bound = setTimeout(reject, BOUND_MS, new Error("the device stands still"))));
  await Promise.race([Promise.all([served, ended]), late]);
  clearTimeout(bound);
  server.close();
  for (const [chatId, log] of logs) {
    const seqs = stored.get(chatId).entries.map((entry) => Number(entry.seq));
    if (`${seqs}` !== `${log.due()}`) throw new Error(`stored ${seqs} of ${log.due()}`);
  }
  if (outbox.size > 0) throw new Error("a message has no result");
}

const seeds = process.argv.length > 2 ? process.argv.slice(2).map(Number) : SEEDS;
for (const seed of seeds) {
  try {
    await survive(seed);
  } catch (error) {
    console.error(`seed ${seed}: ${error.message}`);
    process.exit(1);
  }
}
console.log(`The device of docs/browser.md kept ${seeds.length} histories with gaps whole.`);
process.exit(0);
