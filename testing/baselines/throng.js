// throng as its documentation shows it, around an unmodified server: the first argument is the number of workers, the second
// the server's script. It is found by NODE_PATH.
'use strict';

const cluster = require('node:cluster');
const throng = require('throng');

const [count, script] = process.argv.slice(2);

cluster.on('listening', (worker) =>
  console.log(JSON.stringify({ event: 'ready', worker: { id: worker.id, pid: worker.process.pid } })),
);

throng({ count: Number(count), worker: () => require(script) });
