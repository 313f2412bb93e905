/** An error as a response that reaches a client which is still sending. */
import type { Context } from 'hono';
import { type ApiError, errorBody } from './api-error.ts';

/** How long what a refused client goes on sending is read. */
const LINGER_MS = 2000;

/**
 * The whole refusal at once; the response ends when the client's own body has, or after `LINGER_MS`. Closing a connection
 * on which bytes are unread resets it, and a reset takes back what was sent before.
 */
export function refusal(c: Context, error: ApiError): Response {
  const text = new TextEncoder().encode(JSON.stringify(errorBody(error)));
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(text),
    async pull(controller) {
      await discardRest(c.req.raw.body);
      controller.close();
    },
  });
  const headers = { ...error.headers, 'Content-Type': 'application/json', 'Content-Length': String(text.length) };
  return c.body(body, error.status, headers);
}

async function discardRest(body: ReadableStream<Uint8Array> | null): Promise<void> {
  const reader = body?.getReader();
  const limit = setTimeout(() => reader?.cancel(), LINGER_MS);
  try {
    while (reader && !(await reader.read()).done);
  } catch {
    // The client is gone: nobody is left to be told.
  }
  clearTimeout(limit);
}
