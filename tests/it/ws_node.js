// The npm package `ws` as a client: what it makes of our handshake and frames, and we of its. `ws_node.rs` runs it.
//
// Says where it stands on its output and waits for a line of input, while the test changes rows.
'use strict';
const assert = require('node:assert/strict');
const { once } = require('node:events');
const lines = require('node:readline').createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const WebSocket = require('ws');

const url = process.argv[2];

async function cue(word) {
  console.log(word);
  await lines.next();
}

// A connection after `ready`, and a way to wait for its next message.
async function connect() {
  const socket = new WebSocket(url, ['other.v1', 'rowcast.v1']);
  const told = [];
  let wake = () => {};
  socket.on('message', (data, isBinary) => {
    assert.equal(isBinary, false);
    told.push(JSON.parse(data.toString()));
    wake();
  });
  socket.on('close', (code, reason) => {
    told.push({ type: 'closed', code, reason: reason.toString() });
    wake();
  });
  const next = async () => {
    while (told.length === 0) await new Promise((resolve) => (wake = resolve));
    return told.shift();
  };
  const until = async (type) => {
    for (;;) {
      const message = await next();
      if (message.type === type) return message;
      assert.notEqual(message.type, 'closed', JSON.stringify(message));
    }
  };
  const send = (message) => socket.send(JSON.stringify(message));
  await once(socket, 'open');
  // it offers compression, and must understand that it gets none
  assert.equal(socket.protocol, 'rowcast.v1');
  assert.equal(socket.extensions, '');
  send({ type: 'init' });
  const ready = await next();
  assert.equal(ready.type, 'ready');
  return { socket, send, next, until };
}

async function main() {
  const first = await connect();
  let pings = 0;
  first.socket.on('ping', () => (pings += 1));
  first.send({ type: 'subscribe', sub: 'a', table: 'items' });
  assert.deepEqual(await first.next(), { type: 'subscribed', sub: 'a' });
  const rows = new Map();
  for (let more = true; more; ) {
    const part = await first.until('snapshot');
    part.rows.forEach(({ key, version, row }) => rows.set(key, { version, row }));
    more = part.more;
  }
  assert.equal(rows.size, 200);
  assert.equal(rows.get('7').row.pad, 'é'.repeat(2000));

  await cue('change');
  const changes = await first.until('changes');
  assert.deepEqual(changes.changes.map(({ op, key, row }) => [op, key, row.n]), [['update', '1', 1]]);

  const set = { op: 'update', table: 'items', key: '2', version: rows.get('2').version, set: { n: 2 } };
  first.send({ type: 'write', id: 'w1', ops: [set] });
  first.send({ type: 'write', id: 'w2', ops: [set] });
  const answers = new Map();
  let mine;
  while (answers.size < 2 || !mine) {
    const message = await first.next();
    if (message.id) answers.set(message.type, message);
    if (message.type === 'changes') mine = message;
  }
  // the same version twice: one of the two came too late
  const version = answers.get('ack').rows[0].version;
  assert.equal(answers.get('conflict').current.version, version);
  assert.deepEqual(mine.changes.map((change) => [change.key, change.version, change.row.n]), [['2', version, 2]]);

  const pong = once(first.socket, 'pong');
  first.socket.ping('are you there');
  assert.equal((await pong)[0].toString(), 'are you there');
  first.socket.send('{"type":', { fin: false });
  first.socket.ping();
  first.socket.send('"ping"}', { fin: true });
  await first.until('pong');
  while (pings < 3) await once(first.socket, 'ping');

  // back from where it was, and only what it missed
  first.socket.terminate();
  await cue('gone');
  const second = await connect();
  second.send({ type: 'subscribe', sub: 'a', table: 'items', since: mine.position });
  assert.deepEqual(await second.next(), { type: 'subscribed', sub: 'a' });
  let missed;
  do missed = await second.next();
  while (missed.type === 'cursor');
  assert.deepEqual([missed.type, missed.changes.map(({ key, row }) => [key, row.n])], ['changes', [['3', 3]]]);
  await cue('back');
  assert.deepEqual((await second.until('changes')).changes.map(({ op, key }) => [op, key]), [['delete', '3']]);
  second.socket.close(1000, 'enough');
  assert.deepEqual(await second.until('closed'), { type: 'closed', code: 1000, reason: '' });
  console.log('done');
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
