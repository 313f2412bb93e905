/**
 * The paged cache's blocks: who holds which, and which hold content that a later prompt can start from.
 * Deals in block numbers only; the memory itself belongs to the runner.
 */

/**
 * A prefix that published blocks continue: a number once something is published, before that the name of a tree.
 * Trees of different names share nothing.
 */
export type PrefixId = number | string;

interface Published {
  readonly id: PrefixId;
  readonly parent: PrefixId;
  readonly tokens: readonly number[];
  readonly hash: number;
}

/**
 * Invariant: every block is either held (holders > 0) or free, never both; a free block is either empty or
 * published, and a published one waits in order of last use to be taken again or evicted. A published block's
 * content equals, token for token, the path of its ancestors plus its own tokens: matching compares tokens, the
 * hash only finds the candidate.
 */
export class BlockPool {
  readonly blocks: number;
  readonly blockTokens: number;
  readonly #holders: Int32Array;
  readonly #empty: number[] = [];
  /** Free published blocks, least recently used first. */
  readonly #idle = new Set<number>();
  readonly #published = new Map<number, Published>();
  readonly #byHash = new Map<number, number>();
  #nextId = 1;

  constructor(blocks: number, blockTokens: number) {
    this.blocks = blocks;
    this.blockTokens = blockTokens;
    this.#holders = new Int32Array(blocks);
    for (let block = blocks - 1; block >= 0; block--) this.#empty.push(block);
  }

  /** Blocks that `allocate` could hand out now. */
  get free(): number {
    return this.#empty.length + this.#idle.size;
  }

  /** Free blocks whose content can still be matched. */
  get cached(): number {
    return this.#idle.size;
  }

  /** Takes `count` blocks with no content, evicting the least recently used published ones; null when too few. */
  allocate(count: number): number[] | null {
    if (count > this.free) return null;
    return Array.from({ length: count }, () => {
      const block = this.#empty.pop() ?? this.#evict();
      this.#holders[block] = 1;
      return block;
    });
  }

  /**
   * Takes the published blocks that hold the longest prefix of `tokens` in the tree `root`, at most `most` of them.
   */
  match(tokens: ArrayLike<number>, most: number, root: string): { blocks: number[]; prefix: PrefixId } {
    const blocks: number[] = [];
    let prefix: PrefixId = root;
    while (blocks.length < most && (blocks.length + 1) * this.blockTokens <= tokens.length) {
      const from = blocks.length * this.blockTokens;
      const found = this.#find(prefix, tokens, from);
      if (!found) break;
      this.#hold(found.block);
      blocks.push(found.block);
      prefix = found.id;
    }
    return { blocks, prefix };
  }

  /**
   * Offers a held, full block for matching, as the continuation of `parent` by `tokens` (one block of them).
   * @returns the prefix that now ends in these tokens, whether this block or an equal one stands for it
   */
  publish(block: number, parent: PrefixId, tokens: readonly number[]): PrefixId {
    if (this.#holders[block]! < 1 || tokens.length !== this.blockTokens) {
      throw new Error(`block ${block} with ${tokens.length} tokens cannot be published`);
    }
    const equal = this.#find(parent, tokens, 0);
    if (equal) return equal.id;
    const hash = hashOf(parent, tokens, 0, this.blockTokens);
    const id = this.#nextId++;
    if (!this.#byHash.has(hash)) {
      this.#byHash.set(hash, block);
      this.#published.set(block, { id, parent, tokens: [...tokens], hash });
    }
    return id;
  }

  /** Gives back one hold on each block. The last block is the first to be evicted: the start is shared most. */
  release(blocks: readonly number[]): void {
    for (const block of [...blocks].reverse()) {
      const holders = this.#holders[block]! - 1;
      if (holders < 0) throw new Error(`block ${block} was released twice`);
      this.#holders[block] = holders;
      if (holders > 0) continue;
      if (this.#published.has(block)) this.#idle.add(block);
      else this.#empty.push(block);
    }
  }

  #hold(block: number): void {
    this.#idle.delete(block);
    this.#holders[block]! += 1;
  }

  #evict(): number {
    const [block] = this.#idle;
    if (block === undefined) throw new Error('no block is free');
    this.#idle.delete(block);
    this.#byHash.delete(this.#published.get(block)!.hash);
    this.#published.delete(block);
    return block;
  }

  #find(parent: PrefixId, tokens: ArrayLike<number>, from: number): { block: number; id: PrefixId } | null {
    const block = this.#byHash.get(hashOf(parent, tokens, from, this.blockTokens));
    if (block === undefined) return null;
    const held = this.#published.get(block)!;
    const same = held.parent === parent && held.tokens.every((token, i) => token === tokens[from + i]);
    return same ? { block, id: held.id } : null;
  }
}

/** 32-bit FNV-1a over the parent and the tokens, a whole number at a time. */
function hashOf(parent: PrefixId, tokens: ArrayLike<number>, from: number, count: number): number {
  let hash = 0x811c9dc5;
  const mix = (value: number) => {
    hash = Math.imul(hash ^ value, 0x01000193);
    hash ^= hash >>> 15;
  };
  if (typeof parent === 'number') mix(parent | 0);
  else for (let i = 0; i < parent.length; i++) mix(~parent.charCodeAt(i));
  for (let i = 0; i < count; i++) mix(tokens[from + i]!);
  return hash;
}
