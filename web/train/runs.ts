/** The runs of the server: which there are, which are shown, and what is known of those; kept up to date. */
import { batch, computed, effect, signal } from '@preact/signals';
import * as z from 'zod/mini';
import { ChatError, type Failure, request } from '../chat/failure.ts';
import { serverEvents } from '../chat/server-events.ts';
import { apiKey } from '../chat/settings.ts';
import { saved } from '../style/saved.ts';
import { NOTHING, newsSchema, type RunData, type RunSummary, withSamples, withSteps } from './run-data.ts';

/** Null until the server has told. */
export const runs = signal<readonly RunSummary[] | null>(null);
export const failure = signal<Failure | null>(null);

const chosen = saved('farthing.runs', z.array(z.string()), []);
const known = signal<ReadonlyMap<string, RunData>>(new Map());

export interface ShownRun extends RunSummary, RunData {
  /** Its place in the list, which gives it its colour. */
  readonly place: number;
}

/** Names of the runs that the reader chose; before any choice, of one that is running, or else of the last. */
const shownNames = computed(() => {
  const all = runs.value ?? [];
  const names = all.filter(({ name }) => chosen.value.includes(name)).map(({ name }) => name);
  const first = all.find(({ state }) => state === 'running') ?? all.at(-1);
  return names.length > 0 || !first ? names : [first.name];
});

export const shownRuns = computed<readonly ShownRun[]>(() =>
  (runs.value ?? []).flatMap((run, place) =>
    shownNames.value.includes(run.name) ? [{ ...run, place, ...(known.value.get(run.name) ?? NOTHING) }] : [],
  ),
);

/** Shows a run beside the others, or no longer; the last one stays. */
export function toggleRun(name: string): void {
  const names = shownNames.peek();
  const others = names.filter((each) => each !== name);
  chosen.value = others.length === names.length ? [...names, name] : others.length > 0 ? others : names;
}

const ASK_AGAIN_MS = 3000;
const attempt = signal(0);
export const askAgain = () => void attempt.value++;

/** Keeps one stream open for the runs shown, and opens it again when it breaks or the choice changes. */
export function followShownRuns(): void {
  const asked = computed(() => JSON.stringify(shownNames.value));
  effect(() => {
    attempt.value;
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    follow(JSON.parse(asked.value), apiKey.value, stop.signal).catch((error: unknown) => {
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
async function follow(names: readonly string[], key: string, stop: AbortSignal): Promise<never> {
  const query = new URLSearchParams();
  for (const name of names) query.append('run', `${name}:${known.peek().get(name)?.steps.at(-1)?.step ?? 0}`);
  const response = await request(`/v1/runs?${query}`, key, { signal: stop });
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
  const news = newsSchema.safeParse(JSON.parse(data)).data;
  if (!news) throw new ChatError({ kind: 'broken', message: `An event that tells of no run: ${data.slice(0, 80)}` });
  batch(() => {
    failure.value = null;
    if ('runs' in news) {
      runs.value = news.runs;
      return;
    }
    const before = known.peek().get(news.run) ?? NOTHING;
    const after = 'metrics' in news ? withSteps(before, news.metrics) : withSamples(before, news.samples);
    known.value = new Map(known.peek()).set(news.run, after);
  });
}
