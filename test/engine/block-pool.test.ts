import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BlockPool } from '../../src/engine/block-pool.ts';

const BLOCK_TOKENS = 2;

test('blocks are never leaked, never held twice, and matched only by the very same tokens', () => {
  const command = fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        kind: fc.constant('start' as const),
        tokens: fc.array(fc.nat(1), { maxLength: 9 }),
        tenant: fc.constantFrom('', 'a'),
      }),
    },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('finish' as const), which: fc.nat() }) },
  );
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 8 }), fc.array(command, { maxLength: 60 }), (total, commands) => {
      const pool = new BlockPool(total, BLOCK_TOKENS);
      const content = new Map<number, string>();
      const active: { blocks: number[]; tenant: string }[] = [];
      for (const command of commands) {
        if (command.kind === 'finish') {
          const [gone] = active.length > 0 ? active.splice(command.which % active.length, 1) : [];
          if (gone) pool.release(gone.blocks);
        } else {
          const { tokens, tenant } = command;
          const full = Math.floor(tokens.length / BLOCK_TOKENS);
          const matched = pool.match(tokens, full, tenant);
          for (const [i, block] of matched.blocks.entries()) {
            // What the model remembers of the block: every token up to its end, and whose they are.
            expect(content.get(block)).toBe(`${tenant}:${tokens.slice(0, (i + 1) * BLOCK_TOKENS)}`);
          }
          const fresh = pool.allocate(full - matched.blocks.length);
          if (!fresh) {
            pool.release(matched.blocks);
          } else {
            const held = new Set(active.flatMap(({ blocks }) => blocks));
            for (const block of fresh) expect(held.has(block)).toBe(false);
            const blocks = [...matched.blocks, ...fresh];
            let prefix = matched.prefix;
            for (let i = matched.blocks.length; i < full; i++) {
              content.set(blocks[i]!, `${tenant}:${tokens.slice(0, (i + 1) * BLOCK_TOKENS)}`);
              prefix = pool.publish(blocks[i]!, prefix, tokens.slice(i * BLOCK_TOKENS, (i + 1) * BLOCK_TOKENS));
            }
            active.push({ blocks, tenant });
          }
        }
        expect(pool.free).toBe(total - new Set(active.flatMap(({ blocks }) => blocks)).size);
      }
      for (const { blocks } of active) pool.release(blocks);
      expect(pool.free).toBe(total);
      expect(pool.allocate(total)?.sort((a, b) => a - b)).toEqual([...Array(total).keys()]);
    }),
    { numRuns: 500 },
  );
});

test('a prefix that was published and released is found again, and evicted from its end when room is needed', () => {
  const pool = new BlockPool(3, 2);
  const [a, b] = pool.allocate(2)!;
  pool.publish(b!, pool.publish(a!, '', [1, 2]), [3, 4]);
  pool.release([a!, b!]);
  expect(pool.cached).toBe(2);
  expect(pool.allocate(2)).toContain(b);
  expect(pool.match([1, 2, 3, 4], 2, '').blocks).toEqual([a]);
});

test('the longest unused prefix is evicted first', () => {
  const pool = new BlockPool(2, 1);
  const [a, b] = pool.allocate(2)!;
  pool.publish(a!, '', [1]);
  pool.publish(b!, '', [2]);
  pool.release([a!]);
  pool.release([b!]);
  pool.release(pool.match([1], 1, '').blocks);
  pool.allocate(1);
  expect(pool.match([2], 1, '').blocks).toEqual([]);
  expect(pool.match([1], 1, '').blocks).toEqual([a]);
});

test('releasing a block that nobody holds is refused', () => {
  const pool = new BlockPool(2, 4);
  const blocks = pool.allocate(1)!;
  pool.release(blocks);
  expect(() => pool.release(blocks)).toThrow('released twice');
});
