// Has a server say when it listens, whoever runs it: it writes its pid, a line, into the pipe that this is called with.
'use strict';

const fs = require('node:fs');
const net = require('node:net');

module.exports = (pipe) => {
  const { listen } = net.Server.prototype;
  net.Server.prototype.listen = function (...args) {
    this.once('listening', () => fs.appendFileSync(pipe, `${process.pid}\n`));
    return listen.apply(this, args);
  };
};
