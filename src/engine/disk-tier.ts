/** Moves blocks between the paged cache and the disk: full ones down, wanted ones up. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { instructionSet, kernelFile } from '../backend/native.ts';
import { fingerprint } from '../model/fingerprint.ts';
import type { Model } from '../model/load.ts';
import type { Runner } from '../model/runner.ts';
import { type BlockPlace, DiskCache, type DiskCacheStatus, type PrefixKey } from './disk-cache.ts';
import type { FullBlock, Scheduler, Sequence } from './scheduler.ts';

export interface DiskTierOptions {
  readonly folder: string;
  /** Most bytes that the folder may take. */
  readonly bytes: number;
  /** Told, in a sentence, of what was found damaged or could not be done. */
  readonly warn: (problem: string) => void;
}

/** Blocks of a sequence that are read at a time. */
const READS_AT_ONCE = 8;

/**
 * Opens the cache of `runner`'s blocks. Its entries are those of the same weights, computation, kernels, instruction
 * set and block size, and of no other: whatever could change a bit of a block is part of their identity.
 */
export async function openDiskCache(model: Model, runner: Runner, options: DiskTierOptions): Promise<DiskCache> {
  const { blockTokens } = runner.limits;
  const { inverseFrequencies, magnitude, softmaxScale } = model.rope;
  const parts = [
    await fingerprint(model.checkpoint),
    createHash('sha256')
      .update(await readFile(kernelFile))
      .digest('hex'),
    runner.recipe,
    [...inverseFrequencies, magnitude, softmaxScale],
    process.arch,
    instructionSet,
    blockTokens,
    // With an MTP module that drafts, its layer is part of a block.
    runner.blocks.bytes,
  ];
  const identity = createHash('sha256').update(JSON.stringify(parts)).digest('hex');
  return await DiskCache.open({ ...options, identity, blockTokens, blockBytes: runner.blocks.bytes });
}

export class DiskTier {
  readonly #cache: DiskCache;
  readonly #runner: Runner;
  readonly #scheduler: Scheduler;
  /** Of each sequence, the prefix before each of its blocks, as far as known. */
  readonly #prefixes = new WeakMap<Sequence, PrefixKey[]>();

  constructor(cache: DiskCache, runner: Runner, scheduler: Scheduler) {
    this.#cache = cache;
    this.#runner = runner;
    this.#scheduler = scheduler;
  }

  /**
   * Starts to read what follows the blocks that a sequence entered with; it is computed no earlier than that is done.
   * @returns null when nothing is there
   */
  fetch(sequence: Sequence): Promise<void> | null {
    const first = sequence.computed / this.#runner.limits.blockTokens;
    if (first >= this.#scheduler.wholeBlocks(sequence) || !this.#cache.has(this.#prefix(sequence, first + 1))) {
      return null;
    }
    this.#scheduler.fetch(sequence);
    return this.#readFrom(sequence, first).finally(() => this.#scheduler.proceed(sequence));
  }

  /** Hands over blocks that became full. */
  store(full: readonly FullBlock[]): void {
    for (const { sequence, index, block } of full) {
      this.#cache.write(this.#place(sequence, index), (content) => this.#runner.blocks.read(block, content));
    }
  }

  /** A sequence that has been computed up to `computed` ends: its beginning is what will be wanted again. */
  touch(sequence: Sequence): void {
    const blocks = Math.floor(sequence.computed / this.#runner.limits.blockTokens);
    this.#prefix(sequence, blocks);
    this.#cache.touch(this.#prefixes.get(sequence)!.slice(1, blocks + 1));
  }

  status(): DiskCacheStatus {
    return this.#cache.status();
  }

  close(): Promise<void> {
    return this.#cache.close();
  }

  async #readFrom(sequence: Sequence, first: number): Promise<void> {
    const end = this.#scheduler.wholeBlocks(sequence);
    for (let at = first; at < end; at += READS_AT_ONCE) {
      const indices = Array.from({ length: Math.min(READS_AT_ONCE, end - at) }, (_, i) => at + i);
      const contents = await Promise.all(indices.map((index) => this.#cache.read(this.#place(sequence, index))));
      for (const [i, content] of contents.entries()) {
        const block = this.#scheduler.awaited(sequence, at + i);
        if (content === null || block === null) return;
        this.#runner.blocks.write(block, content);
        this.#scheduler.adopt(sequence);
      }
    }
  }

  #place(sequence: Sequence, index: number): BlockPlace {
    const { blockTokens } = this.#runner.limits;
    const tokens = sequence.tokens.slice(index * blockTokens, (index + 1) * blockTokens);
    return { before: this.#prefix(sequence, index), tokens };
  }

  #prefix(sequence: Sequence, blocks: number): PrefixKey {
    let known = this.#prefixes.get(sequence);
    if (!known) {
      known = [this.#cache.root(sequence.tenant)];
      this.#prefixes.set(sequence, known);
    }
    while (known.length <= blocks) known.push(this.#cache.after(this.#place(sequence, known.length - 1)));
    return known[blocks]!;
  }
}
