import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  type Priority,
  QueueFullError,
  RequestTooLargeError,
  Scheduler,
  type SchedulerLimits,
  type Sequence,
} from '../../src/engine/scheduler.ts';

const limitsOf = fc
  .record({
    sequences: fc.integer({ min: 1, max: 5 }),
    spareTokens: fc.nat(8),
    blocks: fc.integer({ min: 2, max: 14 }),
    blockTokens: fc.integer({ min: 1, max: 5 }),
  })
  .map(({ sequences, spareTokens, blocks, blockTokens }): SchedulerLimits => {
    return { stepTokens: sequences + spareTokens, sequences, waiting: 100, contextTokens: 40, blocks, blockTokens };
  });

const event = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('add' as const),
      prompt: fc.array(fc.nat(1), { minLength: 1, maxLength: 20 }),
      maxTokens: fc.integer({ min: 1, max: 20 }),
      priority: fc.constantFrom<Priority>('normal', 'low'),
    }),
  },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('step' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('cancel' as const), which: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('fetched' as const), which: fc.nat(), found: fc.boolean() }) },
);

/**
 * A stand-in for the cache: what was written at each place. A token's entry says which tokens stand before it, so
 * that reading one written for another sequence, or not written at all, is noticed.
 */
class Memory {
  /** Prefixes, whole blocks long, that a slower cache below holds: everything that was ever computed. */
  readonly below = new Set<string>();
  readonly #entries = new Map<string, string>();
  readonly #blockTokens: number;

  constructor(blockTokens: number) {
    this.#blockTokens = blockTokens;
  }

  /** Puts the tokens of a block where they belong, as if they had been computed. */
  fill(sequence: Sequence, index: number, block: number) {
    for (let i = 0; i < this.#blockTokens; i++) {
      this.#entries.set(`${block}.${i}`, sequence.tokens.slice(0, index * this.#blockTokens + i + 1).join());
    }
  }

  run({
    sequence,
    start,
    count,
    drafts,
    blocks,
  }: {
    sequence: Sequence;
    start: number;
    count: number;
    drafts: readonly number[];
    blocks: readonly number[];
  }) {
    const tokens = [...sequence.tokens.slice(0, start + count), ...drafts];
    for (let at = start; at < tokens.length; at++) {
      const place = (position: number) =>
        `${blocks[Math.floor(position / this.#blockTokens)]}.${position % this.#blockTokens}`;
      this.#entries.set(place(at), tokens.slice(0, at + 1).join());
      for (let before = 0; before <= at; before++) {
        expect(this.#entries.get(place(before))).toBe(tokens.slice(0, before + 1).join());
      }
    }
  }
}

/** The "model": its next token depends on everything before. */
const nextToken = (tokens: readonly number[]) => tokens.reduce((sum, token, i) => sum + token * (i + 1), 1) % 2;

/** Of three tokens drafted after each sequence, which are right. */
const guesses = fc.tuple(fc.boolean(), fc.boolean(), fc.boolean());

test('whatever comes and goes, every request gets its own tokens, nothing leaks and everything finishes', () => {
  fc.assert(
    fc.property(limitsOf, fc.array(event, { maxLength: 80 }), guesses, (limits, events, right) => {
      const scheduler = new Scheduler(limits);
      const memory = new Memory(limits.blockTokens);
      const active: { sequence: Sequence; prompt: number[]; maxTokens: number }[] = [];
      const computed = new Map<Sequence, number>();

      /** Sequences that wait for blocks from below. */
      const fetching = new Set<Sequence>();
      const prefixOf = ({ tokens }: Sequence, blocks: number) => tokens.slice(0, blocks * limits.blockTokens).join();

      /** One block comes for a sequence, or the last that is found. */
      const fetched = (sequence: Sequence, found: boolean) => {
        const index = sequence.computed / limits.blockTokens;
        const block = scheduler.awaited(sequence, index);
        if (block !== null && found && memory.below.has(prefixOf(sequence, index + 1))) {
          memory.fill(sequence, index, block);
          scheduler.adopt(sequence);
        } else {
          scheduler.proceed(sequence);
          fetching.delete(sequence);
        }
      };

      const step = () => {
        for (const sequence of scheduler.admit()) {
          expect(sequence.state).toBe('running');
          fetching.delete(sequence);
          if (!memory.below.has(prefixOf(sequence, sequence.computed / limits.blockTokens + 1))) continue;
          scheduler.fetch(sequence);
          fetching.add(sequence);
        }
        const chunks = scheduler.plan();
        const rows = chunks.reduce((sum, { count, drafts }) => sum + count + drafts.length, 0);
        expect(rows).toBeLessThanOrEqual(limits.stepTokens);
        expect(chunks.length).toBeLessThanOrEqual(limits.sequences);
        expect(new Set(chunks.map(({ sequence }) => sequence)).size).toBe(chunks.length);
        for (const chunk of chunks) {
          expect(chunk.count).toBeGreaterThan(0);
          expect(chunk.start).toBe(chunk.sequence.computed);
          expect(fetching.has(chunk.sequence)).toBe(false);
          computed.set(chunk.sequence, (computed.get(chunk.sequence) ?? 0) + chunk.count);
          memory.run(chunk);
        }
        scheduler.computed(chunks);
        for (const { sequence, index } of scheduler.takeFull()) memory.below.add(prefixOf(sequence, index + 1));
        for (const { sequence } of chunks.filter(({ last }) => last)) {
          while (scheduler.append(sequence, nextToken(sequence.tokens))) {
            computed.set(sequence, computed.get(sequence)! + 1); // by the draft that was right
            if (scheduler.full(sequence)) break;
          }
          if (scheduler.full(sequence)) scheduler.remove(sequence);
          const ahead = [...sequence.tokens];
          for (const isRight of right) ahead.push(isRight ? nextToken(ahead) : 1 - nextToken(ahead));
          scheduler.propose(sequence, ahead.slice(sequence.tokens.length));
        }
        const finished = active.filter(({ sequence }) => sequence.state === 'done');
        for (const { sequence, prompt, maxTokens } of finished) {
          const alone = [...prompt];
          while (alone.length < prompt.length + maxTokens) alone.push(nextToken(alone));
          expect(sequence.tokens).toEqual(alone);
          // Every token but the last is computed or was cached, and once only unless its sequence was interrupted.
          const passed = computed.get(sequence)! + sequence.cachedTokens;
          if (scheduler.counts.preemptions === 0) expect(passed).toBe(sequence.tokens.length - 1);
          active.splice(
            active.findIndex((other) => other.sequence === sequence),
            1,
          );
        }
        return chunks;
      };

      for (const event of events) {
        if (event.kind === 'step') step();
        if (event.kind === 'fetched' && fetching.size > 0) {
          fetched([...fetching][event.which % fetching.size]!, event.found);
        }
        if (event.kind === 'cancel' && active.length > 0) {
          const [{ sequence }] = active.splice(event.which % active.length, 1) as [(typeof active)[0]];
          scheduler.remove(sequence);
        }
        if (event.kind === 'add') {
          const { prompt, maxTokens, priority } = event;
          const places = Math.min(limits.contextTokens, limits.blocks * limits.blockTokens + 1);
          if (prompt.length + maxTokens > places) {
            expect(() => scheduler.add(prompt, maxTokens)).toThrow(RequestTooLargeError);
          } else {
            active.push({ sequence: scheduler.add(prompt, maxTokens, { priority }), prompt, maxTokens });
          }
        }
      }
      // Every token of every request, each perhaps computed again after each interruption, bounds the steps.
      for (let steps = 0; active.length > 0; steps++) {
        expect(steps).toBeLessThan(10_000);
        expect(step().length + fetching.size).toBeGreaterThan(0);
        for (const sequence of [...fetching]) fetched(sequence, true);
      }
      expect(scheduler.plan()).toEqual([]);
      expect([scheduler.running, scheduler.waiting]).toEqual([0, 0]);
      expect(scheduler.pool.free).toBe(limits.blocks);
    }),
    { numRuns: 600 },
  );
});

const roomy: SchedulerLimits = {
  stepTokens: 8,
  sequences: 4,
  waiting: 2,
  contextTokens: 100,
  blocks: 50,
  blockTokens: 4,
};

function run(scheduler: Scheduler, steps: number): Sequence[][] {
  return Array.from({ length: steps }, () => {
    scheduler.admit();
    const chunks = scheduler.plan();
    scheduler.computed(chunks);
    for (const { sequence, last } of chunks) {
      if (!last) continue;
      scheduler.append(sequence, 0);
      if (scheduler.full(sequence)) scheduler.remove(sequence);
    }
    return chunks.map(({ sequence }) => sequence);
  });
}

test('decoding goes on in every step while a long prompt is read in chunks', () => {
  const scheduler = new Scheduler(roomy);
  const decoding = scheduler.add([1], 20);
  run(scheduler, 1);
  const long = scheduler.add(new Array<number>(40).fill(2), 1);
  const steps = run(scheduler, 10);
  for (const step of steps) expect(step).toContain(decoding);
  expect(long.state).toBe('done');
});

test('a prompt takes all of a step, or half of one in which others wait for their next token', () => {
  const counts = (scheduler: Scheduler) => {
    scheduler.admit();
    return scheduler.plan().map(({ count }) => count);
  };
  const alone = new Scheduler(roomy);
  alone.add(new Array<number>(40).fill(2), 1);
  expect(counts(alone)).toEqual([8]);
  const beside = new Scheduler(roomy);
  beside.add([1], 20);
  run(beside, 1);
  beside.add(new Array<number>(40).fill(2), 1);
  expect(counts(beside)).toEqual([1, 4]);
});

test('a request that could never fit is refused with its numbers', () => {
  const scheduler = new Scheduler({ ...roomy, blocks: 3 });
  expect(() => scheduler.add(new Array<number>(90).fill(1), 11)).toThrow(
    "the prompt has 90 tokens and asks for 11 more: together 101, but the model's context holds 100",
  );
  expect(() => scheduler.add([1, 2, 3], 11)).toThrow('needs 4 cache blocks of 4 tokens, but the cache has 3');
  expect(() => scheduler.add([1, 2, 3], 10)).not.toThrow();
});

test('more requests than may wait are refused', () => {
  const scheduler = new Scheduler(roomy);
  for (let i = 0; i < 6; i++) scheduler.add([1], 5);
  expect(() => scheduler.add([1], 5)).toThrow(QueueFullError);
  run(scheduler, 5);
  expect(() => scheduler.add([1], 5)).not.toThrow();
});

test('a low-priority request enters although normal ones keep coming', () => {
  const scheduler = new Scheduler({ ...roomy, sequences: 1, waiting: 10 });
  const low = scheduler.add([1], 1, { priority: 'low' });
  for (let i = 0; i < 3; i++) scheduler.add([1], 1);
  for (let step = 0; step < 6 && low.state !== 'done'; step++) {
    run(scheduler, 1);
    scheduler.add([1], 1);
  }
  expect(low.state).toBe('done');
});

test('drafts change nothing about which blocks are held, and none is left where the answer ends', () => {
  const answer = (drafts: readonly number[]) => {
    const scheduler = new Scheduler(roomy);
    const sequence = scheduler.add([7], 9);
    const seen: { tokens: number; free: number }[] = [];
    while (sequence.state !== 'done') {
      scheduler.admit();
      const chunks = scheduler.plan();
      for (const { start, count, drafts } of chunks) expect(start + count + drafts.length).toBeLessThan(10);
      seen.push({ tokens: sequence.tokens.length, free: scheduler.pool.free });
      scheduler.computed(chunks);
      while (scheduler.append(sequence, 0) && !scheduler.full(sequence));
      if (scheduler.full(sequence)) scheduler.remove(sequence);
      scheduler.propose(sequence, drafts);
    }
    const again = scheduler.add(sequence.tokens, 1);
    scheduler.admit();
    scheduler.plan();
    return { seen: new Map(seen.map(({ tokens, free }) => [tokens, free])), found: again.cachedTokens };
  };
  const plain = answer([]);
  for (const drafts of [
    [0, 0, 0],
    [1, 1, 1],
    [0, 1, 0],
  ]) {
    const { seen, found } = answer(drafts);
    expect(found).toBe(plain.found);
    for (const [tokens, free] of seen) expect(free).toBe(plain.seen.get(tokens));
  }
});

test('a cancelled request gives its blocks back at once', () => {
  const scheduler = new Scheduler(roomy);
  const sequence = scheduler.add(new Array<number>(30).fill(1), 9);
  run(scheduler, 2);
  expect(scheduler.pool.free).toBeLessThan(roomy.blocks);
  scheduler.remove(sequence);
  expect(scheduler.pool.free).toBe(roomy.blocks);
});

test('a repeated prompt is found in the prefix cache, all but what must be computed for its logits', () => {
  const scheduler = new Scheduler(roomy);
  const prompt = Array.from({ length: 12 }, (_, i) => i);
  scheduler.add(prompt, 1);
  run(scheduler, 2);
  const again = scheduler.add(prompt, 1);
  const longer = scheduler.add([...prompt, 99], 1);
  const foreign = scheduler.add(prompt, 1, { tenant: 'other' });
  scheduler.admit();
  scheduler.plan();
  expect([again.cachedTokens, longer.cachedTokens, foreign.cachedTokens]).toEqual([8, 12, 0]);
});
