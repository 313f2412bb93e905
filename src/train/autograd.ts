/**
 * Reverse-mode differentiation of a graph: walks the ops backwards and appends, for each, the ops that carry the
 * gradient of what it wrote to what it read. The rules are in backward-rules.ts.
 */
import { type Graph, type Op, type Storage, type Tensor, temp } from '../backend/graph.ts';
import { backwardRules } from './backward-rules.ts';
import { copyOfLayer, opsNeeded } from './recompute.ts';

/** Where the gradient of a weight is summed, and the packed transpose that carries gradients past it. */
export interface ParameterGradient {
  /** f32, shaped as the master: [n, k] of a matrix, [1, n] of a vector, [vocab, hidden] of a table. */
  readonly gradient: Tensor;
  /** Packed [k, n]; null for vectors and tables. */
  readonly transposed: Tensor | null;
}

/** What a rule may do. Backward kernels add to what they write, so several uses of a tensor sum up by themselves. */
export interface Backward {
  readonly graph: Graph;
  /** The gradient that has arrived at a written tensor, or null if none has. */
  arrived(tensor: Tensor): Tensor | null;
  /** The gradient of a read tensor, to be added to; zeros at first. */
  into(tensor: Tensor): Tensor;
  /** The same for a kernel that can also overwrite: `sum` is 0 where nothing has arrived yet, and nothing was filled. */
  intoOrOver(tensor: Tensor): { readonly gradient: Tensor; readonly sum: number };
  /** The gradient of a read tensor that this rule alone fills, whole. */
  fresh(tensor: Tensor): Tensor;
  parameter(tensor: Tensor): ParameterGradient;
  append(kernel: string, writes: (Tensor | null)[], reads: (Tensor | null)[], scalars?: number[]): void;
  /** The op that wrote `tensor`. */
  writerOf(tensor: Tensor): Op;
}

/**
 * Appends to `graph` the gradient of Σ seeds · written with respect to `parameters`.
 * @param seeds f32 tensors of the same shape as the written tensors they belong to (losses)
 * @param parameters by the storage that ops read: packed matrices, vectors, tables
 * @param recompute the inner values of each layer are computed again, from its input, before its backward pass, so that
 *   none need be kept from the forward pass (Chen et al., arXiv 1604.06174); the gradients are the same to the bit
 * @returns where the gradient of any tensor of the graph ends up, or null for one that has none
 * @throws Error naming the kernel when an op on the way has no rule
 */
export function differentiate(
  graph: Graph,
  seeds: ReadonlyMap<Tensor, Tensor>,
  parameters: ReadonlyMap<Storage, ParameterGradient>,
  recompute = false,
): (tensor: Tensor) => Tensor | null {
  const forward = [...graph.ops];
  const gradients = new Map<Storage, Tensor>();
  for (const [tensor, seed] of seeds) gradients.set(tensor.storage, seed);
  const writers = new Map<Storage, Op>();
  for (const op of forward) for (const tensor of op.writes) if (tensor) writers.set(tensor.storage, op);

  const append: Backward['append'] = (kernel, writes, reads, scalars = []) => {
    graph.ops.push({ kernel, writes, reads, scalars });
  };
  const view = (gradient: Tensor, of: Tensor): Tensor => ({
    storage: gradient.storage,
    offset: of.offset,
    cols: of.cols,
  });
  const backward: Backward = {
    graph,
    append,
    arrived(tensor) {
      const gradient = gradients.get(tensor.storage);
      return gradient ? view(gradient, tensor) : null;
    },
    into(tensor) {
      let gradient = gradients.get(tensor.storage);
      if (!gradient) {
        gradient = temp(tensor.storage.rows, tensor.storage.cols);
        append('fill', [gradient], [], [0]);
        gradients.set(tensor.storage, gradient);
      }
      return view(gradient, tensor);
    },
    intoOrOver(tensor) {
      const whole = tensor.offset === 0 && tensor.cols === tensor.storage.cols;
      if (gradients.has(tensor.storage) || !whole) return { gradient: this.into(tensor), sum: 1 };
      return { gradient: this.fresh(tensor), sum: 0 };
    },
    fresh(tensor) {
      if (gradients.has(tensor.storage)) throw new Error('a second gradient arrives where one rule fills it alone');
      const gradient = temp(tensor.storage.rows, tensor.storage.cols);
      gradients.set(tensor.storage, gradient);
      return view(gradient, tensor);
    },
    parameter(tensor) {
      const parameter = parameters.get(tensor.storage);
      if (!parameter) throw new Error('an op reads a weight that is no parameter');
      return parameter;
    },
    writerOf(tensor) {
      const op = writers.get(tensor.storage);
      if (!op) throw new Error('no op wrote the tensor');
      return op;
    },
  };

  const carryBack = (op: Op) => {
    if (!op.writes.some((tensor) => tensor && gradients.has(tensor.storage))) return;
    const rule = backwardRules[op.kernel];
    if (!rule) throw new Error(`the operation "${op.kernel}" has no gradient`);
    rule(op, backward);
  };
  const layers = new Map((recompute ? graph.layers : []).map((layer) => [layer.last, layer]));
  for (let at = forward.length; at > 0; ) {
    const { first, last } = layers.get(at) ?? { first: at - 1, last: at };
    const again = layers.has(at) ? copyOfLayer(graph, forward, first, last) : null;
    const ops = again?.ops ?? forward.slice(first, last);
    if (again) for (const op of ops) for (const tensor of op.writes) if (tensor) writers.set(tensor.storage, op);
    const start = graph.ops.length;
    for (const op of ops.toReversed()) carryBack(op);
    if (again) graph.ops.splice(start, 0, ...opsNeeded(again, graph.ops.slice(start)));
    at = first;
  }
  return backward.arrived;
}
