// A server that writes lines: once `begin` stands beside it, so many in so many seconds, each by a call of its own. Then it
// leaves `done-PID`, with the time that this took it and the CPU time that it used.
'use strict';

const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');

const LENGTH = 100;
const begin = path.join(__dirname, 'begin');

const server = http.createServer((request, response) => response.end());
// In PM2's fork mode only the first gets the port. The others are there to write.
server.on('error', () => setInterval(() => {}, 1000));
server.listen(Number(process.env.PORT), process.env.HOST);

const look = setInterval(() => {
  if (!fs.existsSync(begin)) return;
  clearInterval(look);
  write(JSON.parse(fs.readFileSync(begin, 'utf8')));
}, 20);

function write({ lines, seconds }) {
  const began = performance.now();
  const before = process.cpuUsage();
  let written = 0;
  const elapsed = () => (performance.now() - began) / 1000;
  const tick = () => {
    const due = Math.min(lines, Math.floor((lines * elapsed()) / seconds));
    for (; written < due; written++) {
      console.log(`line ${process.pid} ${written} `.padEnd(LENGTH - 1, 'x'));
    }
    if (written < lines) return setTimeout(tick, 1);
    const { user, system } = process.cpuUsage(before);
    const draft = path.join(__dirname, `draft-${process.pid}`);
    fs.writeFileSync(draft, JSON.stringify({ seconds: elapsed(), cpu: (user + system) / 1e6 }));
    fs.renameSync(draft, path.join(__dirname, `done-${process.pid}`));
  };
  tick();
}
