/**
 * Decides what each step of the model computes: which sequences, how many tokens of each, in which cache blocks.
 * Pure bookkeeping: it runs nothing, samples nothing and knows no clock.
 */
import { BlockPool, type PrefixId } from './block-pool.ts';

export interface SchedulerLimits {
  /** Most tokens in one step; at least `sequences`, so that every running sequence can decode in every step. */
  readonly stepTokens: number;
  /** Most sequences in the batch, and most that may wait behind them. */
  readonly sequences: number;
  readonly waiting: number;
  /** Most tokens of a prompt and its answer together: the model's context. */
  readonly contextTokens: number;
  readonly blocks: number;
  readonly blockTokens: number;
}

export type Priority = 'normal' | 'low';

export interface Sequence {
  readonly priority: Priority;
  /** The prompt and what has been generated. */
  readonly tokens: number[];
  readonly promptTokens: number;
  /** Tokens whose cache entries are there; those from `computed` on have still to go through the model. */
  readonly computed: number;
  /** Prompt tokens that were in the prefix cache, or came into it from below, before the first other was computed. */
  readonly cachedTokens: number;
  readonly tenant: string;
  readonly state: 'waiting' | 'running' | 'done';
}

/** What a step computes of one sequence. */
export interface Chunk {
  readonly sequence: Sequence;
  readonly start: number;
  readonly count: number;
  /** Guesses of the tokens that will come after the sequence's last one, computed along with it. */
  readonly drafts: readonly number[];
  /** The sequence's blocks, in order, covering positions 0 to start + count + drafts − 1. */
  readonly blocks: readonly number[];
  /** Whether the chunk ends at the sequence's last token, so that its logits give the next one. */
  readonly last: boolean;
}

/** A block of the cache that holds every token it can, and which one of its sequence it is. */
export interface FullBlock {
  readonly sequence: Sequence;
  readonly index: number;
  readonly block: number;
}

interface Entry extends Sequence {
  readonly mostTokens: number;
  /** Set once, at first admission; a smaller number means longer in the batch. */
  seniority: number;
  computed: number;
  cachedTokens: number;
  /** Tokens adopted from below since it entered. */
  fetchedTokens: number;
  /** Whether it waits for blocks from below the cache, and takes part in no step. */
  fetching: boolean;
  /** Whether its prompt has been counted as hits and misses. */
  counted: boolean;
  blocks: number[];
  /** How many of the blocks have been published, and the prefix they end in. */
  published: number;
  prefix: PrefixId;
  /** Guesses of the tokens after the last one; while a step runs, those that it computes. */
  drafts: readonly number[];
  state: Sequence['state'];
}

/** Under pressure a waiting `low` request enters after this many `normal` ones, so that it is never starved. */
const NORMALS_PER_LOW = 4;

/**
 * Invariants: a running sequence holds exactly the blocks its computed and scheduled tokens need; sequences enter
 * in order of arrival within their priority; when memory runs out the sequence that entered last gives up its
 * blocks and is resumed before anything new enters. So the one that entered first always proceeds, and everything
 * accepted finishes.
 *
 * Blocks may come from a slower cache below: between `fetch` and `proceed` a sequence that entered keeps its place
 * and its blocks but is not computed, and `adopt` takes what was put into the next of its blocks as computed.
 */
export class Scheduler {
  readonly limits: SchedulerLimits;
  readonly pool: BlockPool;
  /** Every field counts since the scheduler was made. */
  readonly counts = { preemptions: 0, promptTokens: 0, cachedPromptTokens: 0, fetchedPromptTokens: 0 };
  readonly #queues: Record<Priority, Entry[]> = { normal: [], low: [] };
  /** Interrupted sequences by seniority. */
  readonly #interrupted: Entry[] = [];
  /** By seniority. */
  readonly #running: Entry[] = [];
  #admitted = 0;
  #normalsInARow = 0;
  #full: FullBlock[] = [];

  constructor(limits: SchedulerLimits) {
    if (limits.stepTokens < limits.sequences) {
      throw new RangeError(`a step of ${limits.stepTokens} tokens cannot decode ${limits.sequences} sequences`);
    }
    this.limits = limits;
    this.pool = new BlockPool(limits.blocks, limits.blockTokens);
  }

  get running(): number {
    return this.#running.length;
  }

  get waiting(): number {
    return this.#queues.normal.length + this.#queues.low.length + this.#interrupted.length;
  }

  /**
   * Accepts a request of `prompt` and at most `maxTokens` tokens after it.
   * @throws RequestTooLargeError when it could not fit even alone
   * @throws QueueFullError when as many requests wait as may wait
   */
  add(
    prompt: ArrayLike<number>,
    maxTokens: number,
    { priority = 'normal', tenant = '' }: { priority?: Priority; tenant?: string } = {},
  ): Sequence {
    const { contextTokens, blocks, blockTokens, waiting, sequences } = this.limits;
    if (prompt.length < 1 || maxTokens < 1) {
      throw new RangeError(`a prompt of ${prompt.length} tokens and ${maxTokens} to generate: both must be at least 1`);
    }
    const mostTokens = prompt.length + maxTokens;
    if (mostTokens > contextTokens) {
      throw new RequestTooLargeError(
        `the prompt has ${prompt.length} tokens and asks for ${maxTokens} more: together ${mostTokens}, ` +
          `but the model's context holds ${contextTokens}`,
      );
    }
    // The last token is never fed back, so it needs no place in the cache.
    if (this.#blocksFor(mostTokens - 1) > blocks) {
      throw new RequestTooLargeError(
        `the prompt has ${prompt.length} tokens and asks for ${maxTokens} more: that needs ` +
          `${this.#blocksFor(mostTokens - 1)} cache blocks of ${blockTokens} tokens, but the cache has ${blocks}`,
      );
    }
    if (this.waiting >= waiting + Math.max(0, sequences - this.running)) throw new QueueFullError(this.waiting);
    const entry: Entry = {
      priority,
      tokens: Array.from(prompt),
      promptTokens: prompt.length,
      mostTokens,
      tenant,
      seniority: -1,
      computed: 0,
      cachedTokens: 0,
      fetchedTokens: 0,
      fetching: false,
      counted: false,
      blocks: [],
      published: 0,
      prefix: tenant,
      drafts: [],
      state: 'waiting',
    };
    this.#queues[priority].push(entry);
    return entry;
  }

  /** Gives running sequences room for their next tokens and lets waiting ones in. @returns those that entered */
  admit(): readonly Sequence[] {
    this.#full = [];
    this.#growDecoding();
    const entered: Sequence[] = [];
    while (this.#running.length < this.limits.sequences) {
      const queue = this.#nextQueue();
      const entry = queue?.[0];
      if (!queue || !entry || !this.#enter(entry)) break;
      queue.shift();
      entered.push(entry);
      if (queue === this.#queues.normal) this.#normalsInARow++;
      if (queue === this.#queues.low) this.#normalsInARow = 0;
    }
    return entered;
  }

  /**
   * What to compute next, after `admit`; empty when nothing is to be done. Every running sequence that decodes gets its
   * token; prompts share what is left of the step, those that entered first going first.
   */
  plan(): Chunk[] {
    const chunks: Chunk[] = [];
    let left = this.limits.stepTokens;
    const take = (entry: Entry, count: number) => {
      left -= count;
      this.#countPrompt(entry);
      const start = entry.computed;
      const last = start + count === entry.tokens.length;
      const blocks = entry.blocks.slice(0, this.#blocksFor(start + count));
      chunks.push({ sequence: entry, start, count, drafts: entry.drafts, blocks, last });
    };
    const ready = this.#running.filter((entry) => !entry.fetching);
    const decoding = ready.filter(decodes);
    let spare = left - decoding.length;
    for (const entry of decoding) {
      entry.drafts = entry.drafts.slice(0, Math.min(spare, this.#roomForDrafts(entry)));
      spare -= entry.drafts.length;
      left -= entry.drafts.length;
      take(entry, 1);
    }
    if (decoding.length > 0) left = Math.min(left, Math.ceil(this.limits.stepTokens / 2));
    for (const entry of ready) {
      if (left === 0) break;
      if (!decodes(entry)) take(entry, Math.min(left, entry.tokens.length - entry.computed));
    }
    return chunks;
  }

  /** Records that the chunks of `plan` were computed. Sequences that were removed meanwhile are passed over. */
  computed(chunks: readonly Chunk[]): void {
    for (const { sequence, start, count } of chunks) {
      const entry = sequence as Entry;
      if (entry.state !== 'running') continue;
      entry.computed = start + count;
      this.#full.push(...this.#publish(entry));
    }
  }

  /** The blocks that became full since the last call. Their content is there until the next `admit`. */
  takeFull(): FullBlock[] {
    const full = this.#full;
    this.#full = [];
    return full;
  }

  /** Whole blocks of the sequence that need not be computed if their content is found: all that precede its last token. */
  wholeBlocks(sequence: Sequence): number {
    return this.#blocksFor(sequence.tokens.length) - 1;
  }

  /** Keeps a sequence that has just entered out of the steps, until `proceed`, while blocks are fetched for it. */
  fetch(sequence: Sequence): void {
    (sequence as Entry).fetching = true;
  }

  /** The cache block that waits for content as the sequence's block number `index`; null when it is not the next. */
  awaited(sequence: Sequence, index: number): number | null {
    const { fetching, published, blocks } = sequence as Entry;
    return fetching && index === published && index < this.wholeBlocks(sequence) ? blocks[index]! : null;
  }

  /** The awaited block has its content now: as if its tokens had been computed. */
  adopt(sequence: Sequence): void {
    const entry = sequence as Entry;
    entry.computed += this.limits.blockTokens;
    entry.fetchedTokens += this.limits.blockTokens;
    this.#publish(entry);
  }

  proceed(sequence: Sequence): void {
    (sequence as Entry).fetching = false;
  }

  /** Proposes what may follow the sequence's last token. As many are computed in the next step as it has room for. */
  propose(sequence: Sequence, drafts: readonly number[]): void {
    const entry = sequence as Entry;
    if (entry.state === 'running') entry.drafts = drafts;
  }

  /**
   * Appends the token that was sampled after the sequence's last one.
   * @returns whether the last step drafted and so computed it; then what follows it can be sampled, too
   */
  append(sequence: Sequence, token: number): boolean {
    const entry = sequence as Entry;
    if (entry.state !== 'running' || entry.computed !== entry.tokens.length) {
      throw new Error(`a token cannot be appended to a sequence that is ${entry.state}`);
    }
    entry.tokens.push(token);
    const [draft, ...drafts] = entry.drafts;
    entry.drafts = draft === token ? drafts : [];
    if (draft !== token) return false;
    entry.computed++;
    this.#full.push(...this.#publish(entry));
    return true;
  }

  /** Whether the sequence has as many tokens as it asked for. */
  full(sequence: Sequence): boolean {
    return sequence.tokens.length >= (sequence as Entry).mostTokens;
  }

  /** Takes a finished or cancelled sequence out, wherever it is; its blocks are free at once. */
  remove(sequence: Sequence): void {
    const entry = sequence as Entry;
    if (entry.state === 'done') return;
    entry.state = 'done';
    entry.fetching = false;
    this.pool.release(entry.blocks);
    entry.blocks = [];
    for (const list of [this.#running, this.#interrupted, this.#queues.normal, this.#queues.low]) {
      const at = list.indexOf(entry);
      if (at !== -1) list.splice(at, 1);
    }
  }

  #blocksFor(tokens: number): number {
    return Math.ceil(tokens / this.limits.blockTokens);
  }

  /**
   * Drafts use what is left of the blocks that the sequence has anyway, so that speculation never changes which blocks
   * are held, published or evicted; and the last token of an answer is not fed back.
   */
  #roomForDrafts({ blocks, tokens, mostTokens }: Entry): number {
    return Math.min(blocks.length * this.limits.blockTokens, mostTokens - 1) - tokens.length;
  }

  /** Gives every decoding sequence room for its next token, interrupting the latest ones where memory is short. */
  #growDecoding(): void {
    for (let i = 0; i < this.#running.length; i++) {
      const entry = this.#running[i]!;
      while (entry.state === 'running' && entry.blocks.length < this.#blocksFor(entry.tokens.length)) {
        const grown = this.pool.allocate(1);
        if (grown) entry.blocks.push(...grown);
        else this.#interrupt(this.#running.at(-1)!);
      }
    }
  }

  #interrupt(entry: Entry): void {
    this.#running.pop();
    this.pool.release(entry.blocks);
    entry.blocks = [];
    entry.computed = 0;
    entry.published = 0;
    entry.prefix = entry.tenant;
    entry.drafts = [];
    entry.fetching = false;
    entry.state = 'waiting';
    const at = this.#interrupted.findIndex((other) => other.seniority > entry.seniority);
    this.#interrupted.splice(at === -1 ? this.#interrupted.length : at, 0, entry);
    this.counts.preemptions++;
  }

  #nextQueue(): Entry[] | null {
    const { normal, low } = this.#queues;
    if (this.#interrupted.length > 0) return this.#interrupted;
    if (low.length > 0 && (normal.length === 0 || this.#normalsInARow >= NORMALS_PER_LOW)) return low;
    return normal.length > 0 ? normal : null;
  }

  /** Takes the blocks for all tokens the sequence has now, leaving one for each running sequence to grow into. */
  #enter(entry: Entry): boolean {
    const needed = this.#blocksFor(entry.tokens.length);
    // The last token must be computed anew: its logits are not in the cache.
    const matched = this.pool.match(entry.tokens, this.#blocksFor(entry.tokens.length) - 1, entry.tenant);
    const missing = needed - matched.blocks.length;
    const fresh = missing + this.#running.length <= this.pool.free ? this.pool.allocate(missing) : null;
    if (!fresh) {
      this.pool.release(matched.blocks);
      return false;
    }
    entry.blocks = [...matched.blocks, ...fresh];
    entry.published = matched.blocks.length;
    entry.prefix = matched.prefix;
    entry.computed = matched.blocks.length * this.limits.blockTokens;
    entry.fetchedTokens = 0;
    entry.state = 'running';
    if (entry.seniority === -1) entry.seniority = this.#admitted++;
    const at = this.#running.findIndex((other) => other.seniority > entry.seniority);
    this.#running.splice(at === -1 ? this.#running.length : at, 0, entry);
    return true;
  }

  /** What the cache spared a sequence is known when its first token is computed. */
  #countPrompt(entry: Entry): void {
    if (entry.counted) return;
    entry.counted = true;
    entry.cachedTokens = entry.computed;
    this.counts.promptTokens += entry.promptTokens;
    this.counts.cachedPromptTokens += entry.computed;
    this.counts.fetchedPromptTokens += entry.fetchedTokens;
  }

  #publish(entry: Entry): FullBlock[] {
    const { blockTokens } = this.limits;
    const full: FullBlock[] = [];
    while ((entry.published + 1) * blockTokens <= entry.computed) {
      const from = entry.published * blockTokens;
      const tokens = entry.tokens.slice(from, from + blockTokens);
      const block = entry.blocks[entry.published]!;
      entry.prefix = this.pool.publish(block, entry.prefix, tokens);
      full.push({ sequence: entry, index: entry.published++, block });
    }
    return full;
  }
}

/** The numbers of a request that would not fit even if it ran alone. */
export class RequestTooLargeError extends Error {
  override name = 'RequestTooLargeError';
}

/** As many requests wait as may wait. */
export class QueueFullError extends Error {
  override name = 'QueueFullError';
  readonly waiting: number;
  /** Milliseconds after which, at the present pace, none of them will wait any more; null where that is not known. */
  readonly emptyInMs: number | null;

  constructor(waiting: number, emptyInMs: number | null = null) {
    super(`${waiting} requests are waiting already; try again later`);
    this.waiting = waiting;
    this.emptyInMs = emptyInMs;
  }
}

function decodes(entry: Entry): boolean {
  return entry.tokens.length > entry.promptTokens && entry.computed === entry.tokens.length - 1;
}
