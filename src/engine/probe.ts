/** How fast the kernels run on this machine: steps of two models of random weights, operation by operation. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import type { Compute } from '../backend/graph.ts';
import { openModel } from '../model/load.ts';
import { SHAPES, writeRandomCheckpoint } from '../model/random-checkpoint.ts';
import { STEP_TOKENS } from './cache-size.ts';
import { byKernel, type KernelProfile, profileSteps } from './profile.ts';

interface ProbedStep {
  readonly phase: 'prefill' | 'decode';
  readonly sequences: number;
  readonly tokensEach: number;
  readonly start: number;
  readonly kernels: readonly KernelProfile[];
}

/** What was measured of one model. */
export interface Probe {
  /** Its config.json. */
  readonly config: unknown;
  readonly steps: readonly ProbedStep[];
}

/** Layers of every kind, and a head too small to count: weights that a core's own caches hold, and beyond them. */
const PROBED = [
  {
    ...SHAPES.small,
    vocab_size: 512,
    hidden_size: 320,
    q_lora_rank: 160,
    intermediate_size: 896,
    num_hidden_layers: 6,
  },
  {
    ...SHAPES.medium,
    vocab_size: 512,
    hidden_size: 896,
    intermediate_size: 2432,
    moe_intermediate_size: 448,
    num_hidden_layers: 5,
    num_attention_heads: 14,
    num_key_value_heads: 14,
  },
];

const DEPTHS = [512, 4096];
const REPEAT = 5;

/**
 * A narrow and a wide model, in this order.
 * @param dtype type of the linear weights of the model that is asked about
 */
export async function probeEngine(dtype: 'fp8' | 'bf16', compute: Compute): Promise<Probe[]> {
  const probes: Probe[] = [];
  for (const shape of PROBED) probes.push(await probeModel(shape, dtype, compute));
  return probes;
}

async function probeModel(shape: (typeof PROBED)[number], dtype: 'fp8' | 'bf16', compute: Compute): Promise<Probe> {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'farthing-probe-'));
  try {
    await writeRandomCheckpoint(folder, shape, { dtype, seed: 1 });
    const config: unknown = JSON.parse(await readFile(path.join(folder, 'config.json'), 'utf8'));
    const model = await openModel(folder, { compute });
    const steps: ProbedStep[] = [];
    for (const start of DEPTHS) {
      for (const batch of [1, 2, 4, 8, 16]) {
        const [decode] = await profileSteps(model, { prompt: 0, decode: 1, depth: start, batch, repeat: REPEAT });
        steps.push({ phase: 'decode', sequences: batch, tokensEach: 1, start, kernels: byKernel(decode!) });
      }
    }
    for (const [tokensEach, start] of [
      [32, 0],
      [64, 0],
      [128, 0],
      [256, 0],
      ...[0, ...DEPTHS].map((depth) => [STEP_TOKENS, depth] as const),
    ] as const) {
      const prompt = start + tokensEach;
      const [prefill] = await profileSteps(model, { prompt, decode: 0, depth: 0, batch: 1, repeat: REPEAT });
      steps.push({ phase: 'prefill', sequences: 1, tokensEach, start, kernels: byKernel(prefill!) });
    }
    return { config, steps };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
