/** What the engine is doing, twice a second, for the page at /engine: `GET /v1/engine` as server-sent events. */
import { setTimeout as pause } from 'node:timers/promises';
import type { Engine } from '../engine/engine.ts';

const EVERY_MS = 500;

export async function* engineEvents(engine: Engine, model: string, gone: AbortSignal): AsyncGenerator<object> {
  while (!gone.aborted) {
    const { running, waiting, blocks, cache, disk, counts, expertLoads } = engine.status();
    const { drafts, ...counted } = counts;
    yield {
      model,
      seconds: performance.now() / 1000,
      running,
      waiting,
      blocks,
      cache,
      disk: disk && { bytes: disk.bytes, ...disk.counts },
      counts: counted,
      drafts: { drafted: drafts.drafted, accepted: drafts.accepted },
      expertLoads,
    };
    await pause(EVERY_MS, undefined, { signal: gone, ref: false }).catch(() => {});
  }
}
