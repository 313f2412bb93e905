/** The dense family of the R1 distills: Llama, Qwen2, Qwen3. Grouped-query attention, SwiGLU, RMSNorm. */
import { asLayer, type Tensor } from '../backend/graph.ts';
import { add, causalAttention, embed, linear, pagedAttention, rmsNorm, rope, writeCache } from '../backend/ops.ts';
import type { DenseConfig } from './config.ts';
import { feedForward } from './feed-forward.ts';
import type { Pass } from './pass.ts';

/** Embedding, all decoder layers, final norm. @returns f32 [tokens, hidden] */
export function denseForward(pass: Pass<DenseConfig>): Tensor {
  const { graph, config, weights, inputs } = pass;
  const norm = (x: Tensor, name: string) => rmsNorm(graph, x, weights.vector(`${name}.weight`), config.rmsNormEps);
  let x = embed(graph, inputs.ids, weights.table('model.embed_tokens'));
  const decoderLayer = (i: number) => {
    const prefix = `model.layers.${i}`;
    const attended = add(graph, x, selfAttention(pass, i, norm(x, `${prefix}.input_layernorm`)));
    const normed = norm(attended, `${prefix}.post_attention_layernorm`);
    return add(graph, attended, feedForward(graph, weights, `${prefix}.mlp`, normed));
  };
  for (let i = 0; i < config.numHiddenLayers; i++) x = asLayer(graph, () => decoderLayer(i));
  return norm(x, 'model.norm');
}

function selfAttention(pass: Pass<DenseConfig>, layer: number, x: Tensor): Tensor {
  const { graph, config, weights, inputs } = pass;
  const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim } = config;
  const { positions, frequencies, attention } = inputs;
  const { magnitude, softmaxScale } = pass.rope;
  const prefix = `model.layers.${layer}.self_attn`;
  const project = (name: string) =>
    linear(
      graph,
      x,
      weights.linear(`${prefix}.${name}`),
      config.qkvBias ? weights.vector(`${prefix}.${name}.bias`) : null,
    );
  const positioned = (projected: Tensor, name: string, count: number) => {
    const normed = config.qkNorm
      ? rmsNorm(graph, projected, weights.vector(`${prefix}.${name}.weight`), config.rmsNormEps)
      : projected;
    return rope(graph, normed, positions, frequencies, {
      heads: count,
      headDim,
      offset: 0,
      interleaved: false,
      magnitude,
    });
  };
  const queries = positioned(project('q_proj'), 'q_norm', heads);
  const keys = positioned(project('k_proj'), 'k_norm', kvHeads);
  const values = project('v_proj');

  let mixed: Tensor;
  if (attention.kind === 'paged') {
    const [keyCache, valueCache] = attention.caches[layer]!;
    writeCache(graph, keys, attention.paging.slots, keyCache!);
    writeCache(graph, values, attention.paging.slots, valueCache!);
    mixed = pagedAttention(graph, queries, keyCache!, valueCache!, attention.paging, {
      heads,
      kvHeads,
      headDim,
      softmaxScale,
    });
  } else {
    mixed = causalAttention(graph, queries, keys, null, values, attention.starts, {
      heads,
      kvHeads,
      qkDim: headDim,
      sharedDim: 0,
      vDim: headDim,
      keyStride: headDim,
      valueStride: headDim,
      softmaxScale,
    });
  }
  return linear(graph, mixed, weights.linear(`${prefix}.o_proj`));
}
