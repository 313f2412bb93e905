/**
 * Runs requests through the model together: plan a step, run it, sample, hand out tokens, repeat while there is
 * work. Each request's tokens are the same as if it ran alone.
 */
import type { CacheDType } from '../backend/graph.ts';
import type { Draw } from '../model/drafter.ts';
import type { Runner } from '../model/runner.ts';
import type { DiskCache, DiskCacheStatus } from './disk-cache.ts';
import { DiskTier } from './disk-tier.ts';
import { QueuePace } from './queue-pace.ts';
import { uniform } from './random.ts';
import { logprobs, type Sampling, sample, type TokenLogprob } from './sampler.ts';
import { type Chunk, type Priority, QueueFullError, Scheduler, type Sequence } from './scheduler.ts';
import { type DraftCounts, Speculation } from './speculation.ts';

export interface EngineOptions {
  /** Most requests that may wait for a place in the batch. */
  readonly waiting: number;
  /** Most tokens of a prompt and its answer together: the model's context. */
  readonly contextTokens: number;
  /** Keeps full cache blocks beyond memory and restarts. */
  readonly diskCache?: DiskCache;
}

export interface Request {
  readonly prompt: ArrayLike<number>;
  readonly maxTokens: number;
  readonly sampling: Sampling;
  /** Tokens that end the answer. */
  readonly stopTokens: ReadonlySet<number>;
  /** How many alternatives to report with each token; null reports no log-probabilities. */
  readonly topLogprobs: number | null;
  readonly priority?: Priority;
  /** Requests with different tenants share no cached prefix. */
  readonly tenant?: string;
}

export interface SampledToken {
  readonly token: number;
  /** Natural logarithm, and the most probable alternatives; null unless asked for. */
  readonly logprobs: { readonly logprob: number; readonly top: readonly TokenLogprob[] } | null;
  /** Why this is the last token: it is a stop token, or as many were generated as asked for. */
  readonly finish: 'stop' | 'length' | null;
}

/** One request under way. Iterate it once; leaving the iteration early cancels the request. */
export interface Generation extends AsyncIterable<SampledToken> {
  /** Ends the generation and frees its memory now; the iteration ends. `stop`: the text so far is the whole answer. */
  cancel(finish?: 'stop' | 'cancelled'): void;
  readonly usage: Usage;
  readonly times: Times;
}

export interface Usage {
  readonly promptTokens: number;
  /** Prompt tokens that were found in the prefix cache, in memory or on disk. */
  readonly cachedTokens: number;
  /** Sampled tokens, the stop token included. */
  readonly completionTokens: number;
  /** Tokens that were drafted for the answer, and those of them that are part of it. */
  readonly draftedTokens: number;
  readonly acceptedTokens: number;
}

/** Milliseconds of `performance.now()`; 0 until it happens. */
export interface Times {
  readonly arrived: number;
  readonly started: number;
  readonly firstToken: number;
  readonly finished: number;
}

export interface EngineStatus {
  readonly running: number;
  readonly waiting: number;
  readonly blocks: { readonly total: number; readonly free: number; readonly cached: number };
  /** What a token leaves in the cache, over all layers, those that draft included. */
  readonly cache: { readonly dtype: CacheDType; readonly bytesPerToken: number; readonly blockTokens: number };
  /** Of each layer with experts: tokens given to each expert since the engine started. */
  readonly expertLoads: Readonly<Record<string, readonly number[]>>;
  /** null without a disk cache. */
  readonly disk: DiskCacheStatus | null;
  /** Since the engine started. */
  readonly counts: {
    readonly steps: number;
    readonly promptTokens: number;
    readonly cachedPromptTokens: number;
    /** Of them, those that were read from disk. */
    readonly fetchedPromptTokens: number;
    readonly generatedTokens: number;
    readonly preemptions: number;
    readonly drafts: DraftCounts;
    readonly finished: Readonly<Record<'stop' | 'length' | 'cancelled', number>>;
  };
}

/**
 * Invariant: the loop runs exactly while the scheduler has work, and one step is in flight at a time. It sleeps only
 * while every running sequence waits for the disk.
 */
export class Engine {
  readonly #runner: Runner;
  readonly #scheduler: Scheduler;
  readonly #speculation: Speculation;
  readonly #pace = new QueuePace();
  /** Of the step before: what it drafted, which the next one checks. */
  #draftedDepth = 0;
  readonly #active = new Map<Sequence, ActiveGeneration>();
  readonly #counts = { steps: 0, generatedTokens: 0, finished: { stop: 0, length: 0, cancelled: 0 } };
  readonly #disk: DiskTier | null;
  #looping: Promise<void> | null = null;
  #wake: () => void = () => {};
  #closed = false;

  constructor(runner: Runner, { waiting, contextTokens, diskCache }: EngineOptions) {
    const { tokens, logits, sequences, blocks, blockTokens, blocksPerSequence } = runner.limits;
    this.#runner = runner;
    this.#speculation = new Speculation(runner.drafter ? (runner.limits.drafts ?? 0) : 0);
    this.#scheduler = new Scheduler({
      stepTokens: tokens,
      sequences: Math.min(sequences, logits, tokens),
      waiting,
      contextTokens: Math.min(contextTokens, blocksPerSequence * blockTokens),
      blocks,
      blockTokens,
    });
    this.#disk = diskCache ? new DiskTier(diskCache, runner, this.#scheduler) : null;
  }

  /** The most tokens a prompt and its answer may have together: bounded by the context and by the cache. */
  get mostTokens(): number {
    const { contextTokens, blocks, blockTokens } = this.#scheduler.limits;
    return Math.min(contextTokens, blocks * blockTokens + 1);
  }

  /**
   * Starts a request.
   * @throws RequestTooLargeError, QueueFullError
   */
  submit(request: Request): Generation {
    if (this.#closed) throw new Error('the engine is closed');
    const sequence = this.#accept(request);
    const generation = new ActiveGeneration(request, sequence, (finish) => this.#end(sequence, finish));
    this.#active.set(sequence, generation);
    this.#looping ??= this.#loop();
    this.#wake();
    return generation;
  }

  status(): EngineStatus {
    const { pool, counts, running, waiting } = this.#scheduler;
    return {
      running,
      waiting,
      blocks: { total: pool.blocks, free: pool.free, cached: pool.cached },
      cache: {
        dtype: this.#runner.cacheDtype,
        bytesPerToken: this.#runner.blocks.bytes / pool.blockTokens,
        blockTokens: pool.blockTokens,
      },
      expertLoads: this.#runner.expertLoads,
      disk: this.#disk?.status() ?? null,
      counts: { ...this.#counts, ...counts, drafts: this.#speculation.counts },
    };
  }

  /** Cancels what runs and waits, and returns when no step is in flight and nothing is left to be written. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const sequence of [...this.#active.keys()]) this.#end(sequence, 'cancelled');
    await this.#looping;
    await this.#disk?.close();
  }

  #accept({ prompt, maxTokens, priority = 'normal', tenant = '' }: Request): Sequence {
    try {
      return this.#scheduler.add(prompt, maxTokens, { priority, tenant });
    } catch (error) {
      if (!(error instanceof QueueFullError)) throw error;
      throw new QueueFullError(error.waiting, this.#pace.msFor(error.waiting, performance.now()));
    }
  }

  async #loop(): Promise<void> {
    // Requests that arrive in the same turn of the event loop start together.
    await new Promise(setImmediate);
    while (this.#active.size > 0) {
      try {
        const entered = this.#scheduler.admit();
        this.#pace.entered(entered.length, this.#scheduler.waiting, performance.now());
        for (const sequence of entered) this.#disk?.fetch(sequence)?.finally(() => this.#wake());
        const chunks = this.#scheduler.plan();
        await (chunks.length > 0 ? this.#step(chunks) : this.#change());
      } catch (error) {
        for (const [sequence, generation] of this.#active) {
          if (sequence.state !== 'running') continue;
          generation.fail(error);
          this.#end(sequence, 'cancelled');
        }
      }
    }
    this.#looping = null;
  }

  /** Settles when blocks have come from the disk, or a request has come or gone. */
  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  async #step(chunks: readonly Chunk[]): Promise<void> {
    const now = performance.now();
    for (const { sequence } of chunks) this.#active.get(sequence)?.start(now);
    const sampled = chunks.filter((chunk) => chunk.last);
    const depth = sampled.length > 0 ? this.#speculation.depth(sampled.length) : 0;
    const logits = await this.#runner.step(
      chunks.map(({ sequence, start, count, drafts, blocks, last }) => ({
        ids: [...sequence.tokens.slice(start, start + count), ...drafts],
        start,
        blocks,
        logits: last ? 1 + drafts.length : 0,
        next: sequence.tokens[start + count],
        draw: last ? this.#drawOf(sequence, 1 + drafts.length + depth) : undefined,
      })),
      depth,
    );
    this.#scheduler.computed(chunks);
    this.#counts.steps++;
    const vocab = logits.length / sampled.reduce((rows, { drafts }) => rows + 1 + drafts.length, 0);
    let row = 0;
    const drawn = sampled.map(({ sequence, drafts }) => {
      const generation = this.#active.get(sequence);
      const rows = logits.subarray(row * vocab, (row + 1 + drafts.length) * vocab);
      row += 1 + drafts.length;
      const before = sequence.tokens.length;
      if (generation) this.#check(sequence, generation, drafts.length, rows);
      return sequence.tokens.slice(before);
    });
    if (this.#runner.drafter) this.#propose(this.#runner.drafter.drafts(drawn), chunks, depth, now);
    this.#disk?.store(this.#scheduler.takeFull());
  }

  /** Has the next step check what this one drafted. */
  #propose(drafts: readonly number[][], chunks: readonly Chunk[], depth: number, stepStarted: number): void {
    const sampled = chunks.filter((chunk) => chunk.last);
    for (const [i, { sequence }] of sampled.entries()) this.#scheduler.propose(sequence, drafts[i]!);
    const steady = sampled.length === chunks.length && depth === this.#draftedDepth;
    if (steady) this.#speculation.took(sampled.length, depth, performance.now() - stepStarted);
    this.#draftedDepth = depth;
  }

  /** What tells the drafter how the next tokens of the sequence are drawn. */
  #drawOf(sequence: Sequence, positions: number): Draw | undefined {
    const generation = this.#runner.drafter ? this.#active.get(sequence) : undefined;
    if (!generation) return undefined;
    const { temperature, topP, topK, seed } = generation.request.sampling;
    const first = sequence.tokens.length;
    const uniforms = temperature === 0 ? [] : Array.from({ length: positions }, (_, i) => uniform(seed, first + i));
    return { temperature, topP, topK, uniforms };
  }

  /**
   * Samples the next token, and the one after it where the step had drafted the very token that was drawn, and so on:
   * every token is drawn from the same logits with the same random number as without drafts.
   */
  #check(sequence: Sequence, generation: ActiveGeneration, drafted: number, logits: Float32Array): void {
    const vocab = logits.length / (1 + drafted);
    const row = (index: number) => logits.subarray(index * vocab, (index + 1) * vocab);
    let accepted = 0;
    while (this.#next(sequence, generation, row(accepted))) {
      accepted++;
      if (sequence.state !== 'running') break;
    }
    generation.countDrafts(drafted, accepted);
    this.#speculation.checked(drafted, accepted);
  }

  /** @returns whether the token had been drafted */
  #next(sequence: Sequence, generation: ActiveGeneration, logits: Float32Array): boolean {
    const { sampling, stopTokens, topLogprobs } = generation.request;
    const token = sample(logits, sampling, sequence.tokens.length);
    const drafted = this.#scheduler.append(sequence, token);
    this.#counts.generatedTokens++;
    const finish = stopTokens.has(token) ? 'stop' : this.#scheduler.full(sequence) ? 'length' : null;
    generation.push({ token, logprobs: topLogprobs === null ? null : logprobs(logits, token, topLogprobs), finish });
    if (finish) this.#end(sequence, finish);
    return drafted;
  }

  #end(sequence: Sequence, finish: 'stop' | 'length' | 'cancelled'): void {
    const generation = this.#active.get(sequence);
    if (!generation) return;
    this.#disk?.touch(sequence);
    this.#scheduler.remove(sequence);
    this.#wake();
    this.#active.delete(sequence);
    this.#counts.finished[finish]++;
    generation.end();
  }
}

/** Tokens wait here until they are read. Invariant: after `end` or `fail` nothing is added. */
class ActiveGeneration implements Generation {
  readonly request: Request;
  readonly #end: (finish: 'stop' | 'cancelled') => void;
  readonly #sequence: Sequence;
  readonly #tokens: SampledToken[] = [];
  #drafts = { draftedTokens: 0, acceptedTokens: 0 };
  #times: Times = { arrived: performance.now(), started: 0, firstToken: 0, finished: 0 };
  #over = false;
  #error: unknown = null;
  #wake: (() => void) | null = null;

  constructor(request: Request, sequence: Sequence, end: (finish: 'stop' | 'cancelled') => void) {
    this.request = request;
    this.#end = end;
    this.#sequence = sequence;
  }

  cancel(finish: 'stop' | 'cancelled' = 'cancelled'): void {
    this.#end(finish);
  }

  get times() {
    return this.#times;
  }

  get usage(): Usage {
    const { promptTokens, cachedTokens } = this.#sequence;
    return { promptTokens, cachedTokens, completionTokens: this.#tokens.length, ...this.#drafts };
  }

  countDrafts(drafted: number, accepted: number): void {
    this.#drafts.draftedTokens += drafted;
    this.#drafts.acceptedTokens += accepted;
  }

  start(now: number): void {
    if (this.#times.started === 0) this.#times = { ...this.#times, started: now };
  }

  push(token: SampledToken): void {
    if (this.#tokens.length === 0) this.#times = { ...this.#times, firstToken: performance.now() };
    this.#tokens.push(token);
    this.#signal();
  }

  end(): void {
    this.#over = true;
    this.#times = { ...this.#times, finished: performance.now() };
    this.#signal();
  }

  fail(error: unknown): void {
    this.#error = error;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<SampledToken> {
    try {
      for (let next = 0; ; ) {
        while (next < this.#tokens.length) yield this.#tokens[next++]!;
        if (this.#error) throw this.#error;
        if (this.#over) return;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    } finally {
      this.cancel();
    }
  }

  #signal(): void {
    this.#wake?.();
    this.#wake = null;
  }
}
