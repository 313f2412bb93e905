/** A run of a few steps on a tiny model, in this process or (executed as a program) in one that can be killed. */
import { writeFileSync } from 'node:fs';
import { parseConfig } from '../../src/model/config.ts';
import { packDocuments } from '../../src/train/packed-documents.ts';
import { createParameters, type Parameters, type Precision } from '../../src/train/parameters.ts';
import { randomBits } from '../../src/train/random.ts';
import { trainModel } from '../../src/train/training-run.ts';

export const tinyConfig = parseConfig(
  {
    model_type: 'deepseek_v3',
    vocab_size: 64,
    hidden_size: 48,
    intermediate_size: 64,
    moe_intermediate_size: 16,
    num_hidden_layers: 2,
    num_attention_heads: 2,
    num_key_value_heads: 2,
    q_lora_rank: 24,
    kv_lora_rank: 32,
    qk_nope_head_dim: 16,
    qk_rope_head_dim: 8,
    v_head_dim: 16,
    n_routed_experts: 8,
    n_shared_experts: 1,
    num_experts_per_tok: 2,
    first_k_dense_replace: 1,
    moe_layer_freq: 1,
    n_group: 1,
    topk_group: 1,
    topk_method: 'noaux_tc',
    scoring_func: 'sigmoid',
    norm_topk_prob: true,
    routed_scaling_factor: 1,
    num_nextn_predict_layers: 1,
    max_position_embeddings: 256,
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    hidden_act: 'silu',
    attention_bias: false,
    tie_word_embeddings: true,
    bos_token_id: 0,
    eos_token_id: 1,
    initializer_range: 0.02,
    torch_dtype: 'bfloat16',
  },
  'config.json',
);

const ROWS = 128;

/** Documents in which each token is decided by the two before it, with some noise: there is something to learn. */
export const tinyDocuments = Array.from({ length: 60 }, (_, d) => {
  const ids = [0];
  for (let i = 1; i < 50; i++) {
    const next = (3 * ids[i - 1]! + (ids[i - 2] ?? 5) + (randomBits(3, d, i) % 16 === 0 ? 7 : 1)) % 62;
    ids.push(2 + next);
  }
  return { ids };
});

/** Trains to step `steps`, going on from the newest checkpoint in `checkpoints` if there is one; leaves after `until`. */
export async function tinyRun(
  steps: number,
  checkpoints: string | null,
  until = steps,
  precision: Precision = 'bf16',
  { batchWarmupSteps = 0, parameters = createParameters(tinyConfig, 5, precision) } = {},
): Promise<{ parameters: Parameters; losses: number[]; tokens: number[] }> {
  const data = packDocuments(tinyDocuments, { sequence: 64, rows: ROWS, seed: 9 });
  const settings = {
    schedule: { shape: 'cosine', peak: 5e-3, floor: 0.1, warmupSteps: 3, steps, decayShare: 0 },
    adamw: { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1 },
    rows: ROWS,
    accumulate: 2,
    batchWarmupSteps,
    clip: 1,
    mtpWeight: 0.3,
    balanceRate: 0.01,
    validateEvery: 0,
    checkpointEvery: 1,
  } as const;
  const losses: number[] = [];
  const tokens: number[] = [];
  for await (const report of trainModel(tinyConfig, parameters, data, [], settings, { checkpoints, companions: [] })) {
    losses.push(report.loss);
    tokens.push(report.tokens);
    if (report.step === until) break;
  }
  return { parameters, losses, tokens };
}

/** FNV-1a of the bits of all masters, moments and balancer biases. */
export function fingerprint({ master, firstMoment, secondMoment, routerBiases }: Parameters): string {
  let hash = 0x811c9dc5;
  for (const array of [master, firstMoment, secondMoment, ...routerBiases.values()]) {
    const bits = new Uint32Array(array.buffer, array.byteOffset, array.byteLength / 4);
    for (let i = 0; i < bits.length; i++) hash = Math.imul(hash ^ bits[i]!, 0x01000193);
  }
  return (hash >>> 0).toString(16);
}

if (process.argv[1] === import.meta.filename) {
  const [, , steps, checkpoints, out, precision = 'bf16'] = process.argv as string[];
  const folder = checkpoints === 'none' ? null : checkpoints!;
  const { parameters } = await tinyRun(Number(steps), folder, Number(steps), precision as Precision);
  writeFileSync(out!, fingerprint(parameters));
}
