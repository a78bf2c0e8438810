// What many people run today, as well as it can be written: one LISTEN session on the payloads of a row trigger, and every
// payload to every socket with `ws`. Payloads are gathered, framed once, and sent with one write a socket.
//
// Invariants: the first payload after a quiet moment leaves at once, and passes over the sockets begin at least 5 ms apart;
// nothing is sent before the session listens; whoever reads too slowly is cut off and not kept in memory for ever.
//
// DATABASE_URL says where, CONTROL_PROCESSES how many processes share the sockets. One line tells the port and the processes.
import cluster from 'node:cluster';
import { performance } from 'node:perf_hooks';
import pg from 'pg';
import { Sender, WebSocketServer } from 'ws';

const APART_MS = 5;

// bytes that wait for one socket: as many as anybody would allow who wants to live
const BEHIND = 16 * 1024 * 1024;

const PING_MS = 25_000;

const FRAME = { fin: true, opcode: 1, mask: false, readOnly: false, rsv1: false };

const PROCESSES = Number(process.env.CONTROL_PROCESSES ?? 1);

async function serve() {
  const sockets = new Map();
  let waiting = [];
  let due = false;
  let last = -APART_MS;

  function pass() {
    due = false;
    last = performance.now();
    const frames = Buffer.concat(waiting.flatMap(payload => Sender.frame(Buffer.from(payload), FRAME)));
    waiting = [];
    for (const socket of sockets.values()) {
      socket.write(frames);
      if (socket.writableLength > BEHIND) socket.destroy();
    }
  }

  function hear({ payload }) {
    waiting.push(payload);
    if (due) return;
    due = true;
    const left = last + APART_MS - performance.now();
    // after everything that the session has read by now
    if (left <= 0) setImmediate(pass);
    else setTimeout(pass, left);
  }

  const sql = new pg.Client({ connectionString: process.env.DATABASE_URL });
  sql.on('notification', hear);
  await sql.connect();
  await sql.query('listen classic');

  const server = new WebSocketServer({
    host: '127.0.0.1', port: 0, backlog: 4096, perMessageDeflate: false, skipUTF8Validation: true, clientTracking: false,
  });
  server.on('connection', (client, { socket }) => {
    sockets.set(client, socket);
    client.on('error', () => {});
    client.on('close', () => sockets.delete(client));
  });
  setInterval(() => { for (const client of sockets.keys()) client.ping(); }, PING_MS);
  return new Promise(resolve => server.on('listening', () => resolve(server.address().port)));
}

function tell(port, pids) {
  process.stdout.write(`${JSON.stringify({ port, pids })}\n`);
  // whoever started it keeps its input open
  process.stdin.resume().on('end', () => process.exit());
}

if (PROCESSES === 1) {
  tell(await serve(), [process.pid]);
} else if (cluster.isPrimary) {
  const workers = Array.from({ length: PROCESSES }, () => cluster.fork());
  let listening = 0;
  cluster.on('listening', (_, { port }) => {
    listening += 1;
    if (listening === PROCESSES) tell(port, [process.pid, ...workers.map(worker => worker.process.pid)]);
  });
  cluster.on('exit', () => process.exit(1));
} else {
  await serve();
}
