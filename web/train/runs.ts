/** The runs of the server: which there are, which are shown, and what is known of those; kept up to date. */
import { computed, signal } from '@preact/signals';
import * as z from 'zod/mini';
import { followedStream } from '../chat/followed-stream.ts';
import { saved } from '../style/saved.ts';
import { NOTHING, newsSchema, type RunData, type RunSummary, withSamples, withSteps } from './run-data.ts';

/** Null until the server has told. */
export const runs = signal<readonly RunSummary[] | null>(null);

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

const asked = computed(() => JSON.stringify(shownNames.value));

/** Of the runs shown, from the steps that are known on. */
export const stream = followedStream(
  () => {
    const query = new URLSearchParams();
    for (const name of JSON.parse(asked.value) as string[])
      query.append('run', `${name}:${known.peek().get(name)?.steps.at(-1)?.step ?? 0}`);
    return `/v1/runs?${query}`;
  },
  (data) => {
    const news = newsSchema.safeParse(data).data;
    if (!news) return false;
    if ('runs' in news) {
      runs.value = news.runs;
      return true;
    }
    const before = known.peek().get(news.run) ?? NOTHING;
    const after = 'metrics' in news ? withSteps(before, news.metrics) : withSamples(before, news.samples);
    known.value = new Map(known.peek()).set(news.run, after);
    return true;
  },
);
