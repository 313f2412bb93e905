/**
 * Reverse-mode differentiation of a graph: walks the ops backwards and appends, for each, the ops that carry the
 * gradient of what it wrote to what it read. The rules are in backward-rules.ts.
 */
import { type Graph, type Op, type Storage, type Tensor, temp } from '../backend/graph.ts';
import { backwardRules } from './backward-rules.ts';
import { copyOfLayer, opsNeeded } from './recompute.ts';

const isWhole = ({ storage, cols }: Tensor) => cols === storage.cols;

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
  /** The same for a kernel that reads what there was: null where nothing has arrived yet. */
  intoAfter(tensor: Tensor): { readonly gradient: Tensor; readonly before: Tensor | null };
  /** Adds `dy` to the gradient of a read tensor. Where nothing has arrived yet it becomes that gradient, and nothing is copied. */
  passOn(tensor: Tensor, dy: Tensor): void;
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
  const passedOn = new Set<Storage>(); // gradients of several tensors, not to be written any more
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
  const replaced = ({ storage }: Tensor): Tensor => {
    const gradient = temp(storage.rows, storage.cols);
    gradients.set(storage, gradient);
    return gradient;
  };
  const backward: Backward = {
    graph,
    append,
    arrived(tensor) {
      const gradient = gradients.get(tensor.storage);
      return gradient ? view(gradient, tensor) : null;
    },
    into(tensor) {
      const before = gradients.get(tensor.storage);
      if (before && !passedOn.has(before.storage)) return view(before, tensor);
      const gradient = replaced(tensor);
      append(before ? 'accumulate' : 'fill', [gradient], before ? [before] : [], [0]);
      return view(gradient, tensor);
    },
    intoOrOver(tensor) {
      if (gradients.has(tensor.storage) || !isWhole(tensor)) return { gradient: this.into(tensor), sum: 1 };
      return { gradient: replaced(tensor), sum: 0 };
    },
    intoAfter(tensor) {
      const before = this.arrived(tensor);
      const inPlace = before !== null && !passedOn.has(before.storage);
      if (!inPlace && isWhole(tensor)) return { gradient: replaced(tensor), before };
      const gradient = this.into(tensor);
      return { gradient, before: gradient };
    },
    passOn(tensor, dy) {
      if (!gradients.has(tensor.storage) && isWhole(tensor) && isWhole(dy)) {
        gradients.set(tensor.storage, dy);
        passedOn.add(dy.storage);
        return;
      }
      const { gradient, sum } = this.intoOrOver(tensor);
      append('accumulate', [gradient], [dy], [sum]);
    },
    fresh(tensor) {
      if (gradients.has(tensor.storage)) throw new Error('a second gradient arrives where one rule fills it alone');
      return view(replaced(tensor), tensor);
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
