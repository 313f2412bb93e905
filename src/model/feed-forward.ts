/** The gated feed-forward block (SwiGLU) that dense layers and shared experts have in common. */
import type { Graph, Tensor } from '../backend/graph.ts';
import { linear, siluMul } from '../backend/ops.ts';
import type { Weights } from './weights.ts';

/** down(silu(gate(x)) · up(x)), the three projections under `prefix`. */
export function feedForward(graph: Graph, weights: Weights, prefix: string, x: Tensor): Tensor {
  const project = (input: Tensor, name: string) => linear(graph, input, weights.linear(`${prefix}.${name}`));
  return project(siluMul(graph, project(x, 'gate_proj'), project(x, 'up_proj')), 'down_proj');
}
