// The server of tests/fixtures/node-http with what PM2's documentation asks for so that a reload loses nothing: it says
// when it listens, and at SIGINT it closes its server and goes when its connections have ended.
'use strict';

const http = require('node:http');

const server = http.createServer((request, response) => {
  response.setHeader('content-type', 'text/plain');
  response.end(`${process.pid}\n`);
});

server.listen(Number(process.env.PORT), process.env.HOST, () => process.send?.('ready'));
process.on('SIGINT', () => server.close(() => process.exit(0)));
