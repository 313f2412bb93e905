/**
 * Token data for training: documents in a row, cut into windows of equal length. A token attends within its document
 * only, and the order of documents and windows is a function of (seed, epoch), so a run can stop and go on anywhere.
 */
import { shuffled } from './random.ts';

export interface TokenDocument {
  readonly ids: ArrayLike<number>;
  /** 1 where the token is a target of the loss, 0 where not (a prompt); all ones if absent. */
  readonly trained?: ArrayLike<number>;
}

/** What one step trains on; all arrays have one entry for each token of the batch. */
export interface Batch {
  readonly ids: Int32Array;
  /** Position in its document's part of the window. */
  readonly positions: Int32Array;
  /** Row of the batch where its document begins. */
  readonly starts: Int32Array;
  /** The token after it, or −1 where there is none to learn. */
  readonly targets: Int32Array;
  /** For MTP module d: the token d + 1 further as its input (0 where there is none), and the one after that, or −1. */
  readonly ahead: readonly { readonly ids: Int32Array; readonly targets: Int32Array }[];
}

export interface PackedDocuments {
  readonly tokens: number;
  /** Whole batches in one epoch. */
  readonly batches: number;
  /** Batch `index` (from 0) counted over all epochs. */
  batch(index: number): Batch;
}

export interface Packing {
  /** Tokens of a window. */
  readonly sequence: number;
  /** Tokens of a batch, a multiple of `sequence`. */
  readonly rows: number;
  readonly seed: number;
  /** MTP modules to prepare for. */
  readonly modules?: number;
}

/** @throws RangeError when the documents do not fill one batch */
export function packDocuments(
  documents: readonly TokenDocument[],
  { sequence, rows, seed, modules = 1 }: Packing,
): PackedDocuments {
  if (rows % sequence !== 0)
    throw new RangeError(`a batch of ${rows} tokens is no multiple of the sequence length ${sequence}`);
  const tokens = documents.reduce((sum, { ids }) => sum + ids.length, 0);
  const windows = Math.floor(tokens / sequence);
  const perBatch = rows / sequence;
  const batches = Math.floor(windows / perBatch);
  if (batches === 0) throw new RangeError(`${tokens} tokens are fewer than one batch of ${rows}`);

  const ids = new Int32Array(tokens);
  const trained = new Uint8Array(tokens);
  const documentStart = new Int32Array(tokens);
  let laidOut = -1;
  let windowOrder = new Uint32Array();
  const layOut = (epoch: number) => {
    if (epoch === laidOut) return;
    laidOut = epoch;
    let at = 0;
    for (const d of shuffled(documents.length, seed, 2 * epoch)) {
      const document = documents[d]!;
      ids.set(document.ids, at);
      if (document.trained) trained.set(document.trained, at);
      else trained.fill(1, at, at + document.ids.length);
      documentStart.fill(at, at, at + document.ids.length);
      at += document.ids.length;
    }
    windowOrder = shuffled(windows, seed, 2 * epoch + 1) as Uint32Array<ArrayBuffer>;
  };

  return {
    tokens,
    batches,
    batch(index) {
      layOut(Math.floor(index / batches));
      const column = () => new Int32Array(rows);
      const batch = {
        ids: column(),
        positions: column(),
        starts: column(),
        targets: column(),
        ahead: Array.from({ length: modules }, () => ({ ids: column(), targets: column() })),
      };
      const first = (index % batches) * perBatch;
      for (let w = 0; w < perBatch; w++) {
        const from = windowOrder[first + w]! * sequence;
        for (let i = 0; i < sequence; i++) {
          const [row, at] = [w * sequence + i, from + i];
          const start = Math.max(documentStart[at]!, from);
          const follows = (ahead: number) => at + ahead < tokens && documentStart[at + ahead] === documentStart[at];
          const target = (ahead: number) => (follows(ahead) && trained[at + ahead] ? ids[at + ahead]! : -1);
          batch.ids[row] = ids[at]!;
          batch.positions[row] = at - start;
          batch.starts[row] = w * sequence + start - from;
          batch.targets[row] = target(1);
          batch.ahead.forEach((module, d) => {
            module.ids[row] = follows(d + 1) ? ids[at + d + 1]! : 0;
            module.targets[row] = target(d + 2);
          });
        }
      }
      return batch;
    },
  };
}
