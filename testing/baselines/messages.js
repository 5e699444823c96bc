// Messages between a node:cluster primary and its worker, as fast as they go. The arguments of the primary are how long
// a message is in bytes and how long each of its four measurements takes in milliseconds; it prints what it found as
// one line of JSON. As a worker it talks with any primary that says what this one does.
//
// Sends as the documentation has it: when `send` says that enough is waiting, until the next has been written.
'use strict';

const cluster = require('node:cluster');

const WARM_UP = 250;
const IN_FLIGHT = 16;

const flood = (target, make, time, done) => {
  const end = performance.now() + time;
  let n = 0;
  const more = () => {
    while (performance.now() < end) {
      n += 1;
      if (!target.send(make(n))) {
        n += 1;
        target.send(make(n), more);
        return;
      }
    }
    done(n);
  };
  more();
};

const filler = (bytes) => {
  const text = 'x'.repeat(bytes - JSON.stringify({ kind: 'data', n: 0, text: '' }).length);
  return (n) => ({ kind: 'data', n, text });
};

function work() {
  let count = 0;
  let begun = 0;
  process.on('message', (message) => {
    switch (message.kind) {
      case 'data': count += 1; break;
      case 'echo': process.send(message); break;
      case 'begin': count = 0; begun = performance.now(); break;
      case 'end':
        process.send({ kind: 'counted', n: count, text: String((performance.now() - begun) / 1e3) });
        break;
      case 'send': flood(process, filler(message.n), Number(message.text), (n) => process.send({ kind: 'end', n, text: '' })); break;
    }
  });
  process.send({ kind: 'here', n: 0, text: '' });
}

function lead(bytes, time) {
  const worker = cluster.fork();
  let heard = () => {};
  worker.on('message', (message) => heard(message));
  const until = (kind) => new Promise((done) => {
    heard = (message) => { if (message.kind === kind) done(message); };
  });
  const make = filler(bytes);

  const toWorker = async (span) => {
    worker.send({ kind: 'begin', n: 0, text: '' });
    flood(worker, make, span, () => worker.send({ kind: 'end', n: 0, text: '' }));
    const counted = await until('counted');
    return counted.n / Number(counted.text);
  };
  const toPrimary = (span) => new Promise((done) => {
    let count = 0;
    let begun = 0;
    heard = (message) => {
      if (message.kind !== 'data') return done(count / ((performance.now() - begun) / 1e3));
      if (count === 0) begun = performance.now();
      count += 1;
    };
    worker.send({ kind: 'send', n: bytes, text: String(span) });
  });
  const roundTrips = (span, inFlight) => new Promise((done) => {
    const sent = new Map();
    const took = [];
    const begun = performance.now();
    let n = 0;
    const send = () => {
      n += 1;
      sent.set(n, performance.now());
      worker.send({ ...make(n), kind: 'echo' });
    };
    heard = (message) => {
      const now = performance.now();
      took.push(now - sent.get(message.n));
      sent.delete(message.n);
      if (now - begun < span) return send();
      if (sent.size > 0) return;
      took.sort((a, b) => a - b);
      const part = (share) => took[Math.min(took.length - 1, Math.ceil(took.length * share) - 1)];
      done({ rate: took.length / ((now - begun) / 1e3), p50: part(0.5) * 1e3, p99: part(0.99) * 1e3 });
    };
    for (let i = 0; i < inFlight; i += 1) send();
  });

  (async () => {
    await until('here');
    await toWorker(WARM_UP);
    const to_worker = await toWorker(time);
    await toPrimary(WARM_UP);
    const to_primary = await toPrimary(time);
    await roundTrips(WARM_UP, 1);
    const single = await roundTrips(time, 1);
    await roundTrips(WARM_UP, IN_FLIGHT);
    const several = await roundTrips(time, IN_FLIGHT);
    console.log(JSON.stringify({ to_worker, to_primary, single, several }));
    worker.kill();
  })();
}

if (cluster.isPrimary) lead(Number(process.argv[2]), Number(process.argv[3]));
else work();
