/**
 * Serves the built pages, and speaks the streaming protocol with canned words: for tests of the page's layout and of
 * its behaviour when things go wrong. The model itself is tested where the real server is.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createAdaptorServer } from '@hono/node-server';
import { type Context, Hono } from 'hono';
import { createBuilder } from 'vite';
import { pages } from '../../src/server/pages.ts';

/** How the next requests are answered. */
type Manner =
  /** After `pauseAfter` events the stream waits until `resume` is called. */
  | { readonly kind: 'answer'; readonly reasoning?: string; readonly content: string; readonly pauseAfter?: number }
  | { readonly kind: 'error'; readonly status: 400 | 429 | 500; readonly message: string; readonly retryAfter?: number }
  /** After these words the stream waits until `resume` is called, and then the connection ends. */
  | { readonly kind: 'break'; readonly content: string };

export interface StandInServer {
  readonly url: string;
  manner: Manner;
  apiKey: string | null;
  models: string[];
  /** Bodies of the requests for answers, in order. */
  readonly asked: ChatBody[];
  /** Whether the last stream was given up by its reader. */
  abandoned: boolean;
  resume(): void;
  close(): Promise<void>;
}

interface ChatBody {
  messages: { role: string; content: string }[];
  [field: string]: unknown;
}

/** Builds one bundle of pages into a folder of its own, as `npm run build` does all of them into dist/. */
export async function buildPages(
  bundle: 'client' | 'cost' = 'client',
): Promise<{ folder: string; remove: () => Promise<void> }> {
  const folder = await mkdtemp(path.join(tmpdir(), 'farthing-pages-'));
  const builder = await createBuilder({ logLevel: 'error', build: { outDir: folder } });
  await builder.build(builder.environments[bundle]!);
  return { folder, remove: () => rm(folder, { recursive: true }) };
}

/** @param port one that was free before; 0 for any */
export async function startStandIn(pagesFolder: string, port = 0): Promise<StandInServer> {
  let resume = () => {};
  const app = new Hono();
  const server = createAdaptorServer({ fetch: app.fetch });

  app.use('/v1/*', async (c, next) => {
    if (standIn.apiKey !== null && c.req.header('Authorization') !== `Bearer ${standIn.apiKey}`) {
      return c.json({ error: { message: 'the API key is wrong', type: 'authentication_error' } }, 401);
    }
    return next();
  });
  app.get('/v1/models', (c) => c.json({ object: 'list', data: standIn.models.map((id) => ({ id, object: 'model' })) }));
  app.post('/v1/chat/completions', async (c) => {
    const body = await c.req.json<ChatBody>();
    standIn.asked.push(body);
    const { manner } = standIn;
    if (manner.kind !== 'error') return stream(c, manner);
    if (manner.retryAfter !== undefined) c.header('Retry-After', String(manner.retryAfter));
    return c.json({ error: { message: manner.message, type: 'invalid_request_error' } }, manner.status);
  });
  app.get('*', pages(pagesFolder));

  function stream(c: Context, manner: Exclude<Manner, { kind: 'error' }>): Response {
    standIn.abandoned = false;
    const events = answerEvents(manner);
    const pauseAfter = manner.kind === 'answer' ? manner.pauseAfter : events.length;
    const encoder = new TextEncoder();
    // a resume that comes before the pause counts too
    const resumed = new Promise<void>((resolve) => {
      resume = resolve;
    });
    let sent = 0;
    c.req.raw.signal.addEventListener('abort', () => {
      standIn.abandoned = true;
    });
    const body = new ReadableStream<Uint8Array>({
      async pull(controller) {
        if (sent === pauseAfter) await resumed;
        const event = events[sent++];
        // A beat between the words, so that they come in several pieces.
        await new Promise((resolve) => setTimeout(resolve, 2));
        if (event !== undefined) controller.enqueue(encoder.encode(`data: ${event}\n\n`));
        else if (manner.kind === 'break') controller.error(new Error('broken off'));
        else controller.close();
      },
    });
    return new Response(body, { headers: { 'Content-Type': 'text/event-stream' } });
  }

  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  const standIn: StandInServer = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    manner: { kind: 'answer', content: 'Nothing yet.' },
    apiKey: null,
    models: ['farthing-tales'],
    asked: [],
    abandoned: false,
    resume: () => resume(),
    close: async () => {
      resume();
      const closed = new Promise((resolve) => server.close(resolve));
      if ('closeAllConnections' in server) server.closeAllConnections();
      await closed;
    },
  };
  return standIn;
}

/** One event a word, as a server sends one a token. */
function answerEvents(manner: Exclude<Manner, { kind: 'error' }>): string[] {
  const words = (text: string) => text.match(/\s*\S+\s*?/g) ?? [];
  const chunk = (delta: object, finish: string | null = null) =>
    JSON.stringify({ object: 'chat.completion.chunk', choices: [{ index: 0, delta, finish_reason: finish }] });
  const content = words(manner.content);
  if (manner.kind === 'break') return content.map((word) => chunk({ content: word }));
  const reasoning = words(manner.reasoning ?? '');
  const usage = { prompt_tokens: 31, completion_tokens: content.length + reasoning.length, total_tokens: 0 };
  return [
    chunk({ role: 'assistant', content: '' }),
    ...reasoning.map((word) => chunk({ reasoning_content: word })),
    ...content.map((word) => chunk({ content: word })),
    chunk({}, 'stop'),
    JSON.stringify({ choices: [], usage: { ...usage, prompt_tokens_details: { cached_tokens: 12 } } }),
    '[DONE]',
  ];
}
