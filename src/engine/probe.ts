/** How fast the kernels run on this machine: steps of a small model of random weights, operation by operation. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import type { Compute } from '../backend/graph.ts';
import { openModel } from '../model/load.ts';
import { SHAPES, writeRandomCheckpoint } from '../model/random-checkpoint.ts';
import { byKernel, type KernelProfile, profileSteps } from './profile.ts';

interface ProbedStep {
  readonly phase: 'prefill' | 'decode';
  readonly sequences: number;
  readonly tokensEach: number;
  readonly start: number;
  readonly kernels: readonly KernelProfile[];
}

export interface Probe {
  /** The config.json of the probe. */
  readonly config: unknown;
  readonly steps: readonly ProbedStep[];
}

/** Weights beyond a core's own caches, layers of every kind, and a head too small to count. */
const SHAPE = {
  ...SHAPES.medium,
  vocab_size: 512,
  hidden_size: 768,
  intermediate_size: 2048,
  moe_intermediate_size: 384,
  num_hidden_layers: 5,
  num_attention_heads: 12,
  num_key_value_heads: 12,
};

const DEPTH = 1024;
const REPEAT = 5;

/** @param dtype type of the linear weights of the model that is asked about */
export async function probeEngine(dtype: 'fp8' | 'bf16', compute: Compute): Promise<Probe> {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'farthing-probe-'));
  try {
    await writeRandomCheckpoint(folder, SHAPE, { dtype, seed: 1 });
    const config: unknown = JSON.parse(await readFile(path.join(folder, 'config.json'), 'utf8'));
    const model = await openModel(folder, { compute });
    const steps: ProbedStep[] = [];
    for (const batch of [1, 2, 4, 8, 16]) {
      const [decode] = await profileSteps(model, { prompt: 0, decode: 1, depth: DEPTH, batch, repeat: REPEAT });
      steps.push({ phase: 'decode', sequences: batch, tokensEach: 1, start: DEPTH, kernels: byKernel(decode!) });
    }
    for (const [tokensEach, start] of [
      [32, 0],
      [64, 0],
      [128, 0],
      [256, 0],
      [256, DEPTH],
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
