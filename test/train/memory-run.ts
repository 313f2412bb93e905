/** A short run as a program of its own: prints the memory that was announced before it, and by how much the process grew. */
import { readFileSync } from 'node:fs';
import { parseConfig } from '../../src/model/config.ts';
import { packDocuments } from '../../src/train/packed-documents.ts';
import { createParameters, type Precision } from '../../src/train/parameters.ts';
import { randomBits } from '../../src/train/random.ts';
import { trainModel } from '../../src/train/training-run.ts';

export interface MemoryOfRun {
  readonly announced: number;
  readonly grown: number;
}

const ROWS = 2048;
const [precision, recompute] = process.argv.slice(2) as [Precision, string];
const file = 'models/farthing-tiny.config.json';
const config = parseConfig(JSON.parse(readFileSync(file, 'utf8')), file);
const documents = Array.from({ length: 16 }, (_, d) => ({
  ids: Array.from({ length: 256 }, (_, i) => randomBits(1, d, i) % config.vocabSize),
}));
const data = packDocuments(documents, { sequence: 256, rows: ROWS, seed: 1 });
const settings = {
  schedule: { shape: 'cosine', peak: 1e-3, floor: 0.1, warmupSteps: 1, steps: 2, decayShare: 0 },
  adamw: { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1 },
  rows: ROWS,
  accumulate: 1,
  recompute: recompute === 'recompute',
  clip: 1,
  mtpWeight: 0.3,
  balanceRate: 0.01,
  validateEvery: 1,
  checkpointEvery: 0,
} as const;
let announced = 0;
const files = {
  checkpoints: null,
  companions: [],
  onMemory: ({ weights, optimizer, activations }: { weights: number; optimizer: number; activations: number }) => {
    announced = weights + optimizer + activations;
  },
};
const before = process.memoryUsage.rss();
const parameters = createParameters(config, 1, precision);
for await (const _ of trainModel(config, parameters, data, [data.batch(0)], settings, files));
const result: MemoryOfRun = { announced, grown: process.memoryUsage.rss() - before };
console.log(JSON.stringify(result));
