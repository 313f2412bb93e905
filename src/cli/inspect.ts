/** `farthing inspect`: what a checkpoint folder holds, and what it needs here. */
import { Command } from 'commander';
import type { ModelReport } from '../model/model-report.ts';
import { examples, modelOption } from './arguments.ts';
import { bytes, count } from './quantities.ts';

export function inspectCommand(): Command {
  return new Command('inspect')
    .description('Print architecture, parameters, cache bytes per token and memory of a checkpoint folder.')
    .argument('[dir]', 'checkpoint folder (default: the built-in model)')
    .option('--json', 'print as JSON')
    .addHelpText('after', examples('farthing inspect ./DeepSeek-V2-Lite', 'farthing inspect --json ./model'))
    .action(run);
}

async function run(folder: string | undefined, { json }: { json?: boolean }): Promise<void> {
  const { openCheckpoint } = await import('../model/checkpoint.ts');
  const { modelReport } = await import('../model/model-report.ts');
  const os = await import('node:os');
  const checkpoint = await openCheckpoint(folder ?? (modelOption().defaultValue as string));
  const report = modelReport(checkpoint.config);
  const weightBytes = checkpoint.names.reduce((sum, name) => sum + checkpoint.header(name).byteLength, 0);
  const cacheBytes = report.cacheBytesPerToken.model * report.contextTokens;
  const memory = { weightBytes, cacheBytesOfOneContext: cacheBytes, machineBytes: os.totalmem() };
  if (json) console.log(JSON.stringify({ folder: checkpoint.folder, ...report, memory, notes: checkpoint.notes }));
  else console.log(describe(checkpoint.folder, report, memory, checkpoint.notes));
}

function describe(
  folder: string,
  report: ModelReport,
  memory: { weightBytes: number; cacheBytesOfOneContext: number; machineBytes: number },
  notes: readonly string[],
): string {
  const cache = report.cacheBytesPerToken;
  const times = (other: number) => `${(other / cache.model).toFixed(1)} ×`;
  const needed = memory.weightBytes + memory.cacheBytesOfOneContext;
  const lines: [string, string][] = [
    ['folder', folder],
    ['architecture', report.architecture],
    ['layers', String(report.layers)],
    [
      'context',
      `${report.contextTokens.toLocaleString('en')} tokens, vocabulary of ${report.vocab.toLocaleString('en')}`,
    ],
    ['parameters', `${count(report.parameters)}, ${count(report.activeParameters)} active for a token`],
    ...(report.mtpParameters > 0 ? [['MTP modules', count(report.mtpParameters)] as [string, string]] : []),
    ['cache per token', `${bytes(cache.model)} in BF16${cache.fp8 === null ? '' : `, ${bytes(cache.fp8)} in FP8`}`],
    ['  as multi-head', `${bytes(cache.multiHead)}, ${times(cache.multiHead)}`],
    ['  as GQA with 8', `${bytes(cache.groupedQuery8)}, ${times(cache.groupedQuery8)}`],
    ['weights', bytes(memory.weightBytes)],
    [
      'memory needed',
      `${bytes(needed)} with one whole context of cache; this machine has ${bytes(memory.machineBytes)}`,
    ],
    ...notes.map((note): [string, string] => ['note', note]),
  ];
  return lines.map(([name, value]) => `${name.padEnd(17)}${value}`).join('\n');
}
