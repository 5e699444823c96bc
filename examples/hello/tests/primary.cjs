// A primary of node's, which forks two workers of the program that it is given, and ends when both have left.
const cluster = require('node:cluster');

const [program] = process.argv.slice(2);
process.execPath = program;
cluster.setupPrimary({ exec: program, args: [] });
cluster.on('listening', (worker, { address, port }) => console.log(`listening ${address}:${port}`));
let left = 0;
cluster.on('exit', (worker, code, signal) => {
  console.log(`left ${signal ?? code} ${worker.exitedAfterDisconnect}`);
  left += 1;
  if (left === 2) process.exit(0);
});
process.once('SIGTERM', () => cluster.disconnect());
cluster.fork();
cluster.fork();
