/** What a forward pass works with: the graph it extends, the configuration, the weights and the inputs. */
import type { Graph, Tensor } from '../backend/graph.ts';
import type { Paging } from '../backend/ops.ts';
import type { RopeSettings } from './rope.ts';
import type { Weights } from './weights.ts';

/** How the layers attend: over a paged cache (inference), or over whole packed sequences (training). */

type Attention =
  | {
      readonly kind: 'paged';
      readonly paging: Paging;
      /** The cache of layer i: MLA one tensor [rows, `latentCacheCols`]; otherwise keys and values. */
      readonly caches: readonly (readonly Tensor[])[];
    }
  | {
      readonly kind: 'causal';
      /** i32 [tokens, 1]: first row of each row's document. */
      readonly starts: Tensor;
    };

/** Rows that a layer computes whole; the others only leave their entry in its cache. */
export interface PickedRows {
  /** i32 [logit, 1]: rows of the step. */
  readonly index: Tensor;
  /** What the picked rows look back on, one row each. */
  readonly paging: Paging;
}

/** What enters a forward pass. */
export interface ForwardInputs {
  /** i32 [tokens, 1] each. */
  readonly ids: Tensor;
  readonly positions: Tensor;
  /** f32 [1, rotary dim / 2]. */
  readonly frequencies: Tensor;
  readonly attention: Attention;
}

export interface Pass<Config> {
  readonly graph: Graph;
  readonly config: Config;
  readonly rope: RopeSettings;
  readonly weights: Weights;
  readonly inputs: ForwardInputs;
}
