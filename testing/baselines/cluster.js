// node:cluster as its documentation shows it, around an unmodified server: the first argument is the number of
// workers, the second the server's script. NODE_CLUSTER_SCHED_POLICY=rr|none is node's own variable. A worker that had
// listened and ends gets a successor; one that never did would only be started again and again.
'use strict';

const cluster = require('node:cluster');

const [workers, exec, ...args] = process.argv.slice(2);
const tell = (event, worker) =>
  console.log(JSON.stringify({ event, worker: { id: worker.id, pid: worker.process.pid } }));

const listening = new Set();
let isStopping = false;

cluster.setupPrimary({ exec, args });
cluster.on('listening', (worker) => {
  listening.add(worker.id);
  tell('ready', worker);
});
cluster.on('exit', (worker) => {
  tell('exited', worker);
  if (listening.delete(worker.id) && !isStopping) cluster.fork();
  else if (Object.keys(cluster.workers).length === 0) process.exit(0);
});
process.on('SIGTERM', () => {
  isStopping = true;
  for (const worker of Object.values(cluster.workers)) worker.process.kill('SIGTERM');
});

for (let n = 0; n < Number(workers); n += 1) cluster.fork();
