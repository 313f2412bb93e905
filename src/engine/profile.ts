/** Where the time of one step goes: one prefill step and one decode step of a workload, operation by operation. */
import type { Model } from '../model/load.ts';
import type { ProfiledOp } from '../model/runner.ts';
import { benchRunner, blocksOf, decodeChunks, fillCaches, promptIds, read, type Workload } from './measure.ts';

export interface StepProfile {
  readonly name: string;
  readonly seconds: number;
  readonly ops: readonly ProfiledOp[];
}

/** All operations of one kernel in a step. */
export interface KernelProfile {
  readonly kernel: string;
  readonly calls: number;
  readonly seconds: number;
  readonly bytes: number;
  readonly flops: number;
  /** Share of the time that the mean thread worked and did not wait for another. */
  readonly busy: number;
}

/**
 * The last step of reading `prompt` tokens, and the step in which `batch` sequences of `depth` tokens write one more
 * each. Of `repeat` runs after a first, the one of median time.
 */
export async function profileSteps(model: Model, workload: Workload): Promise<StepProfile[]> {
  const { prompt, decode, depth, batch, repeat } = workload;
  const runner = await benchRunner(model, workload);
  const ids = promptIds(model, workload);
  const median = async (name: string, run: () => Promise<ProfiledOp[]>): Promise<StepProfile> => {
    await run();
    const runs: StepProfile[] = [];
    for (let i = 0; i < repeat; i++) {
      const ops = await run();
      runs.push({ name, seconds: ops.at(-1)!.times.end, ops });
    }
    return runs.sort((a, b) => a.seconds - b.seconds)[runs.length >> 1]!;
  };
  const profiles: StepProfile[] = [];
  if (prompt > 0) {
    const tokens = Math.min(prompt, runner.limits.tokens);
    const start = prompt - tokens;
    await read(runner, ids.subarray(0, start), 0);
    const chunk = { ids: ids.subarray(start, prompt), start, blocks: blocksOf(runner, 0), logits: 1 };
    profiles.push(await median(`prefill of ${tokens} tokens after ${start}`, () => runner.profile([chunk])));
  }
  if (decode > 0) {
    const { vocabSize } = model.config;
    await fillCaches(runner, vocabSize, workload);
    const chunks = decodeChunks(runner, vocabSize, depth, batch);
    profiles.push(await median(`decode of ${batch} after ${depth} tokens`, () => runner.profile(chunks)));
  }
  return profiles;
}

/** The operations of a step by kernel, the longest first. */
export function byKernel({ ops }: StepProfile): KernelProfile[] {
  const kernels = new Map<string, KernelProfile>();
  for (const { kernel, times, bytes, flops } of ops) {
    const sums = kernels.get(kernel) ?? { kernel, calls: 0, seconds: 0, bytes: 0, flops: 0, busy: 0 };
    const worked = times.threads.reduce((sum, { start, end }) => sum + end - start, 0) / times.threads.length;
    kernels.set(kernel, {
      kernel,
      calls: sums.calls + 1,
      seconds: sums.seconds + times.end - times.start,
      bytes: sums.bytes + bytes,
      flops: sums.flops + flops,
      busy: sums.busy + worked,
    });
  }
  return [...kernels.values()]
    .map((sums) => ({ ...sums, busy: sums.busy / sums.seconds }))
    .sort((a, b) => b.seconds - a.seconds);
}

type TraceEvent =
  | { ph: 'M'; name: string; pid: number; tid: number; args: { name: string } }
  | { ph: 'X'; name: string; cat: string; pid: number; tid: number; ts: number; dur: number; args: object };

/**
 * The steps as trace events that Perfetto and Chrome (about:tracing) open: a process for each step, a row for each
 * thread; what is not covered is time in which the thread waits for another. Times in microseconds.
 * https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
 */
export function traceEvents(steps: readonly StepProfile[]): { displayTimeUnit: string; traceEvents: TraceEvent[] } {
  const micro = (seconds: number) => Math.round(seconds * 1e9) / 1e3;
  const traceEvents = steps.flatMap(({ name, ops }, pid): TraceEvent[] => [
    { ph: 'M', name: 'process_name', pid, tid: 0, args: { name } },
    ...ops[0]!.times.threads.map((_, tid): TraceEvent => {
      return { ph: 'M', name: 'thread_name', pid, tid, args: { name: `thread ${tid}` } };
    }),
    ...ops.flatMap(({ kernel, times, bytes, flops }, op) =>
      times.threads.map(({ start, end }, tid): TraceEvent => {
        return {
          ph: 'X',
          name: kernel,
          cat: 'op',
          pid,
          tid,
          ts: micro(start),
          dur: micro(end - start),
          args: { op, bytes, flops },
        };
      }),
    ),
  ]);
  return { displayTimeUnit: 'ns', traceEvents };
}
