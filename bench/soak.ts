/**
 * Ten thousand requests at 64 connections against a real server of the built-in model, with drafts, a small cache and a
 * disk cache: `npx tsx bench/soak.ts [REQUESTS] [SEED]` (10000, 1). No request may be lost, mixed up or hung, every
 * answer must be the one to the same request alone, and the server's memory must be flat once it is warm. What clients
 * do is in test/server/soak.ts. Writes bench/results/soak.json.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { loadModel } from '../src/index.ts';
import { soak } from '../test/server/soak.ts';
import { makeQuestions } from '../test/server/soak-questions.ts';
import { metric, spawnServe } from '../test/server/spawn-serve.ts';
import { origin, writeResult } from './result-file.ts';

const [requests = 10_000, seed = 1] = process.argv.slice(2).map(Number);
const CONNECTIONS = 64;
const QUESTIONS = 200;
const SERVER = ['--sequences', '16', '--waiting', '44', '--cache', '3MiB', '--disk-cache-size', '32MiB'];
/** The share of the requests after which the server is warm. */
const WARM_UP = 0.2;
/**
 * What flat means: the peak of the second half after the warm-up is at most this much above that of the first. Peaks, as
 * garbage is collected now and then.
 */
const MOST_GROWTH = 0.1;

const from = origin();
const alone = await loadModel('models/farthing-tiny', { sequences: 1, drafts: 0 });
const questions = await makeQuestions(alone, QUESTIONS, seed);
await alone.close();
console.log(`${QUESTIONS} answers alone are known`);

const folder = mkdtempSync(path.join(os.tmpdir(), 'soak-'));
const served = await spawnServe(...SERVER, '--disk-cache', folder);
const start = performance.now();
const samples: { ended: number; rssMiB: number; files: number }[] = [];
let ended = 0;
const sampling = setInterval(sample, 500);
const telling = setInterval(tell, 10_000);
const { faults, ...counts } = await soak({
  url: served.url,
  questions,
  requests,
  connections: CONNECTIONS,
  hungMs: 180_000,
  seed,
  onEnd: (now) => {
    ended = now;
  },
});
clearInterval(sampling);
clearInterval(telling);
const seconds = (performance.now() - start) / 1000;
const left = await leftBehind();
const [preemptions, fetchedTokens, acceptedDrafts] = await Promise.all(
  ['num_preemptions_total', 'external_prefix_cache_hits_total', 'spec_decode_num_accepted_tokens_total'].map((name) =>
    metric(served.url, `vllm:${name}`),
  ),
);
served.process.kill('SIGTERM');
const exit = await served.exit;
rmSync(folder, { recursive: true });

const middle = (1 + WARM_UP) / 2;
const [early, late] = [peakOf(WARM_UP, middle), peakOf(middle, 1)];
const growth = late.rssMiB / early.rssMiB - 1;
const memory = {
  peakOfFirstHalfMiB: early.rssMiB,
  peakOfSecondHalfMiB: late.rssMiB,
  growth,
  openFiles: [early.files, late.files],
  every5PercentMiB: Array.from({ length: 21 }, (_, i) => at(i / 20).rssMiB),
};
const lost = requests - counts.answered - counts.left - counts.malformed - faults.length;
const problems = [
  ...faults,
  ...(lost === 0 ? [] : [`${lost} requests were lost`]),
  ...(growth <= MOST_GROWTH ? [] : [`the server's memory grew by ${(growth * 100).toFixed(1)} %`]),
  ...left,
  ...(served.said() === '' ? [] : [`the server said: ${served.said()}`]),
  ...(exit === 0 ? [] : [`the server ended with ${exit}`]),
];
const report = { requests, connections: CONNECTIONS, seed, server: SERVER, seconds, ...counts };
const server = { preemptions, fetchedTokens, acceptedDrafts, memory };
for (const problem of problems.slice(0, 20)) console.log(problem);
console.log(
  `${requests} requests at ${CONNECTIONS} connections in ${(seconds / 60).toFixed(1)} minutes: ${counts.answered} answered, ` +
    `${counts.left} left by their clients, ${counts.malformed} malformed and refused, ${counts.cameBack} times told to come back\n` +
    `${counts.tokens} tokens; ${counts.cachedTokens} of the prompts' from the cache, of all requests ${fetchedTokens} from disk; ` +
    `${preemptions} interruptions, ${acceptedDrafts} drafts kept\n` +
    `memory of the server after ${WARM_UP * 100} % of the requests: at most ${early.rssMiB.toFixed(0)} MiB in the first half, ` +
    `${late.rssMiB.toFixed(0)} MiB in the second (${(growth * 100).toFixed(1)} %)\n` +
    `${problems.length === 0 ? 'nothing lost, mixed up, hung or different' : `${problems.length} PROBLEMS`}`,
);
await writeResult('soak', from, { ...report, ...server, problems: problems.slice(0, 20) });
process.exitCode = problems.length === 0 ? 0 : 1;

function sample(): void {
  const { pid } = served.process;
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const rssMiB = Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) / 1024;
  samples.push({ ended, rssMiB, files: readdirSync(`/proc/${pid}/fd`).length });
}

function tell(): void {
  const perSecond = ended / ((performance.now() - start) / 1000);
  const { rssMiB, files } = samples.at(-1)!;
  console.log(
    `${ended} of ${requests}, ${perSecond.toFixed(1)} a second, ${((requests - ended) / perSecond / 60).toFixed(1)} minutes left; ` +
      `${rssMiB.toFixed(0)} MiB, ${files} open files`,
  );
}

function peakOf(from: number, to: number) {
  const among = samples.filter((one) => one.ended >= from * requests && one.ended <= to * requests);
  const most = (of: 'rssMiB' | 'files') => Math.max(...among.map((one) => one[of]));
  return { rssMiB: most('rssMiB'), files: most('files') };
}

function at(share: number) {
  return samples.find((one) => one.ended >= share * requests) ?? samples.at(-1)!;
}

/** What an idle server should not have, in words. */
async function leftBehind(): Promise<string[]> {
  const names = ['num_requests_running', 'num_requests_waiting', 'kv_cache_usage_perc'];
  for (const end = Date.now() + 10_000; ; await new Promise((resolve) => setTimeout(resolve, 50))) {
    const values = await Promise.all(names.map((name) => metric(served.url, `vllm:${name}`)));
    if (values.every((value) => value === 0)) return [];
    if (Date.now() > end) return [`left behind when all was done: ${names.map((name, i) => `${name} ${values[i]}`)}`];
  }
}
