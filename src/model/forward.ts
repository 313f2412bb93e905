/** One entry for every architecture: hidden states from tokens, and logits from hidden states. */
import { type CacheDType, ELEMENT_BYTES, type Graph, resident, type Tensor } from '../backend/graph.ts';
import { allocate } from '../backend/native.ts';
import { latentCacheCols, linear } from '../backend/ops.ts';
import type { DeepSeekConfig, ModelConfig } from './config.ts';
import { deepseekForward, type Hidden } from './deepseek.ts';
import { denseForward } from './dense.ts';
import type { ForwardInputs } from './pass.ts';
import type { RopeSettings } from './rope.ts';
import type { Weights } from './weights.ts';

export function forward(
  graph: Graph,
  config: ModelConfig,
  rope: RopeSettings,
  weights: Weights,
  inputs: ForwardInputs,
): Hidden {
  return config.family === 'deepseek'
    ? deepseekForward({ graph, config, rope, weights, inputs })
    : { hidden: denseForward({ graph, config, rope, weights, inputs }), routes: [] };
}

/** The head: f32 [rows, vocab] from normed hidden states. Tied embeddings serve as the head where the config says so. */
export function head(graph: Graph, weights: Weights, hidden: Tensor): Tensor {
  return linear(graph, hidden, weights.linear('lm_head'));
}

/** Whether the checkpoint has a multi-token-prediction module to draft with. */
export function hasMtp(config: ModelConfig): config is DeepSeekConfig {
  return config.family === 'deepseek' && config.numNextnPredictLayers > 0;
}

/**
 * Columns of the tensors that hold what one token leaves in the cache of one layer: one latent row (MLA), or keys and
 * values.
 */
export function cacheCols(config: ModelConfig, dtype: CacheDType): readonly number[] {
  if (config.family === 'deepseek') return [latentCacheCols(dtype, config.kvLoraRank, config.qkRopeHeadDim)];
  const width = config.numKeyValueHeads * config.headDim;
  return [width, width];
}

/** Bytes that one token occupies in the cache over all layers, `mtpModules` that draft included. */
export function cacheBytesPerToken(config: ModelConfig, dtype: CacheDType, mtpModules = 0): number {
  const cols = cacheCols(config, dtype).reduce((sum, each) => sum + each, 0);
  return (config.numHiddenLayers + mtpModules) * cols * ELEMENT_BYTES[dtype];
}

/** The rotary frequencies as a tensor, f32 [1, rotary dim / 2]. */
export function frequencyTable(rope: RopeSettings): Tensor {
  const region = {
    buffer: allocate(rope.inverseFrequencies.length * 4),
    byteOffset: 0,
    byteLength: rope.inverseFrequencies.length * 4,
  };
  new Float32Array(region.buffer).set(rope.inverseFrequencies);
  return resident(1, rope.inverseFrequencies.length, 'f32', region);
}
