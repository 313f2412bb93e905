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

const LAYERS = 4;
const HEADS = 4;

/**
 * config.json by what the models are built of, all in proportion to the hidden size: 4 heads of a quarter, feed-forward
 * width 3 that a token passes, 13 with all experts.
 */
function shapes(hidden: number) {
  const [active, all, shared] = [3 * hidden, 13 * hidden, hidden];
  const common = {
    vocab_size: 1024,
    hidden_size: hidden,
    num_hidden_layers: LAYERS,
    num_attention_heads: HEADS,
    max_position_embeddings: 256,
    tie_word_embeddings: true,
    bos_token_id: 0,
    eos_token_id: 1,
  };
  const dense = (width: number) => ({
    ...common,
    model_type: 'deepseek_v3',
    intermediate_size: width,
    kv_lora_rank: hidden / 4,
    qk_nope_head_dim: hidden / 4,
    qk_rope_head_dim: hidden / 8,
    v_head_dim: hidden / 4,
  });
  /** A third of the active width is shared, two thirds are routed. */
  const experts = (width: number, withShared = true) => {
    const apart = withShared ? shared : 0;
    return {
      ...dense(active),
      moe_intermediate_size: width,
      n_shared_experts: apart / width,
      n_routed_experts: (all - apart) / width,
      num_experts_per_tok: (active - apart) / width,
      first_k_dense_replace: 0,
      topk_method: 'noaux_tc',
      scoring_func: 'sigmoid',
      norm_topk_prob: true,
      routed_scaling_factor: 1,
    };
  };
  /** Keys and values for so many heads; what the attention saves, against the latent one, the feed-forward gets. */
  const grouped = (keyValueHeads: number) => {
    const config = (width: number) => ({
      ...common,
      model_type: 'llama',
      intermediate_size: width,
      num_key_value_heads: keyValueHeads,
      head_dim: hidden / 4,
    });
    const missing = (parametersOf(dense(active)) - parametersOf(config(active))) / (3 * hidden * LAYERS);
    return config(active + 16 * Math.round(missing / 16));
  };
  return { activeWidth: active, allWidth: all, dense, experts, grouped };
}

const parametersOf = (json: object) => modelReport(parseConfig(json, 'ablation')).parameters;

const BASE = { precision: 'bf16', mtpWeight: 0, balanceRate: 0.01, balanceWeight: 0 } as const;

type Shapes = ReturnType<typeof shapes>;
type Recipe = { json(shapes: Shapes, hidden: number): object } & Partial<Omit<Variant, 'name' | 'model'>>;

const moe: Recipe['json'] = ({ experts }, hidden) => experts(hidden / 2);

const variants = {
  moe: { json: moe },
  'dense, same active': { json: ({ dense, activeWidth }) => dense(activeWidth) },
  'dense, same total': { json: ({ dense, allWidth }) => dense(allWidth) },
  'coarse experts': { json: ({ experts }, hidden) => experts(hidden) },
  'finest experts': { json: ({ experts }, hidden) => experts(hidden / 4) },
  'no shared expert': { json: ({ experts }, hidden) => experts(hidden / 2, false) },
  'auxiliary loss': { json: moe, balanceRate: 0, balanceWeight: 0.01 },
  'no balancing': { json: moe, balanceRate: 0 },
  MHA: { json: ({ grouped }) => grouped(HEADS) },
  GQA: { json: ({ grouped }) => grouped(HEADS / 2) },
  MQA: { json: ({ grouped }) => grouped(1) },
  FP32: { json: moe, precision: 'fp32' },
  FP8: { json: moe, precision: 'fp8' },
  MTP: { json: (of, hidden) => ({ ...moe(of, hidden), num_nextn_predict_layers: 1 }), mtpWeight: 0.3 },
} as const satisfies Record<string, Recipe>;

export type VariantName = keyof typeof variants;

/** @param hidden hidden size, a multiple of 64 */
export function variantOf(name: VariantName, hidden: number): Variant {
  const { json, ...settings } = variants[name];
  return { name, model: parseConfig(json(shapes(hidden), hidden), `ablation, ${name}`), ...BASE, ...settings };
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
    note: 'Experts as wide as the hidden state, half and a quarter of it: 2 of 12, 4 of 24, 8 of 48 are chosen, beside as much shared width in each. Active and total width are equal.',
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
    note: 'Dense models, so that attention alone differs; the last one has latent attention (MLA: a latent of a quarter of the hidden size and a rotary key of an eighth). Parameters saved in attention are given to the feed-forward, so all are about equally large.',
  },
  {
    name: 'precision',
    question: 'BF16 against FP8 and FP32 operands',
    variants: ['moe', 'FP8', 'FP32'],
    note: 'Masters and gradients are FP32 and moments BF16 in all; *moe* has BF16 operands. FP8 is emulated on a CPU: its time says nothing of hardware that has it.',
  },
  {
    name: 'mtp',
    question: 'With and without multi-token prediction',
    variants: ['moe', 'MTP'],
    note: 'One module, λ = 0.3; the loss compared is the main model’s. The module costs time and memory in training and can be left out afterwards: the parameters are those of the main model.',
  },
] as const satisfies readonly Comparison[];
