/** What a forward pass asks of a set of weights, by the checkpoint's own names (without `.weight`). */
import type { Tensor } from '../backend/graph.ts';

export interface Weights {
  /** Packed [n, k] of `name.weight`; `precise` ones (the router) stay f32 in every compute mode. */
  linear(name: string, precise?: 'precise'): Tensor;
  /** f32 [1, n] of `name` in full: norms, biases, the router's selection bias. */
  vector(name: string): Tensor;
  /** Row-major [vocab, hidden] of `name.weight`. */
  table(name: string): Tensor;
  /**
   * One head's part of a kv_b_proj, packed for absorbed attention: `key` maps a query [qkNopeHeadDim] into the
   * latent space [kvLoraRank]; `value` maps a latent [kvLoraRank] to [vHeadDim].
   */
  head(name: string, head: number, part: 'key' | 'value'): Tensor;
}
