// A server that does as little as one can in node: it answers whatever request with its pid, and does not read it. What it
// leaves of a core is the manager's.
'use strict';

const net = require('node:net');

const body = `${process.pid}\n`;
const answer = `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`;

const server = net.createServer((socket) => {
  socket.setNoDelay();
  socket.on('error', () => socket.destroy());
  socket.on('data', (request) => {
    if (request.includes('Connection: close')) socket.end(answer);
    else socket.write(answer);
  });
});

server.listen(Number(process.env.PORT ?? 8000), process.env.HOST ?? '127.0.0.1');
