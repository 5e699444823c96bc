// node:cluster as its documentation shows it, around an unmodified server: the first argument is the number of
// workers, the second the server's script. NODE_CLUSTER_SCHED_POLICY=rr|none is node's own variable.
'use strict';

const cluster = require('node:cluster');

const [workers, exec, ...args] = process.argv.slice(2);
const tell = (event, worker) =>
  console.log(JSON.stringify({ event, worker: { id: worker.id, pid: worker.process.pid } }));

cluster.setupPrimary({ exec, args });
cluster.on('listening', (worker) => tell('ready', worker));
cluster.on('exit', (worker) => {
  tell('exited', worker);
  if (Object.keys(cluster.workers).length === 0) process.exit(0);
});
process.on('SIGTERM', () => {
  for (const worker of Object.values(cluster.workers)) worker.process.kill('SIGTERM');
});

for (let n = 0; n < Number(workers); n += 1) cluster.fork();
