/** `farthing bench`: prefill and decode speed of a model on this machine, beside what the machine could do. */
import os from 'node:os';
import { Command } from 'commander';
import type { CacheDType, Compute } from '../backend/graph.ts';
import type { DiskShare } from '../engine/disk-share.ts';
import type { Measurement, Rate, Workload } from '../engine/measure.ts';
import {
  cacheDtypeOption,
  computeOption,
  examples,
  modelOption,
  packedOption,
  showPacking,
  threadsOption,
  whole,
} from './arguments.ts';
import { describeProfile, type ProfileReport, profileReport } from './bench-profile.ts';
import { benchServeCommand } from './bench-serve.ts';
import { bytes } from './quantities.ts';

interface Options extends Workload {
  readonly model: string;
  readonly compute: Compute;
  readonly cacheDtype?: CacheDType;
  readonly packed?: string;
  readonly threads?: number;
  readonly profile?: boolean;
  readonly trace?: string;
  readonly json?: boolean;
}

export function benchCommand(): Command {
  return new Command('bench')
    .description('Measure prefill and decode, beside the bounds of this machine.')
    .addOption(modelOption())
    .option('--prompt <n>', 'tokens of the prompt that is read', whole(0, 2 ** 24), 512)
    .option('--decode <n>', 'tokens that each sequence writes', whole(0, 2 ** 24), 128)
    .option('--depth <n>', 'tokens of context before them', whole(0, 2 ** 24), 0)
    .option('--batch <n>', 'sequences that write together', whole(1, 1024), 1)
    .option('--repeat <n>', 'times each is measured', whole(1, 1000), 5)
    .addOption(computeOption())
    .addOption(cacheDtypeOption())
    .addOption(packedOption())
    .addOption(threadsOption())
    .option('--profile', 'where the time of a step goes: time, bytes and FLOPs of each kernel, beside the bounds')
    .option('--trace <file>', 'write the profiled steps as a timeline that Perfetto and Chrome open')
    .option('--json', 'print as JSON')
    .enablePositionalOptions()
    .addCommand(benchServeCommand())
    .addHelpText(
      'after',
      examples(
        'farthing bench --prompt 512 --decode 128',
        'farthing bench --model ./v2-lite --depth 4096 --batch 16 --threads 4 --json',
        'farthing bench --model ./v2-lite --depth 4096 --batch 16 --cache-dtype fp8',
        'farthing bench --model ./v2-lite --profile --trace step.json   # then open step.json in ui.perfetto.dev',
      ),
    )
    .action(run);
}

async function run(options: Options): Promise<void> {
  const { openModel } = await import('../model/load.ts');
  const { openCheckpoint } = await import('../model/checkpoint.ts');
  const { measure } = await import('../engine/measure.ts');
  const { bytesPerToken } = await import('../engine/step-bytes.ts');
  const { measurePeak, measureReadBandwidth } = await import('../engine/machine-bounds.ts');
  const native = await import('../backend/native.ts');
  if (options.threads !== undefined) native.setThreads(options.threads);
  const { compute, cacheDtype, depth, batch, decode } = options;
  const model = await openModel(options.model, {
    compute,
    cacheDtype,
    packedFile: options.packed,
    onPacking: showPacking(),
  });
  const measured = await measure(model, options);
  const checkpoint = await openCheckpoint(options.model);
  const read = bytesPerToken(checkpoint, model, { depth: depth + decode / 2, batch });
  const peakBytes = native.peakBytes();
  const bandwidth = await measureReadBandwidth();
  const readBytesPerSecond = measured.decode.tokensPerSecond.median * (read.weights + read.cache);
  const peak = await measurePeak(compute);
  const { tokensPerSecond, flopsPerToken } = measured.prefill;
  const flopsPerSecond = tokensPerSecond.median * flopsPerToken;
  const profile =
    options.profile || options.trace !== undefined
      ? await profileReport(model, options, { bandwidth, peak }, options.trace)
      : undefined;
  const report = {
    ...measured,
    profile,
    memory: {
      peakBytes,
      bytesReadPerToken: { weights: Math.round(read.weights), cache: Math.round(read.cache) },
      readBytesPerSecond: Math.round(readBytesPerSecond),
      shareOfBandwidth: readBytesPerSecond / bandwidth,
    },
    arithmetic: { flopsPerSecond: Math.round(flopsPerSecond), shareOfPeak: flopsPerSecond / peak },
    machine: {
      processor: os.cpus()[0]?.model.trim() ?? 'unknown',
      cores: os.availableParallelism(),
      threads: native.threads(),
      instructionSet: native.instructionSet,
      memoryBytes: os.totalmem(),
      readBytesPerSecond: Math.round(bandwidth),
      flopsPerSecond: Math.round(peak),
      node: process.version,
    },
  };
  console.log(options.json ? JSON.stringify(report) : describe(report));
}

const disk = ({ seconds, diskBytes, majorFaults, idle }: DiskShare) =>
  `${seconds.toFixed(2)} s, ${bytes(diskBytes)} from disk (${bytes(diskBytes / seconds)}/s, ${majorFaults} faults that waited), ` +
  `threads idle ${(idle * 100).toFixed(0)} %`;

interface Report extends Measurement {
  readonly profile: ProfileReport | undefined;
  readonly memory: {
    readonly peakBytes: number;
    readonly bytesReadPerToken: { readonly weights: number; readonly cache: number };
    readonly readBytesPerSecond: number;
    readonly shareOfBandwidth: number;
  };
  readonly arithmetic: { readonly flopsPerSecond: number; readonly shareOfPeak: number };
  readonly machine: {
    readonly processor: string;
    readonly cores: number;
    readonly threads: number;
    readonly instructionSet: string;
    readonly readBytesPerSecond: number;
    readonly flopsPerSecond: number;
  };
}

function describe({ load, steps, prefill, decode, memory, arithmetic, machine, profile }: Report): string {
  const perSecond = ({ median, min, max }: Rate, share = 1) => {
    const shown = (value: number) => (value / share).toLocaleString('en', { maximumSignificantDigits: 4 });
    return `${shown(median)} tokens/s (${shown(min)} to ${shown(max)})`;
  };
  const { weights, cache } = memory.bytesReadPerToken;
  const lines: [string, string][] = [
    ['machine', `${machine.processor}, ${machine.threads} threads, ${machine.instructionSet}`],
    ['load', disk(load)],
    [`prefill ${prefill.tokens}`, perSecond(prefill.tokensPerSecond)],
    [`decode ${decode.tokens}`, `${perSecond(decode.tokensPerSecond)} after ${decode.depth}, batch ${decode.batch}`],
    ...(decode.batch > 1
      ? [['  per sequence', perSecond(decode.tokensPerSecond, decode.batch)] as [string, string]]
      : []),
    ['read per token', `${bytes(weights)} of weights, ${bytes(cache)} of cache`],
    [
      'memory read',
      `${bytes(memory.readBytesPerSecond)}/s while decoding, ${(memory.shareOfBandwidth * 100).toFixed(0)} % of the ` +
        `${bytes(machine.readBytesPerSecond)}/s measured here (a model that fits the caches can pass 100 %)`,
    ],
    [
      'arithmetic',
      `${(arithmetic.flopsPerSecond / 1e9).toFixed(0)} GFLOP/s in prefill, ${(arithmetic.shareOfPeak * 100).toFixed(0)} % of the ` +
        `${(machine.flopsPerSecond / 1e9).toFixed(0)} GFLOP/s measured here`,
    ],
    ['disk in steps', disk(steps)],
    ['peak memory', bytes(memory.peakBytes)],
  ];
  const summary = lines.map(([name, value]) => `${name.padEnd(17)}${value}`).join('\n');
  return profile ? `${summary}\n\n${describeProfile(profile)}` : summary;
}
