/**
 * DeepSeek-V2 and V3: multi-head latent attention, fine-grained experts, multi-token prediction.
 * DeepSeek-V2 report §2.1–2.2, DeepSeek-V3 report §2.1–2.2; tensor names as published.
 */
import { asLayer, columns, type Tensor } from '../backend/graph.ts';
import {
  add,
  causalAttention,
  combineExperts,
  concat,
  type ExpertPlan,
  embed,
  expertLinear,
  groupByExpert,
  headLinear,
  latentAttention,
  linear,
  type Routed,
  rmsNorm,
  rope,
  routeTokens,
  selectRows,
  siluMul,
  writeLatent,
} from '../backend/ops.ts';
import { type DeepSeekConfig, isMoeLayer } from './config.ts';
import { feedForward } from './feed-forward.ts';
import type { Pass, PickedRows } from './pass.ts';

/** The norms inside attention have their own epsilon, whatever rms_norm_eps says. */
const LATENT_NORM_EPS = 1e-6;

/** Where one MoE layer sent its tokens, for load metrics, balancing and tests. */
export interface LayerRoute extends Routed {
  readonly layer: number;
  readonly logits: Tensor;
  readonly plan: ExpertPlan;
}

export interface Hidden {
  /** f32 [tokens, hidden], after the final norm: the input of the head and of the MTP module. */
  readonly hidden: Tensor;
  readonly routes: readonly LayerRoute[];
}

/** Embedding, all decoder layers, final norm. */
export function deepseekForward(pass: Pass<DeepSeekConfig>): Hidden {
  const { graph, config, weights, inputs } = pass;
  const routes: LayerRoute[] = [];
  let x = embed(graph, inputs.ids, weights.table('model.embed_tokens'));
  for (let i = 0; i < config.numHiddenLayers; i++) x = asLayer(graph, () => decoderLayer(pass, i, x, routes));
  return { hidden: rmsNorm(graph, x, weights.vector('model.norm.weight'), config.rmsNormEps), routes };
}

/**
 * MTP module `depth` (V3 report §2.2, eq. 21–23): from the hidden state at position i and the token at i + 1 + depth,
 * the hidden state that predicts the token after it.
 * @param hidden f32 [tokens, hidden] of the previous depth, after its final norm
 * @param nextIds i32 [tokens, 1]
 * @param picked the rows whose hidden states are wanted, where that is not all of them
 */
export function deepseekMtp(
  pass: Pass<DeepSeekConfig>,
  depth: number,
  hidden: Tensor,
  nextIds: Tensor,
  picked?: PickedRows,
): Hidden {
  const { graph, config, weights } = pass;
  const layer = config.numHiddenLayers + depth;
  const prefix = `model.layers.${layer}`;
  const norm = (x: Tensor, name: string) =>
    rmsNorm(graph, x, weights.vector(`${prefix}.${name}.weight`), config.rmsNormEps);
  const routes: LayerRoute[] = [];
  const next = embed(graph, nextIds, weights.table('model.embed_tokens'));
  const joined = concat(graph, norm(next, 'enorm'), norm(hidden, 'hnorm'));
  const projected = linear(graph, joined, weights.linear(`${prefix}.eh_proj`));
  const x = asLayer(graph, () => decoderLayer(pass, layer, projected, routes, picked));
  return { hidden: norm(x, 'shared_head.norm'), routes };
}

function decoderLayer(
  pass: Pass<DeepSeekConfig>,
  layer: number,
  x: Tensor,
  routes: LayerRoute[],
  picked?: PickedRows,
): Tensor {
  const { graph, config, weights } = pass;
  const prefix = `model.layers.${layer}`;
  const norm = (input: Tensor, name: string) =>
    rmsNorm(graph, input, weights.vector(`${prefix}.${name}.weight`), config.rmsNormEps);
  const rows = picked ? selectRows(graph, x, picked.index) : x;
  const attended = add(graph, rows, latentSelfAttention(pass, layer, norm(x, 'input_layernorm'), picked));
  const normed = norm(attended, 'post_attention_layernorm');
  const mixed = isMoeLayer(config, layer)
    ? mixtureOfExperts(pass, layer, normed, routes)
    : feedForward(graph, weights, `${prefix}.mlp`, normed);
  return add(graph, attended, mixed);
}

/**
 * Multi-head latent attention (V2 report §2.1). Over a cache the key and value projections are absorbed into the
 * queries and outputs, so a token holds kv_lora_rank + qk_rope_head_dim values; over whole sequences keys and
 * values are expanded, which is cheaper there. Both are the same function of the weights.
 */
function latentSelfAttention(pass: Pass<DeepSeekConfig>, layer: number, x: Tensor, picked?: PickedRows): Tensor {
  const { graph, config, weights, inputs } = pass;
  const { numAttentionHeads: heads, kvLoraRank, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = config;
  const { positions, frequencies, attention } = inputs;
  const { magnitude, softmaxScale } = pass.rope;
  const prefix = `model.layers.${layer}.self_attn`;
  const qkDim = qkNopeHeadDim + qkRopeHeadDim;
  const rotated = { interleaved: true, magnitude };

  const asking = picked ? selectRows(graph, x, picked.index) : x;
  const first = linear(graph, asking, weights.linear(`${prefix}.${config.qLoraRank === null ? 'q_proj' : 'q_a_proj'}`));
  const compressed = linear(graph, x, weights.linear(`${prefix}.kv_a_proj_with_mqa`));
  const latent = latentNorm(pass, `${prefix}.kv_a_layernorm`, columns(compressed, 0, kvLoraRank));
  const sharedKey = rope(graph, columns(compressed, kvLoraRank, qkRopeHeadDim), positions, frequencies, {
    heads: 1,
    headDim: qkRopeHeadDim,
    offset: 0,
    ...rotated,
  });
  const projected =
    config.qLoraRank === null
      ? first
      : linear(graph, latentNorm(pass, `${prefix}.q_a_layernorm`, first), weights.linear(`${prefix}.q_b_proj`));
  const queries = rope(graph, projected, picked?.paging.positions ?? positions, frequencies, {
    heads,
    headDim: qkDim,
    offset: qkNopeHeadDim,
    ...rotated,
  });
  const kvProjection = `${prefix}.kv_b_proj`;

  let mixed: Tensor;
  if (attention.kind === 'paged') {
    const cache = attention.caches[layer]![0]!;
    const perHead = (part: 'key' | 'value') =>
      Array.from({ length: heads }, (_, h) => weights.head(kvProjection, h, part));
    writeLatent(graph, latent, sharedKey, attention.paging.slots, cache);
    const absorbed = headLinear(graph, queries, perHead('key'), qkDim, 0);
    const attended = latentAttention(graph, absorbed, queries, cache, picked?.paging ?? attention.paging, {
      heads,
      kvLoraRank,
      ropeDim: qkRopeHeadDim,
      queryHeadDim: qkDim,
      queryRopeOffset: qkNopeHeadDim,
      softmaxScale,
    });
    mixed = headLinear(graph, attended, perHead('value'), kvLoraRank, 0);
  } else {
    const expanded = linear(graph, latent, weights.linear(kvProjection));
    const stride = qkNopeHeadDim + vHeadDim;
    const values = columns(expanded, qkNopeHeadDim, expanded.cols - qkNopeHeadDim);
    mixed = causalAttention(graph, queries, expanded, sharedKey, values, attention.starts, {
      heads,
      kvHeads: heads,
      qkDim,
      sharedDim: qkRopeHeadDim,
      vDim: vHeadDim,
      keyStride: stride,
      valueStride: stride,
      softmaxScale,
    });
  }
  return linear(graph, mixed, weights.linear(`${prefix}.o_proj`));
}

function latentNorm(pass: Pass<DeepSeekConfig>, name: string, x: Tensor): Tensor {
  return rmsNorm(pass.graph, x, pass.weights.vector(`${name}.weight`), LATENT_NORM_EPS);
}

/** Routed experts chosen per token, plus the shared expert that every token passes (V2 report §2.2). */
function mixtureOfExperts(pass: Pass<DeepSeekConfig>, layer: number, x: Tensor, routes: LayerRoute[]): Tensor {
  const { graph, config, weights } = pass;
  const prefix = `model.layers.${layer}.mlp`;
  const logits = linear(graph, x, weights.linear(`${prefix}.gate`, 'precise'), null, 'f32');
  const shared = config.nSharedExperts > 0 ? feedForward(graph, weights, `${prefix}.shared_experts`, x) : null;
  const selectionOnly = config.topkMethod === 'noaux_tc';
  const bias = selectionOnly ? weights.vector(`${prefix}.gate.e_score_correction_bias`) : null;
  const limited = config.topkMethod !== 'greedy';
  const routed = routeTokens(graph, logits, bias, {
    topK: config.numExpertsPerTok,
    groups: limited ? config.nGroup : 1,
    topGroups: limited ? config.topkGroup : 1,
    scoring: config.scoringFunc,
    groupScore: selectionOnly ? 'top2' : 'max',
    normalise: config.normTopkProb,
    scale: config.routedScalingFactor,
  });
  const plan = groupByExpert(graph, routed.experts, config.nRoutedExperts);
  routes.push({ layer, logits, plan, ...routed });
  const each = (projection: string) =>
    Array.from({ length: config.nRoutedExperts }, (_, e) => weights.linear(`${prefix}.experts.${e}.${projection}`));
  const gate = expertLinear(graph, x, plan, each('gate_proj'), true);
  const up = expertLinear(graph, x, plan, each('up_proj'), true);
  const down = expertLinear(graph, siluMul(graph, gate, up), plan, each('down_proj'), false);
  const mixed = combineExperts(graph, down, plan, routed.weights);
  return shared ? add(graph, mixed, shared) : mixed;
}
