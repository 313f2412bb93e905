/**
 * What an ablation trains: small models that differ in one thing, and the comparisons between them. All read the same
 * tokens and, except where a comparison says so, use the same number of parameters for each token.
 */
import { type ModelConfig, parseConfig } from '../model/config.ts';
import { modelReport } from '../model/model-report.ts';
import type { Precision } from './parameters.ts';

export interface Variant {
  readonly name: string;
  readonly model: ModelConfig;
  readonly precision: Precision;
  readonly mtpWeight: number;
  readonly balanceRate: number;
  readonly balanceWeight: number;
}

export interface Comparison {
  readonly name: string;
  readonly question: string;
  /** Each beside the first. */
  readonly variants: readonly VariantName[];
  /** What is the same, and what a reader should know. */
  readonly note: string;
}

const HIDDEN = 128;
const LAYERS = 4;
const HEADS = 4;
const HEAD_DIM = 32;
/** Feed-forward width that one token passes. */
const ACTIVE_WIDTH = 384;
const ALL_WIDTH = 13 * 128;

const common = {
  vocab_size: 1024,
  hidden_size: HIDDEN,
  num_hidden_layers: LAYERS,
  num_attention_heads: HEADS,
  max_position_embeddings: 256,
  tie_word_embeddings: true,
  bos_token_id: 0,
  eos_token_id: 1,
};

const latent = {
  ...common,
  model_type: 'deepseek_v3',
  intermediate_size: ACTIVE_WIDTH,
  kv_lora_rank: 32,
  qk_nope_head_dim: HEAD_DIM,
  qk_rope_head_dim: 16,
  v_head_dim: HEAD_DIM,
};

/** A third of the active width is shared, two thirds are routed: 128 + 256 of 1,664. */
const experts = (width: number, shared: boolean) => ({
  ...latent,
  moe_intermediate_size: width,
  n_shared_experts: shared ? 128 / width : 0,
  n_routed_experts: (ALL_WIDTH - (shared ? 128 : 0)) / width,
  num_experts_per_tok: (ACTIVE_WIDTH - (shared ? 128 : 0)) / width,
  first_k_dense_replace: 0,
  topk_method: 'noaux_tc',
  scoring_func: 'sigmoid',
  norm_topk_prob: true,
  routed_scaling_factor: 1,
});

const dense = (width: number) => ({ ...latent, intermediate_size: width });

/** Heads with keys of their own or in groups; what the attention saves, against the latent one, the feed-forward gets. */
function grouped(keyValueHeads: number) {
  const config = (width: number) => ({
    ...common,
    model_type: 'llama',
    intermediate_size: width,
    num_key_value_heads: keyValueHeads,
    head_dim: HEAD_DIM,
  });
  const active = (json: object) => modelReport(parseConfig(json, 'ablation')).activeParameters;
  const missing = (active(dense(ACTIVE_WIDTH)) - active(config(ACTIVE_WIDTH))) / (3 * HIDDEN * LAYERS);
  return config(ACTIVE_WIDTH + 16 * Math.round(missing / 16));
}

const BASE = { precision: 'bf16', mtpWeight: 0, balanceRate: 0.01, balanceWeight: 0 } as const;

const variants = {
  moe: { json: experts(64, true) },
  'dense, same active': { json: dense(ACTIVE_WIDTH) },
  'dense, same total': { json: dense(ALL_WIDTH) },
  'coarse experts': { json: experts(128, true) },
  'finest experts': { json: experts(32, true) },
  'no shared expert': { json: experts(64, false) },
  'auxiliary loss': { json: experts(64, true), balanceRate: 0, balanceWeight: 0.01 },
  'no balancing': { json: experts(64, true), balanceRate: 0 },
  MHA: { json: grouped(HEADS) },
  GQA: { json: grouped(HEADS / 2) },
  MQA: { json: grouped(1) },
  FP32: { json: experts(64, true), precision: 'fp32' },
  MTP: { json: { ...experts(64, true), num_nextn_predict_layers: 1 }, mtpWeight: 0.3 },
} as const satisfies Record<string, { json: object } & Partial<Omit<Variant, 'name' | 'model'>>>;

export type VariantName = keyof typeof variants;

export function variantOf(name: VariantName): Variant {
  const { json, ...settings } = variants[name];
  return { name, model: parseConfig(json, `ablation, ${name}`), ...BASE, ...settings };
}

export const COMPARISONS = [
  {
    name: 'experts',
    question: 'Dense against mixture of experts',
    variants: ['dense, same active', 'moe', 'dense, same total'],
    note: 'The first two use as many parameters for each token (the router of the second comes on top); the last two hold as many in all.',
  },
  {
    name: 'granularity',
    question: 'Coarse against fine-grained experts',
    variants: ['coarse experts', 'moe', 'finest experts'],
    note: 'Experts of width 128, 64 and 32: 2 of 12, 4 of 24, 8 of 48, beside a shared width of 128. Active and total width are equal.',
  },
  {
    name: 'shared',
    question: 'With and without the shared expert',
    variants: ['no shared expert', 'moe'],
    note: '6 of 26 routed experts, against 4 of 24 and 2 that every token passes.',
  },
  {
    name: 'balancing',
    question: 'Balancing by biases, by an auxiliary loss, not at all',
    variants: ['auxiliary loss', 'moe', 'no balancing'],
    note: 'Auxiliary loss over the batch with α = 0.01; biases move by 0.01 a step (DeepSeek-V3 uses 0.001 over far more steps).',
  },
  {
    name: 'attention',
    question: 'Multi-head, grouped-query, multi-query and latent attention',
    variants: ['MHA', 'GQA', 'MQA', 'dense, same active'],
    note: 'Dense models, so that attention alone differs; the last one has latent attention (MLA: a latent of 32 and a rotary key of 16). Parameters saved in attention are given to the feed-forward, so all are equally large.',
  },
  {
    name: 'precision',
    question: 'BF16 against FP32 operands',
    variants: ['FP32', 'moe'],
    note: 'Masters, gradients and moments are FP32 in both.',
  },
  {
    name: 'mtp',
    question: 'With and without multi-token prediction',
    variants: ['moe', 'MTP'],
    note: 'One module, λ = 0.3; the loss compared is the main model’s. The module costs time and memory in training and can be left out afterwards: the parameters are those of the main model.',
  },
] as const satisfies readonly Comparison[];
