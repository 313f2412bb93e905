/** What the engine told of itself: the last two minutes, kept up to date over one stream of server-sent events. */
import { signal } from '@preact/signals';
import * as z from 'zod/mini';
import { followedStream } from '../chat/followed-stream.ts';

const count = z.number();
const eventSchema = z.object({
  model: z.string(),
  seconds: count,
  running: count,
  waiting: count,
  blocks: z.object({ total: count, free: count, cached: count }),
  cache: z.object({ dtype: z.string(), bytesPerToken: count, blockTokens: count }),
  /** Bytes of the disk cache, and blocks by what became of them; null where there is none. */
  disk: z.nullable(z.object({ bytes: count, read: count, written: count, damaged: count })),
  counts: z.object({
    steps: count,
    promptTokens: count,
    cachedPromptTokens: count,
    /** Of them, those that were read from disk. */
    fetchedPromptTokens: count,
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

/** The latest last. */
export const events = signal<readonly EngineEvent[]>([]);

export const stream = followedStream(
  () => '/v1/engine',
  (data) => {
    const event = eventSchema.safeParse(data).data;
    if (!event) return false;
    const before = events.peek();
    // A server that was started again counts from nothing.
    const same = (before.at(-1)?.counts.steps ?? 0) <= event.counts.steps;
    events.value = [...(same ? before : []), event].slice(-KEPT);
    return true;
  },
);
