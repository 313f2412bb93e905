/** What the engine told of itself: the last two minutes, kept up to date over one stream of server-sent events. */
import { effect, signal } from '@preact/signals';
import * as z from 'zod/mini';
import { ChatError, type Failure, request } from '../chat/failure.ts';
import { serverEvents } from '../chat/server-events.ts';
import { apiKey } from '../chat/settings.ts';

const count = z.number();
const eventSchema = z.object({
  model: z.string(),
  seconds: count,
  running: count,
  waiting: count,
  blocks: z.object({ total: count, free: count, cached: count }),
  cache: z.object({ dtype: z.string(), bytesPerToken: count, blockTokens: count }),
  counts: z.object({
    steps: count,
    promptTokens: count,
    cachedPromptTokens: count,
    generatedTokens: count,
    preemptions: count,
    finished: z.object({ stop: count, length: count, cancelled: count }),
  }),
  drafts: z.object({ drafted: count, accepted: count }),
  expertLoads: z.record(z.string(), z.array(count)),
});
export type EngineEvent = z.infer<typeof eventSchema>;

/** Events that are kept: two a second. */
export const KEPT = 240;
const ASK_AGAIN_MS = 3000;

/** The latest last. */
export const events = signal<readonly EngineEvent[]>([]);
export const failure = signal<Failure | null>(null);

const attempt = signal(0);
export const askAgain = () => void attempt.value++;

/** Keeps the stream open, and opens it again when it breaks. */
export function followEngine(): void {
  effect(() => {
    attempt.value;
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    follow(apiKey.value, stop.signal).catch((error: unknown) => {
      if (stop.signal.aborted) return;
      if (!(error instanceof ChatError)) throw error;
      failure.value = error.failure;
      if (error.failure.kind !== 'unauthorized') timer = setTimeout(askAgain, ASK_AGAIN_MS);
    });
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  });
}

/** @throws ChatError always, in the end: the server's stream has none */
async function follow(key: string, stop: AbortSignal): Promise<never> {
  const response = await request('/v1/engine', key, { signal: stop });
  try {
    for await (const data of serverEvents(response.body!)) take(data);
  } catch (error) {
    // A reset connection is an error of the reader, not of fetch.
    if (stop.aborted || error instanceof ChatError) throw error;
  }
  throw new ChatError({ kind: 'unreachable' });
}

function take(data: string): void {
  if (data === '[DONE]') return;
  const event = eventSchema.safeParse(JSON.parse(data)).data;
  if (!event) throw new ChatError({ kind: 'broken', message: `Not an event of the engine: ${data.slice(0, 80)}` });
  failure.value = null;
  const before = events.peek();
  // A server that was started again counts from nothing.
  const same = (before.at(-1)?.counts.steps ?? 0) <= event.counts.steps;
  events.value = [...(same ? before : []), event].slice(-KEPT);
}
