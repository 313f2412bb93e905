/** How fast the kernels run on this machine: by themselves in a range of shapes, and in steps of a small model. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import type { Compute } from '../backend/graph.ts';
import { threads } from '../backend/native.ts';
import { type Model, openModel } from '../model/load.ts';
import { SHAPES, writeRandomCheckpoint } from '../model/random-checkpoint.ts';
import type { SequenceChunk } from '../model/runner.ts';
import { STEP_TOKENS } from './cache-size.ts';
import {
  type AttentionRun,
  attentionProbes,
  type Probed,
  type ProductRun,
  probePool,
  productProbes,
} from './kernel-probe.ts';
import { benchRunner, benchToken, blocksOf } from './measure.ts';

/** A step of the small model. */
interface StepRun {
  readonly sequences: number;
  readonly tokensEach: number;
  readonly start: number;
  readonly seconds: number;
  /** Without the first operation, which waits for the threads to wake. */
  readonly kernels: readonly { readonly kernel: string; readonly seconds: number }[];
}

export interface EngineProbe {
  /** The small model's config.json. */
  readonly config: unknown;
  readonly stepTokens: number;
  readonly threads: number;
  readonly weights: 'fp8' | 'bf16';
  readonly products: readonly ProductRun[];
  readonly attention: readonly AttentionRun[];
  readonly steps: readonly StepRun[];
}

/** Layers of every kind; neither published nor one of those that benchmarks run. */
const MODEL = {
  ...SHAPES.small,
  vocab_size: 512,
  hidden_size: 256,
  q_lora_rank: 96,
  intermediate_size: 640,
  num_hidden_layers: 5,
  n_routed_experts: 48,
  num_experts_per_tok: 5,
};
const STEPS = [
  { sequences: 1, tokensEach: 1 },
  { sequences: 16, tokensEach: 1 },
  { sequences: 1, tokensEach: 128 },
  { sequences: 1, tokensEach: STEP_TOKENS },
];
const ROUNDS = 7;
const STEP_REPEAT = 8;

/**
 * Everything once a round, so that what disturbs the machine for a while spoils a round and not a kernel; of the rounds the
 * median.
 * @param weights type of the linear weights of the model that is asked about
 */
export async function probeEngine(weights: 'fp8' | 'bf16', compute: Compute): Promise<EngineProbe> {
  const pool = probePool();
  const formats = weights === 'fp8' ? (['fp8', 'bf16', 'f32'] as const) : (['bf16', 'f32'] as const);
  const folder = await mkdtemp(path.join(os.tmpdir(), 'farthing-probe-'));
  try {
    await writeRandomCheckpoint(folder, MODEL, { dtype: weights, seed: 1 });
    const config: unknown = JSON.parse(await readFile(path.join(folder, 'config.json'), 'utf8'));
    const model = await openModel(folder, { compute });
    const probes = {
      products: productProbes(pool, formats, compute),
      attention: attentionProbes(pool, model.cacheDtype, compute),
      steps: await stepProbes(model),
    };
    const rounds: { products: ProductRun[]; attention: AttentionRun[]; steps: StepRun[] }[] = [];
    for (let round = 0; round <= ROUNDS; round++) {
      rounds.push({
        products: await measureAll(probes.products),
        attention: await measureAll(probes.attention),
        steps: await measureAll(probes.steps),
      });
    }
    const counted = rounds.slice(1);
    return {
      config,
      stepTokens: STEP_TOKENS,
      threads: threads(),
      weights,
      products: medians(counted.map(({ products }) => products)),
      attention: medians(counted.map(({ attention }) => attention)),
      steps: counted[0]!.steps.map((_, i) => medianStep(counted.map(({ steps }) => steps[i]!))),
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function measureAll<Run>(probes: readonly Probed<Run>[]): Promise<Run[]> {
  const runs: Run[] = [];
  for (const probe of probes) runs.push(...(await probe.measure()));
  return runs;
}

/** Of each run the one of median time. */
function medians<Run extends { readonly seconds: number }>(rounds: readonly (readonly Run[])[]): Run[] {
  return rounds[0]!.map((_, i) => median(rounds.map((runs) => runs[i]!)));
}

function median<Run extends { readonly seconds: number }>(runs: readonly Run[]): Run {
  return [...runs].sort((a, b) => a.seconds - b.seconds)[runs.length >> 1]!;
}

/** Of the whole step and of each kernel by itself. */
function medianStep(runs: readonly StepRun[]): StepRun {
  const kernels = runs[0]!.kernels.map((_, i) => median(runs.map((run) => run.kernels[i]!)));
  return { ...median(runs), kernels };
}

async function stepProbes(model: Model): Promise<Probed<StepRun>[]> {
  const most = { prompt: STEP_TOKENS, decode: 1, depth: 0, batch: 16, repeat: 1 };
  const runner = await benchRunner(model, most);
  return STEPS.map(({ sequences, tokensEach }) => {
    const chunks = Array.from({ length: sequences }, (_, sequence): SequenceChunk => {
      const ids = Array.from({ length: tokensEach }, (_, i) => benchToken(sequence, i, model.config.vocabSize));
      return { ids, start: 0, blocks: blocksOf(runner, sequence), logits: 1 };
    });
    return {
      async measure() {
        const runs: StepRun[] = [];
        for (let i = 0; i < STEP_REPEAT; i++) {
          const begin = performance.now();
          await runner.step(chunks);
          const seconds = (performance.now() - begin) / 1000;
          const [, ...ops] = await runner.profile(chunks);
          const kernels = new Map<string, number>();
          for (const { kernel, times } of ops) {
            kernels.set(kernel, (kernels.get(kernel) ?? 0) + times.end - times.start);
          }
          const byKernel = [...kernels].map(([kernel, seconds]) => ({ kernel, seconds }));
          runs.push({ sequences, tokensEach, start: 0, seconds, kernels: byKernel });
        }
        return [medianStep(runs)];
      },
    };
  });
}
