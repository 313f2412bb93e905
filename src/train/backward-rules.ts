/** For each operation of backend/ops.ts, the ops that carry its gradient back. Views are in the order of the op. */
import { fp8Outer, quantise, restored } from '../backend/fp8-ops.ts';
import { columns, type Op, rowsOf, type Tensor, temp } from '../backend/graph.ts';
import type { Backward } from './autograd.ts';

type Rule = (op: Op, backward: Backward) => void;

const written = (op: Op, i = 0): Tensor => present(op, op.writes[i]);
const read = (op: Op, i: number): Tensor => present(op, op.reads[i]);

function present(op: Op, tensor: Tensor | null | undefined): Tensor {
  if (!tensor) throw new Error(`"${op.kernel}" lacks an operand`);
  return tensor;
}

/** The gradient of the op's first result; rules run only when it has arrived. */
const incoming = (op: Op, backward: Backward): Tensor => present(op, backward.arrived(written(op)));

const embed: Rule = (op, backward) => {
  const table = backward.parameter(read(op, 1)).gradient;
  backward.append('embed_backward', [table], [incoming(op, backward), read(op, 0)]);
};

/** Pieces of the rows over which gradients of norms are summed, whatever the number of threads. */
const NORM_PIECES = 32;

const rmsNorm: Rule = (op, backward) => {
  const [x, weight] = [read(op, 0), read(op, 1)];
  const dWeight = backward.parameter(weight).gradient;
  const dy = incoming(op, backward);
  const dx = backward.intoAfter(x);
  const partial = temp(rowsOf(null, NORM_PIECES), weight.cols);
  backward.append('rms_norm_backward', [dx.gradient, dWeight, partial], [dy, x, weight, dx.before], [...op.scalars]);
};

const linear: Rule = (op, backward) => {
  const [x, weight, bias] = [read(op, 0), read(op, 1), op.reads[2]];
  const dy = incoming(op, backward);
  const [fast = 0] = op.scalars;
  const { gradient, transposed } = backward.parameter(weight);
  const dx = backward.intoOrOver(x);
  backward.append('linear', [dx.gradient], [dy, present(op, transposed), null], [fast, dx.sum]);
  backward.append('outer', [gradient], [dy, x], [fast]);
  if (bias) backward.append('column_sums', [backward.parameter(bias).gradient], [dy]);
};

const fp8Linear: Rule = (op, backward) => {
  const [weight, bias] = [read(op, 2), op.reads[3]];
  const { gradient, transposed } = backward.parameter(weight);
  const { fp8, dy, tiles, x, cached } = fp8Operands(op, backward, weight);
  const dx = backward.intoOrOver(x);
  backward.append('fp8_linear', [dx.gradient], [tiles.codes, tiles.scales, present(op, transposed), null], [dx.sum]);
  fp8Outer(backward.graph, fp8, [gradient], dy, cached, null);
  if (bias) backward.append('column_sums', [backward.parameter(bias).gradient], [dy]);
};

const fp8ExpertLinear: Rule = (op, backward) => {
  const [order, offsets] = [read(op, 2), read(op, 3)];
  const weights = op.reads.slice(4).map((weight) => backward.parameter(present(op, weight)));
  const [topK = 0] = op.scalars;
  const { fp8, dy, tiles, x, cached } = fp8Operands(op, backward, read(op, 4));
  const reads = [tiles.codes, tiles.scales, order, offsets, ...weights.map(({ transposed }) => transposed)];
  if (topK === 0) {
    const dx = backward.intoOrOver(x);
    backward.append('fp8_expert_linear', [dx.gradient], reads, [0, dx.sum]);
  } else {
    const dSorted = temp(order.storage.rows, x.cols);
    const place = written(backward.writerOf(order), 1);
    backward.append('fp8_expert_linear', [dSorted], reads, [0, 0]);
    scatter(backward, x, dSorted, place);
  }
  const gradients = weights.map(({ gradient }) => gradient);
  fp8Outer(backward.graph, fp8, gradients, dy, cached, { order, offsets, topK });
};

/** Adds a token's slots to the gradient of its row. */
function scatter(backward: Backward, x: Tensor, dSorted: Tensor, place: Tensor): void {
  const { gradient, sum } = backward.intoOrOver(x);
  backward.append('scatter_slots', [gradient], [dSorted, place], [sum]);
}

function fp8Operands(op: Op, backward: Backward, weight: Tensor) {
  const { graph } = backward;
  const { fp8 } = graph;
  if (!fp8) throw new Error(`"${op.kernel}" in a graph without FP8`);
  const dy = incoming(op, backward);
  const x = read(backward.writerOf(read(op, 0)), 0);
  const cached = fp8.kept.has(x) ? x : { codes: read(op, 0), scales: read(op, 1) };
  const tiles = quantise(graph, fp8, dy, 'gradient of the output', weight);
  return { fp8, dy, tiles, x, cached };
}

const rope: Rule = (op, backward) => {
  const [x, positions, frequencies] = [read(op, 0), read(op, 1), read(op, 2)];
  const scalars = [...op.scalars.slice(0, -1), -1];
  const dx = backward.intoOrOver(x);
  const turned = dx.sum ? temp(x.storage.rows, x.cols) : dx.gradient;
  backward.append('rope', [turned], [incoming(op, backward), positions, frequencies], scalars);
  if (dx.sum) backward.append('accumulate', [dx.gradient], [turned], [1]);
};

const siluMul: Rule = (op, backward) => {
  const [gate, up] = [read(op, 0), read(op, 1)];
  const values = [gate, up].map((x) => restored(backward.graph, x));
  const dy = incoming(op, backward);
  const [dGate, dUp] = [backward.intoOrOver(gate), backward.intoOrOver(up)];
  const reads = [dy, present(op, values[0]), present(op, values[1])];
  backward.append('silu_mul_backward', [dGate.gradient, dUp.gradient], reads, [dGate.sum, dUp.sum]);
};

const add: Rule = (op, backward) => {
  const dy = incoming(op, backward);
  for (const i of [0, 1]) backward.passOn(read(op, i), dy);
};

const concat: Rule = (op, backward) => {
  const [a, b] = [read(op, 0), read(op, 1)];
  const dy = incoming(op, backward);
  backward.passOn(a, columns(dy, 0, a.cols));
  backward.passOn(b, columns(dy, a.cols, b.cols));
};

/** The selection itself has no gradient; only the chosen experts' weights carry one to the logits. */
const routeTokens: Rule = (op, backward) => {
  const [experts, weights] = [written(op, 0), written(op, 1)];
  const logits = read(op, 0);
  const dWeights = present(op, backward.arrived(weights));
  backward.append(
    'route_tokens_backward',
    [backward.into(logits)],
    [dWeights, logits, experts, weights],
    [...op.scalars],
  );
};

const balanceLoss: Rule = (op, backward) => {
  const [logits, experts] = [read(op, 0), read(op, 1)];
  const reads = [incoming(op, backward), logits, experts];
  backward.append('balance_loss_backward', [backward.into(logits)], reads, [...op.scalars]);
};

const expertLinear: Rule = (op, backward) => {
  const [x, order, offsets] = [read(op, 0), read(op, 1), read(op, 2)];
  const weights = op.reads.slice(3).map((weight) => backward.parameter(present(op, weight)));
  const [fast = 0, gatherTopK = 0] = op.scalars;
  const dy = incoming(op, backward);
  const transposed = weights.map((weight) => weight.transposed);
  if (gatherTopK === 0) {
    const dx = backward.intoOrOver(x);
    backward.append('expert_linear', [dx.gradient], [dy, order, offsets, ...transposed], [fast, 0, dx.sum]);
  } else {
    const dSorted = temp(order.storage.rows, x.cols);
    const place = written(backward.writerOf(order), 1);
    backward.append('expert_linear', [dSorted], [dy, order, offsets, ...transposed], [fast, 0, 0]);
    scatter(backward, x, dSorted, place);
  }
  const gradients = weights.map((weight) => weight.gradient);
  backward.append('expert_outer', gradients, [dy, x, order, offsets], [fast, gatherTopK, weights.length]);
};

const combineExperts: Rule = (op, backward) => {
  const [sorted, place, weights] = [read(op, 0), read(op, 1), read(op, 2)];
  const order = written(backward.writerOf(place), 0);
  const dSorted = backward.intoOrOver(sorted);
  const reads = [incoming(op, backward), sorted, order, place, weights];
  backward.append('combine_experts_backward', [dSorted.gradient, backward.into(weights)], reads, [dSorted.sum]);
};

const causalAttention: Rule = (op, backward) => {
  const [out, logSums] = [written(op, 0), written(op, 1)];
  const [queries, keys, shared, values, starts] = [
    read(op, 0),
    read(op, 1),
    op.reads[2] ?? null,
    read(op, 3),
    read(op, 4),
  ];
  const delta = temp(rowsOf(out.storage.rows.axis, out.storage.rows.times), logSums.cols);
  const dy = incoming(op, backward);
  const dQueries = backward.intoOrOver(queries);
  const dShared = shared && backward.intoOrOver(shared);
  const [dKeys, dValues, sum] = intoKeysAndValues(op, backward, keys, values);
  backward.append(
    'causal_attention_backward',
    [dQueries.gradient, dKeys, dShared?.gradient ?? null, dValues, delta],
    [dy, out, logSums, queries, keys, shared, values, starts],
    [...op.scalars, dQueries.sum, sum, dShared?.sum ?? 0],
  );
};

/** The gradients of keys and values, and 0 where they are overwritten: side by side they are the whole of a tensor. */
function intoKeysAndValues(op: Op, backward: Backward, keys: Tensor, values: Tensor): [Tensor, Tensor, number] {
  const [, kvHeads = 0, qkDim = 0, sharedDim = 0, vDim = 0] = op.scalars;
  const { storage } = keys;
  const whole = values.storage === storage && kvHeads * (qkDim - sharedDim + vDim) === storage.cols;
  if (!whole || backward.arrived(keys)) return [backward.into(keys), backward.into(values), 1];
  return [backward.fresh(keys), backward.into(values), 0];
}

const crossEntropy: Rule = (op, backward) => {
  const [logits, targets] = [read(op, 0), read(op, 1)];
  backward.append('cross_entropy_backward', [backward.fresh(logits)], [logits, targets, incoming(op, backward)]);
};

export const backwardRules: Readonly<Record<string, Rule>> = {
  embed,
  rms_norm: rmsNorm,
  linear,
  rope,
  silu_mul: siluMul,
  add,
  concat,
  route_tokens: routeTokens,
  balance_loss: balanceLoss,
  expert_linear: expertLinear,
  fp8_linear: fp8Linear,
  fp8_expert_linear: fp8ExpertLinear,
  combine_experts: combineExperts,
  causal_attention: causalAttention,
  cross_entropy: crossEntropy,
};
