/** Activation recomputation: a layer's forward ops once more, on memory of their own, for its backward pass to read. */
import type { Quantised } from '../backend/fp8-ops.ts';
import type { Graph, Op, Storage, Tensor } from '../backend/graph.ts';

interface LayerCopy {
  /** The layer's ops; what they write and nobody outside reads lies in new memory. */
  readonly ops: readonly Op[];
  /** That new memory. */
  readonly fresh: ReadonlySet<Storage>;
}

/** @param forward the ops of the forward pass, of which [first, last) are the layer */
export function copyOfLayer(graph: Graph, forward: readonly Op[], first: number, last: number): LayerCopy {
  const readOutside = new Set<Storage>();
  forward.forEach(({ reads }, at) => {
    if (at >= first && at < last) return;
    for (const tensor of reads) if (tensor) readOutside.add(tensor.storage);
  });
  const copies = new Map<Storage, Storage>();
  const layer = forward.slice(first, last);
  for (const { writes } of layer) {
    for (const tensor of writes) {
      if (tensor?.storage.memory !== 'temp' || readOutside.has(tensor.storage)) continue;
      copies.set(tensor.storage, copies.get(tensor.storage) ?? { ...tensor.storage });
    }
  }
  // one copy of each view, since FP8 knows its tiles by the view they are of
  const views = new Map<Tensor, Tensor>();
  const copy = <T extends Tensor | null>(tensor: T): T => {
    const storage = tensor && copies.get(tensor.storage);
    if (!tensor || !storage) return tensor;
    const view = views.get(tensor) ?? { ...tensor, storage };
    views.set(tensor, view);
    return view as T;
  };
  const ops = layer.map((op) => ({ ...op, writes: op.writes.map(copy), reads: op.reads.map(copy) }));
  const quantised = graph.fp8?.quantised ?? new Map<Tensor, Quantised>();
  const kept = graph.fp8?.kept ?? new Set<Tensor>();
  for (const [x, { codes, scales }] of [...quantised]) {
    if (copies.has(codes.storage)) quantised.set(copy(x), { codes: copy(codes), scales: copy(scales) });
  }
  for (const x of [...kept]) kept.add(copy(x));
  return { ops, fresh: new Set(copies.values()) };
}

/** Those of the copied ops on which `readers` depend. */
export function opsNeeded({ ops, fresh }: LayerCopy, readers: readonly Op[]): Op[] {
  const wanted = new Set<Storage>();
  const want = ({ reads }: Op) => {
    for (const tensor of reads) if (tensor && fresh.has(tensor.storage)) wanted.add(tensor.storage);
  };
  readers.forEach(want);
  const needed: Op[] = [];
  for (const op of ops.toReversed()) {
    if (!op.writes.some((tensor) => tensor && wanted.has(tensor.storage))) continue;
    want(op);
    needed.push(op);
  }
  return needed.reverse();
}
