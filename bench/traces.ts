/**
 * Published traces replayed against a server of this package in a process of its own, faster and with shorter texts than
 * they were recorded: hits of the prefix cache beside those of an endless one, tokens saved, latencies.
 * `npx tsx bench/traces.ts` (about 4 minutes) or `--quick`; `--requests`, `--speed`, `--length`, `--cache 2GiB`,
 * `--trace FILE` for one of your own (Mooncake or Azure). The model has random weights of the small shape with the built-in
 * model's tokenizer; its context holds the longest scaled prompt. Writes bench/results/traces.json.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, mkdtemp, readFile, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { parseArgs, promisify } from 'node:util';
import { here } from '../models/builtin-data.ts';
import { SHAPES, writeRandomCheckpoint } from '../src/model/random-checkpoint.ts';
import type { LoadReport, Percentiles } from '../src/server/load-generator.ts';
import { origin, writeResult } from './result-file.ts';

const quick = process.argv.includes('--quick');
const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean' },
    trace: { type: 'string' },
    requests: { type: 'string', default: quick ? '40' : '400' },
    // 512 tokens, Mooncake's block, become the 64 of a cache block
    length: { type: 'string', default: '0.125' },
    speed: { type: 'string' },
    cache: { type: 'string', default: '2GiB' },
  },
});
/** Speeds at which the server keeps up on two cores. */
const traces = options.trace
  ? [{ file: options.trace, speed: 1 }]
  : [
      { file: 'bench/data/mooncake-conversation.jsonl.gz', speed: 1 },
      { file: 'bench/data/azure-conv.csv.gz', speed: 8 },
      { file: 'bench/data/azure-code.csv.gz', speed: 8 },
    ];

type Report = LoadReport & { readonly idealCacheHits: number | null };
const farthing = ['--import', 'tsx', 'src/cli/main.ts'];

const folder = await randomModel();
const from = origin();
const rows: object[] = [];
const percent = (share: number | null) => (share === null ? 'none' : `${(100 * share).toFixed(1)} %`);
const ms = ({ p50, p90, p99 }: Percentiles) => [p50, p90, p99].map((each) => each.toFixed(0)).join(' / ');
console.log(
  'trace                        requests  hits      endless   tokens saved  TTFT 50/90/99 ms         TPOT 50/90/99 ms',
);
for (const { file, speed: usual } of traces) {
  const speed = Number(options.speed ?? usual);
  const report = await replay(file, speed);
  const { answered, refused, failed } = report.requests;
  const name = path.basename(file).replace(/\..*/, '');
  console.log(
    `${`${name}, ${speed}× as fast`.padEnd(29)}${String(answered).padEnd(10)}${percent(report.cacheHits).padEnd(10)}` +
      `${percent(report.idealCacheHits).padEnd(10)}${`${report.cachedTokens} of ${report.promptTokens}`.padEnd(22)}` +
      `${ms(report.ttftMs).padEnd(25)}${ms(report.tpotMs)}`,
  );
  if (refused + failed > 0) console.log(`  ${refused} requests were refused, ${failed} failed`);
  rows.push({ trace: name, speed, ...report });
  const { length, cache } = options;
  await writeResult('traces', from, { shape: 'small', length: Number(length), cache, rows });
}
await rm(folder, { recursive: true });

async function randomModel(): Promise<string> {
  const made = await mkdtemp(path.join(os.tmpdir(), 'farthing-traces-'));
  const builtIn = path.join(here, 'farthing-tiny');
  const { vocab_size } = JSON.parse(await readFile(path.join(builtIn, 'config.json'), 'utf8')) as {
    vocab_size: number;
  };
  await writeRandomCheckpoint(made, { ...SHAPES.small, vocab_size }, { dtype: 'fp8', seed: 1 });
  for (const name of ['tokenizer.json', 'tokenizer_config.json'])
    await copyFile(path.join(builtIn, name), path.join(made, name));
  return made;
}

/** A server with an empty cache, and one replay against it. */
async function replay(file: string, speed: number): Promise<Report> {
  const { requests, length, cache } = options;
  const args = ['serve', '--model', folder, '--port', '0', '--json', '--cache', cache, '--waiting', '100000'];
  const server = spawn(process.execPath, [...farthing, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    const url = await addressOf(server, server.stdout);
    const load = ['bench', 'serve', '--url', `${url}/v1`, '--trace', file, '--speed', String(speed), '--json'];
    const { stdout } = await promisify(execFile)(process.execPath, [
      ...farthing,
      ...load,
      ...['--requests', requests, '--length', length],
    ]);
    return JSON.parse(stdout) as Report;
  } finally {
    server.kill('SIGTERM');
    await once(server, 'close');
  }
}

async function addressOf(server: ChildProcess, output: Readable): Promise<string> {
  for await (const line of createInterface(output)) return (JSON.parse(line) as { url: string }).url;
  throw new Error(`farthing serve ended with code ${server.exitCode}`);
}
