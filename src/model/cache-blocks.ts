/** The paged cache's memory, a block at a time over all layers: what moves when a block is kept elsewhere. */
import type { Region, Tensor } from '../backend/graph.ts';

export interface CacheBlocks {
  /** Of one block. */
  readonly bytes: number;
  /** Copies what the block holds to `content`. Not while a step that writes to the block is under way. */
  read(block: number, content: Uint8Array): void;
  /** Fills a block that no step under way uses with what `read` gave. */
  write(block: number, content: Uint8Array): void;
}

/** @param caches resident tensors of a row a token, the rows of a block together; some may have more blocks than others */
export function cacheBlocks(caches: readonly Tensor[], blockTokens: number): CacheBlocks {
  let bytes = 0;
  const pieces = caches.map(({ storage }) => {
    const { buffer, byteOffset, byteLength } = storage.memory as Region;
    const from = bytes;
    const length = (byteLength / storage.rows.times) * blockTokens;
    bytes += length;
    return {
      here: (block: number) => new Uint8Array(buffer, byteOffset + block * length, length),
      in: (content: Uint8Array) => content.subarray(from, from + length),
    };
  });
  return {
    bytes,
    read(block, content) {
      for (const piece of pieces) piece.in(content).set(piece.here(block));
    },
    write(block, content) {
      for (const piece of pieces) piece.here(block).set(piece.in(content));
    },
  };
}
