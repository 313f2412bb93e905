/** A stream of events that the server never ends: kept open, and opened again when it breaks. */
import { batch, effect, type ReadonlySignal, signal } from '@preact/signals';
import { ChatError, type Failure, request } from './failure.ts';
import { serverEvents } from './server-events.ts';
import { apiKey } from './settings.ts';

export interface FollowedStream {
  /** What is wrong now; null again with the next event. */
  readonly failure: ReadonlySignal<Failure | null>;
  readonly askAgain: () => void;
  /** Begins to follow, for as long as the page lives. */
  readonly follow: () => void;
}

const ASK_AGAIN_MS = 3000;

/**
 * @param path what to ask for; the stream is opened anew when a signal that it reads changes
 * @param take does with an event what is to be done; false when it is none that it knows
 */
export function followedStream(path: () => string, take: (event: unknown) => boolean): FollowedStream {
  const failure = signal<Failure | null>(null);
  const attempt = signal(0);
  const askAgain = () => void attempt.value++;

  /** @throws ChatError always, in the end: the server's stream has none */
  async function read(address: string, key: string, stop: AbortSignal): Promise<never> {
    const response = await request(address, key, { signal: stop });
    try {
      for await (const data of serverEvents(response.body!)) {
        if (data === '[DONE]') continue;
        batch(() => {
          failure.value = null;
          if (take(JSON.parse(data))) return;
          throw new ChatError({ kind: 'broken', message: `${address} told of nothing known: ${data.slice(0, 80)}` });
        });
      }
    } catch (error) {
      // A reset connection is an error of the reader, not of fetch.
      if (stop.aborted || error instanceof ChatError) throw error;
    }
    throw new ChatError({ kind: 'unreachable' });
  }

  function follow(): void {
    effect(() => {
      attempt.value;
      const stop = new AbortController();
      let timer: ReturnType<typeof setTimeout> | undefined;
      read(path(), apiKey.value, stop.signal).catch((error: unknown) => {
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

  return { failure, askAgain, follow };
}
