/** `farthing bench --profile`: one step by kernel, beside what memory and arithmetic allow. */
import { writeFile } from 'node:fs/promises';
import type { Workload } from '../engine/measure.ts';
import type { KernelProfile } from '../engine/profile.ts';
import type { Model } from '../model/load.ts';

export interface ProfileReport {
  readonly flopsPerSecond: number;
  readonly steps: readonly {
    readonly name: string;
    readonly seconds: number;
    readonly kernels: readonly (KernelProfile & { readonly shareOfBandwidth: number; readonly shareOfPeak: number })[];
  }[];
}

/** @param trace file that receives the timeline, or undefined */
export async function profileReport(
  model: Model,
  workload: Workload,
  { bandwidth, peak: flopsPerSecond }: { readonly bandwidth: number; readonly peak: number },
  trace: string | undefined,
): Promise<ProfileReport> {
  const { byKernel, profileSteps, traceEvents } = await import('../engine/profile.ts');
  const steps = await profileSteps(model, workload);
  if (trace !== undefined) await writeFile(trace, JSON.stringify(traceEvents(steps)));
  return {
    flopsPerSecond,
    steps: steps.map((step) => ({
      name: step.name,
      seconds: step.seconds,
      kernels: byKernel(step).map((kernel) => ({
        ...kernel,
        shareOfBandwidth: kernel.bytes / kernel.seconds / bandwidth,
        shareOfPeak: kernel.flops / kernel.seconds / flopsPerSecond,
      })),
    })),
  };
}

const COLUMNS = ['', 'calls', 'ms', 'of step', 'MB', 'GB/s', 'of memory', 'GFLOP/s', 'of peak', 'busy'];

export function describeProfile({ flopsPerSecond, steps }: ProfileReport): string {
  const percent = (share: number) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
  const tables = steps.map(({ name, seconds, kernels }) => {
    const rows = kernels.map((k) => [
      k.kernel,
      String(k.calls),
      (k.seconds * 1e3).toFixed(3),
      percent(k.seconds / seconds),
      (k.bytes / 1e6).toFixed(2),
      (k.bytes / k.seconds / 1e9).toFixed(1),
      percent(k.shareOfBandwidth),
      k.flops === 0 ? '' : (k.flops / k.seconds / 1e9).toFixed(1),
      k.flops === 0 ? '' : percent(k.shareOfPeak),
      percent(k.busy),
    ]);
    const table = [COLUMNS, ...rows].map((row) =>
      row.map((cell, i) => (i === 0 ? cell.padEnd(18) : cell.padStart(10))).join(''),
    );
    return [`${name}: ${(seconds * 1e3).toFixed(2)} ms`, ...table].join('\n');
  });
  const bound = `Peak measured here: ${(flopsPerSecond / 1e9).toFixed(0)} GFLOP/s. Bytes are those that must be read or written once.`;
  return [...tables, bound].join('\n\n');
}
