// An ordinary server: it knows nothing of allcores.
const { createServer } = require('node:http');

createServer((_, response) => response.end(`${process.pid}\n`)).listen(process.env.PORT ?? 8080, process.env.HOST);
