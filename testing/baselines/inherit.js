// Loaded before an unmodified server (node -r): whatever it listens on, it gets the socket that is its stdin, as under
// inetd. That is how a server takes part in a SO_REUSEPORT group, or shares a listener, with nobody supervising.
'use strict';

const net = require('node:net');

const { listen } = net.Server.prototype;
net.Server.prototype.listen = function (...args) {
  const callback = args.at(-1);
  this.once('listening', () => {
    console.log(JSON.stringify({ event: 'ready', worker: { pid: process.pid } }));
  });
  return listen.call(this, { fd: 0 }, typeof callback === 'function' ? callback : undefined);
};
