/**
 * What a count needs to know of a model: widths, heads, experts. Read from the fields of a published config.json, of
 * more families than the engine runs; nothing is looked up by the model's name.
 */
import { z } from 'zod';
import { ConfigError, flag, LIMITS, oneOf, parseFields, refuseIn, whole } from '../model/config-fields.ts';

export interface Architecture {
  readonly modelType: ModelType;
  readonly layers: number;
  readonly hidden: number;
  readonly vocab: number;
  /** The embedding table is the output head too. */
  readonly tied: boolean;
  readonly attention: Attention;
  /** Width of the feed-forward block of the layers without experts; 0 where there are none. */
  readonly denseWidth: number;
  readonly denseLayers: number;
  readonly experts: Experts | null;
  /** Layers that draft further tokens (multi-token prediction); in no count unless said. */
  readonly mtpLayers: number;
}

export type Attention = LatentAttention | GroupedAttention | CompressedAttention;

/** Multi-head latent attention (DeepSeek-V2 report §2.1). */
interface LatentAttention {
  readonly kind: 'mla';
  readonly heads: number;
  /** null: queries are projected directly. */
  readonly qRank: number | null;
  readonly kvRank: number;
  readonly nopeDim: number;
  readonly ropeDim: number;
  readonly valueDim: number;
  /** The sparse attention of V3.2: which cached tokens are attended to is chosen by a small indexer. */
  readonly indexer: { readonly heads: number; readonly dim: number; readonly topK: number } | null;
}

/** Multi-head, grouped-query and multi-query attention: as many key-value heads as query heads, some, or one. */
interface GroupedAttention {
  readonly kind: 'grouped';
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Elements of the biases and other vectors of one layer. */
  readonly vectors: number;
  /** Every second layer sees only so many tokens back; null: every layer sees all. */
  readonly slidingWindow: number | null;
}

/** DeepSeek-V4: key-value vectors of several tokens compressed into one, grouped low-rank output projection. */
interface CompressedAttention {
  readonly kind: 'compressed';
  readonly heads: number;
  readonly headDim: number;
  readonly qRank: number;
  readonly outRank: number;
  readonly outGroups: number;
  readonly indexer: { readonly heads: number; readonly dim: number; readonly topK: number };
  /** Tokens before it that a token sees whole, in every layer. */
  readonly window: number;
  /** Tokens that one cached vector stands for, and how many layers have it so; 0: the window alone. */
  readonly layersByRatio: readonly { readonly ratio: number; readonly layers: number }[];
}

export interface Experts {
  readonly routed: number;
  readonly shared: number;
  readonly topK: number;
  readonly width: number;
  /** Routing picks `topGroups` of `groups` first; 1 and 1 where it does not. */
  readonly groups: number;
  readonly topGroups: number;
  /** Elements of the router's bias, and of an expert's biases. */
  readonly routerVector: number;
  readonly expertVector: number;
}

const MODEL_TYPES = [
  'deepseek',
  'deepseek_v2',
  'deepseek_v3',
  'deepseek_v32',
  'deepseek_v4',
  'llama',
  'mistral',
  'qwen2',
  'qwen3',
  'qwen3_moe',
  'mixtral',
  'gpt_oss',
] as const;
type ModelType = (typeof MODEL_TYPES)[number];

/**
 * @param json content of a config.json
 * @param fileName as messages should name it
 * @throws ConfigError naming the field, what was found and the range that is allowed
 */
export function parseArchitecture(json: unknown, fileName: string): Architecture {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw new ConfigError(`${fileName}: the whole is not a JSON object`);
  }
  const fields = parseFields(configFields, json, fileName);
  const refuse = refuseIn(fileName);
  const required = (name: keyof typeof fields): number => {
    const value = fields[name];
    return typeof value === 'number'
      ? value
      : refuse(name, value ?? undefined, `a whole number, since model_type = "${fields.model_type}"`);
  };
  const experts = parseExperts(fields, required);
  if (experts && experts.topK > experts.routed) {
    refuse('num_experts_per_tok', experts.topK, `at most the ${experts.routed} routed experts`);
  }
  if (experts && (experts.routed % experts.groups !== 0 || experts.topGroups > experts.groups)) {
    refuse('n_group', experts.groups, `a divisor of ${experts.routed}, and at least topk_group`);
  }
  const layers = fields.num_hidden_layers;
  const denseLayers = experts ? Math.min(fields.first_k_dense_replace ?? 0, layers) : layers;
  const attention = parseAttention(fields, required);
  if (attention.kind === 'grouped' && attention.heads % attention.kvHeads !== 0) {
    refuse('num_key_value_heads', attention.kvHeads, `a divisor of num_attention_heads = ${attention.heads}`);
  }
  return {
    modelType: fields.model_type,
    layers,
    hidden: fields.hidden_size,
    vocab: fields.vocab_size,
    tied: fields.tie_word_embeddings ?? false,
    attention,
    denseWidth: denseLayers > 0 ? required('intermediate_size') : 0,
    denseLayers,
    experts,
    mtpLayers: fields.num_nextn_predict_layers ?? 0,
  };
}

const size = (max: number) => whole(1, max).nullish();

const configFields = z.object({
  model_type: oneOf(MODEL_TYPES),
  vocab_size: whole(1, LIMITS.vocab),
  hidden_size: whole(1, LIMITS.width),
  num_hidden_layers: whole(1, LIMITS.layers),
  num_attention_heads: whole(1, LIMITS.heads),
  num_key_value_heads: size(LIMITS.heads),
  head_dim: size(LIMITS.headDim),
  intermediate_size: size(LIMITS.width),
  tie_word_embeddings: flag().nullish(),
  moe_intermediate_size: size(LIMITS.width),
  first_k_dense_replace: whole(0, LIMITS.layers).nullish(),
  n_routed_experts: whole(0, LIMITS.experts).nullish(),
  num_local_experts: size(LIMITS.experts),
  num_experts: size(LIMITS.experts),
  n_shared_experts: whole(0, LIMITS.experts).nullish(),
  num_experts_per_tok: size(LIMITS.experts),
  n_group: size(LIMITS.experts),
  topk_group: size(LIMITS.experts),
  q_lora_rank: whole(0, LIMITS.width).nullish(),
  kv_lora_rank: size(LIMITS.width),
  qk_nope_head_dim: size(LIMITS.headDim),
  qk_rope_head_dim: size(LIMITS.headDim),
  v_head_dim: size(LIMITS.headDim),
  num_nextn_predict_layers: whole(0, 16).nullish(),
  index_n_heads: size(LIMITS.heads),
  index_head_dim: size(LIMITS.headDim),
  index_topk: size(LIMITS.positions),
  o_lora_rank: size(LIMITS.width),
  o_groups: size(LIMITS.heads),
  sliding_window: size(LIMITS.positions),
  compress_ratios: z.array(whole(0, LIMITS.positions), 'an array of whole numbers').nullish(),
  compress_ratio_counts: z.record(z.string(), whole(0, LIMITS.layers)).nullish(),
});
type Fields = z.infer<typeof configFields>;
type Required = (name: keyof Fields) => number;

function parseAttention(fields: Fields, required: Required): Attention {
  const heads = fields.num_attention_heads;
  const indexer = () => ({
    heads: required('index_n_heads'),
    dim: required('index_head_dim'),
    topK: required('index_topk'),
  });
  switch (fields.model_type) {
    case 'deepseek_v2':
    case 'deepseek_v3':
    case 'deepseek_v32':
      return {
        kind: 'mla',
        heads,
        qRank: fields.q_lora_rank ? fields.q_lora_rank : null,
        kvRank: required('kv_lora_rank'),
        nopeDim: required('qk_nope_head_dim'),
        ropeDim: required('qk_rope_head_dim'),
        valueDim: required('v_head_dim'),
        indexer: fields.model_type === 'deepseek_v32' ? indexer() : null,
      };
    case 'deepseek_v4':
      return {
        kind: 'compressed',
        heads,
        headDim: required('head_dim'),
        qRank: required('q_lora_rank'),
        outRank: required('o_lora_rank'),
        outGroups: required('o_groups'),
        indexer: indexer(),
        window: required('sliding_window'),
        layersByRatio: layersByRatio(fields),
      };
    default: {
      const kvHeads = fields.num_key_value_heads ?? heads;
      const headDim = fields.head_dim ?? Math.floor(fields.hidden_size / heads);
      return {
        kind: 'grouped',
        heads,
        kvHeads,
        headDim,
        vectors: attentionVectors(fields, heads, kvHeads, headDim),
        slidingWindow: fields.model_type === 'gpt_oss' ? (fields.sliding_window ?? null) : null,
      };
    }
  }
}

/** From the ratio of every layer, or from how many layers have each, as the shipped configs say it. */
function layersByRatio({ compress_ratios: ratios, compress_ratio_counts: counted }: Fields) {
  const counts = new Map(Object.entries(counted ?? {}).map(([ratio, layers]) => [Number(ratio), layers]));
  for (const ratio of ratios ?? []) counts.set(ratio, (counts.get(ratio) ?? 0) + 1);
  return [...counts].map(([ratio, layers]) => ({ ratio, layers }));
}

/** Qwen2 has biases on q, k and v; gpt-oss on o too, and a sink for every head; Qwen3 a norm on queries and keys. */
function attentionVectors(fields: Fields, heads: number, kvHeads: number, headDim: number): number {
  const qkv = (heads + 2 * kvHeads) * headDim;
  switch (fields.model_type) {
    case 'qwen2':
      return qkv;
    case 'qwen3':
    case 'qwen3_moe':
      return 2 * headDim;
    case 'gpt_oss':
      return qkv + fields.hidden_size + heads;
    default:
      return 0;
  }
}

function parseExperts(fields: Fields, required: Required): Experts | null {
  const common = {
    topK: fields.num_experts_per_tok ?? 1,
    groups: fields.n_group ?? 1,
    topGroups: fields.topk_group ?? 1,
  };
  const hidden = fields.hidden_size;
  switch (fields.model_type) {
    case 'mixtral':
    case 'gpt_oss': {
      const routed = required('num_local_experts');
      const width = required('intermediate_size');
      const isOss = fields.model_type === 'gpt_oss';
      const expertVector = isOss ? 2 * width + hidden : 0;
      const routerVector = isOss ? routed : 0;
      return { ...common, topK: required('num_experts_per_tok'), routed, shared: 0, width, expertVector, routerVector };
    }
    case 'qwen3_moe': {
      const routed = required('num_experts');
      const width = required('moe_intermediate_size');
      return {
        ...common,
        topK: required('num_experts_per_tok'),
        routed,
        shared: 0,
        width,
        expertVector: 0,
        routerVector: 0,
      };
    }
    case 'deepseek':
    case 'deepseek_v2':
    case 'deepseek_v3':
    case 'deepseek_v32':
    case 'deepseek_v4': {
      const routed = fields.n_routed_experts ?? 0;
      if (routed === 0) return null;
      return {
        ...common,
        topK: required('num_experts_per_tok'),
        routed,
        shared: fields.n_shared_experts ?? 0,
        width: required('moe_intermediate_size'),
        expertVector: 0,
        // The correction bias of auxiliary-loss-free balancing, from V3 on.
        routerVector: fields.model_type === 'deepseek' || fields.model_type === 'deepseek_v2' ? 0 : routed,
      };
    }
    default:
      return null;
  }
}
