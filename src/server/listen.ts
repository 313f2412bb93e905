/** A listening server that can be closed without cutting off the answers under way. */
import { type Server, type ServerResponse, STATUS_CODES } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { createAdaptorServer } from '@hono/node-server';
import type { Hono } from 'hono';
import { ApiError, errorBody } from './api-error.ts';

export interface Listening {
  /** With the real port. */
  readonly url: string;
  /** Takes no new connections, waits up to `graceMs` for answers under way, then cuts the rest off. */
  close(graceMs: number): Promise<void>;
}

/**
 * @param port 0 takes any free one
 * @throws Error when the address is taken or not this machine's
 */
export async function listen(app: Hono, host: string, port: number): Promise<Listening> {
  const server = createAdaptorServer({ fetch: app.fetch }) as Server;
  server.keepAliveTimeout = KEEP_ALIVE_MS;
  turnAwayWhatIsNotHttp(server);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const taken = error.code === 'EADDRINUSE';
      reject(taken ? new Error(`port ${port} of ${host} is taken by another program: choose another`) : error);
    });
    server.listen(port, host, resolve);
  });
  const address = server.address() as AddressInfo;
  const name = address.family === 'IPv6' ? `[${address.address}]` : address.address;
  return {
    url: `http://${name}:${address.port}`,
    async close(graceMs) {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      const cutOff = setTimeout(() => server.closeAllConnections(), graceMs);
      await closed;
      clearTimeout(cutOff);
    },
  };
}

/**
 * How long an idle connection is kept. Node's own 5 s are so short that a busy client sends a request just as it is closed
 * and finds it reset; clients and proxies let go of theirs after a minute at most.
 */
const KEEP_ALIVE_MS = 75_000;

/** How long a client that was turned away may take to read why. */
const LINGER_MS = 2000;

/**
 * Tells the client what was wrong and goes on reading, so that it can be read: closing a connection on which bytes are
 * unread resets it, and a reset takes back what was sent before.
 */
function turnAwayWhatIsNotHttp(server: Server): void {
  const answers = new WeakMap<Duplex, ServerResponse>();
  server.on('request', ({ socket }, response) => answers.set(socket, response));
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    const answer = answers.get(socket);
    if (answer?.headersSent && !answer.writableFinished) socket.destroy();
    // Comes again with every piece of what is not HTTP.
    if (!socket.writable) return;
    socket.end(refusal(error));
    const limit = setTimeout(() => socket.destroy(), LINGER_MS);
    socket.once('close', () => clearTimeout(limit));
  });
}

function refusal({ code }: NodeJS.ErrnoException): string {
  const [status, message] =
    code === 'HPE_HEADER_OVERFLOW'
      ? ([431, 'the headers of the request are too long'] as const)
      : code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? ([408, 'the request did not arrive in time'] as const)
        : ([400, 'what was sent is not HTTP'] as const);
  const body = JSON.stringify(errorBody(new ApiError(status, message)));
  return (
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nConnection: close\r\nContent-Type: application/json\r\n` +
    `Content-Length: ${body.length}\r\n\r\n${body}`
  );
}
