/**
 * The runs in a folder as they stand and as they go on, read from their files alone: so a run can be watched from
 * another process, and runs that have ended are the same to look at.
 */
import { type FileHandle, open, readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { z } from 'zod';
import type { RunPlan } from './configured-run.ts';
import type { StepMetrics } from './metrics-file.ts';
import type { SampledText } from './sample-texts.ts';

interface RunSummary {
  /** Path below the watched folder; `.` where that is a run itself. */
  readonly name: string;
  readonly state: 'running' | 'finished' | 'stopped';
  /** Null for a run whose folder does not say. */
  readonly plan: RunPlan | null;
  readonly lastStep: number;
}

type SampledStep = SampledText & { readonly step: number };

/**
 * Something new of the runs. Steps come in order; where the first of them is not after the last that came before,
 * the run has gone back to a checkpoint, and the new ones count.
 */
export type RunNews =
  | { readonly runs: readonly RunSummary[] }
  | { readonly run: string; readonly metrics: readonly StepMetrics[] }
  | { readonly run: string; readonly samples: readonly SampledStep[] };

const POLL_MS = 500;
/** Steps that travel together. */
const CHUNK = 500;
/** Expert loads are as wide as the model has experts; of the steps that are there already, no more than this bring theirs. */
const MOST_LOADS = 300;
/** A run writes at every step; one that has been silent for this long has stopped. */
const SILENCE_MS = 60_000;

const stepSchema = z.looseObject({
  step: z.int().min(0),
  loss: z.number(),
  mtpLoss: z.number().nullable(),
  learningRate: z.number(),
  gradientNorm: z.number(),
  imbalance: z.number().nullable(),
  expertLoads: z.exactOptional(z.record(z.string(), z.array(z.number()))),
  tokens: z.number(),
  seconds: z.number(),
});
const sampleSchema = z.object({ step: z.int().min(0), prompt: z.string(), text: z.string() });
const planSchema = z.object({
  steps: z.int(),
  parameters: z.int(),
  trainingTokens: z.int(),
  tokensPerStep: z.int(),
  validationBatches: z.int(),
});

/**
 * What there is of the runs asked for, and then what is added, until `signal` is aborted. Names that are no runs bring
 * nothing until they are.
 * @param after for each run asked for, the last step that is known already; 0 for none
 */
export async function* followRuns(
  folder: string,
  after: ReadonlyMap<string, number>,
  signal: AbortSignal,
): AsyncGenerator<RunNews> {
  const followed = new Map<string, { metrics: LineReader; samples: LineReader; known: number }>();
  let told = '';
  while (!signal.aborted) {
    const runs = await listRuns(folder);
    if (JSON.stringify(runs) !== told) yield { runs };
    told = JSON.stringify(runs);
    for (const { name } of runs) {
      const asked = after.get(name);
      if (asked === undefined) continue;
      const files = followed.get(name) ?? {
        metrics: lineReader(path.join(folder, name, 'metrics.jsonl')),
        samples: lineReader(path.join(folder, name, 'samples.jsonl')),
        known: asked,
      };
      followed.set(name, files);
      const steps = latestOf(recordsOf<StepMetrics>(await files.metrics(), stepSchema));
      const last = steps.at(-1)?.step ?? 0;
      const fresh = last > files.known ? steps.filter(({ step }) => step > files.known) : steps;
      files.known = 0;
      const stride = Math.ceil(fresh.length / MOST_LOADS);
      const sparse = fresh.map(({ expertLoads, ...rest }, i) =>
        expertLoads && i % stride === 0 ? { ...rest, expertLoads } : rest,
      );
      for (let i = 0; i < sparse.length; i += CHUNK) yield { run: name, metrics: sparse.slice(i, i + CHUNK) };
      const samples = recordsOf(await files.samples(), sampleSchema);
      if (samples.length > 0) yield { run: name, samples };
    }
    await setTimeout(POLL_MS, undefined, { signal }).catch(() => {});
  }
}

/** Without the steps that a run wrote before it went back to a checkpoint before them. */
function latestOf(steps: readonly StepMetrics[]): StepMetrics[] {
  const latest: StepMetrics[] = [];
  for (const each of steps) {
    while ((latest.at(-1)?.step ?? 0) >= each.step) latest.pop();
    latest.push(each);
  }
  return latest;
}

/** Runs of a folder by name: its subfolders with metrics, and itself if it has some. An absent folder has none. */
async function listRuns(folder: string): Promise<RunSummary[]> {
  const names = await readdir(folder).catch(() => []);
  const runs = await Promise.all(['.', ...names.sort()].map((name) => summaryOf(folder, name)));
  return runs.filter((run) => run !== null);
}

async function summaryOf(folder: string, name: string): Promise<RunSummary | null> {
  const file = path.join(folder, name, 'metrics.jsonl');
  const written = await stat(file).catch(() => null);
  if (!written?.isFile()) return null;
  const planFile = await readFile(path.join(folder, name, 'run.json'), 'utf8').catch(() => '');
  const plan = planSchema.safeParse(parsedJson(planFile)).data ?? null;
  const lastStep = recordsOf(await lastLines(file, written.size), stepSchema).at(-1)?.step ?? 0;
  const silent = Date.now() - written.mtimeMs > SILENCE_MS;
  const finished = plan !== null && lastStep >= plan.steps;
  return { name, state: finished ? 'finished' : silent ? 'stopped' : 'running', plan, lastStep };
}

/** Whole lines at the end of a file: at least one, if there is one of at most 64 KiB. */
async function lastLines(file: string, size: number): Promise<string[]> {
  const from = Math.max(0, size - 2 ** 16);
  const handle = await open(file, 'r');
  const text = await readFrom(handle, from).finally(() => handle.close());
  return text.split('\n').slice(from === 0 ? 0 : 1, -1);
}

/** Each call returns the whole lines that were added since the last; all of them when the file was replaced. */
type LineReader = () => Promise<string[]>;

function lineReader(file: string): LineReader {
  let [read, inode] = [0, 0];
  return async () => {
    const handle = await open(file, 'r').catch(() => null);
    if (!handle) return [];
    try {
      const { ino, size } = await handle.stat();
      if (ino !== inode || size < read) read = 0;
      inode = ino;
      const text = await readFrom(handle, read);
      const whole = text.slice(0, text.lastIndexOf('\n') + 1);
      read += Buffer.byteLength(whole);
      return whole.split('\n').slice(0, -1);
    } finally {
      await handle.close();
    }
  };
}

async function readFrom(handle: FileHandle, from: number): Promise<string> {
  const { size } = await handle.stat();
  const bytes = Buffer.alloc(Math.max(0, size - from));
  const { bytesRead } = await handle.read(bytes, 0, bytes.length, from);
  return bytes.toString('utf8', 0, bytesRead);
}

/** The lines that are records of the schema; a file of another kind has none. */
function recordsOf<T>(lines: readonly string[], schema: z.ZodType<T>): T[] {
  return lines.flatMap((line) => schema.safeParse(parsedJson(line)).data ?? []);
}

function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
