import { mkdtemp, readdir, readFile, rename, rm, stat, truncate, utimes, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { DiskCache, type PrefixKey } from '../../src/engine/disk-cache.ts';

const BLOCK_TOKENS = 2;
const BLOCK_BYTES = 50;
/** Header, tokens, content, digest. */
const FILE_BYTES = 16 + 64 + 4 * BLOCK_TOKENS + BLOCK_BYTES + 32;

const made: string[] = [];
afterAll(async () => {
  for (const folder of made) await rm(folder, { recursive: true, force: true });
});
async function newFolder(): Promise<string> {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'farthing-disk-'));
  made.push(folder);
  return folder;
}

const warnings: string[] = [];
function open(folder: string, { blocks = 1000, identity = 'aa'.repeat(32) } = {}): Promise<DiskCache> {
  return DiskCache.open({
    folder,
    bytes: blocks * FILE_BYTES,
    identity,
    blockTokens: BLOCK_TOKENS,
    blockBytes: BLOCK_BYTES,
    warn: (problem) => warnings.push(problem),
  });
}

/** What the model would compute for a prefix: other bytes for every other prefix and tenant. */
const contentOf = (tenant: string, tokens: readonly number[]) =>
  Buffer.alloc(BLOCK_BYTES, `${tenant}/${tokens.join()};`);

/** The places of the blocks of `tokens`, and what they should hold. */
function* blocksOf(cache: DiskCache, tenant: string, tokens: readonly number[]) {
  let before: PrefixKey = cache.root(tenant);
  for (let end = BLOCK_TOKENS; end <= tokens.length; end += BLOCK_TOKENS) {
    const place = { before, tokens: tokens.slice(end - BLOCK_TOKENS, end) };
    yield { place, content: contentOf(tenant, tokens.slice(0, end)) };
    before = cache.after(place);
  }
}

const prompt = fc.record({
  tenant: fc.constantFrom('', 'a'),
  tokens: fc.array(fc.nat(1), { minLength: 2, maxLength: 8 }),
});
const command = fc.oneof(
  { weight: 4, arbitrary: prompt.map((p) => ({ kind: 'write' as const, ...p })) },
  { weight: 4, arbitrary: prompt.map((p) => ({ kind: 'read' as const, ...p })) },
  { weight: 1, arbitrary: fc.constant({ kind: 'reopen' as const }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constantFrom('flip', 'cut', 'swap', 'part'), which: fc.nat(), at: fc.nat() }),
  },
);

async function spoil(folder: string, kind: string, which: number, at: number): Promise<void> {
  const files = (await readdir(folder)).filter((name) => name.endsWith('.block')).sort();
  if (files.length === 0) return;
  const file = path.join(folder, files[which % files.length]!);
  const other = path.join(folder, files[at % files.length]!);
  const content = await readFile(file);
  if (kind === 'cut') await truncate(file, at % FILE_BYTES);
  if (kind === 'part')
    await writeFile(file.replace(/block$/, '0123456789ab.part'), content.subarray(0, at % FILE_BYTES));
  if (kind === 'swap') await rename(file, other);
  if (kind === 'flip') {
    content[at % content.length]! ^= 1 << (at % 8);
    await writeFile(file, content);
  }
}

test('whatever was written, evicted, torn, flipped, swapped or left by a kill: what is read was computed for these very tokens', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 12 }),
      fc.array(command, { maxLength: 40 }),
      async (blocks, commands) => {
        const folder = await newFolder();
        let cache = await open(folder, { blocks });
        for (const command of commands) {
          if (command.kind === 'reopen') {
            await cache.close();
            cache = await open(folder, { blocks });
          } else if ('at' in command) {
            await cache.close();
            await spoil(folder, command.kind, command.which, command.at);
          } else {
            for (const { place, content } of blocksOf(cache, command.tenant, command.tokens)) {
              if (command.kind === 'write') cache.write(place, (into) => into.set(content));
              else expect([null, content]).toContainEqual(await cache.read(place));
            }
            if (command.kind === 'write') await cache.close();
          }
        }
        await cache.close();
        cache = await open(folder, { blocks });
        const files = await readdir(folder);
        expect(files.filter((name) => !name.endsWith('.block'))).toEqual([]);
        const sizes = await Promise.all(files.map(async (name) => (await stat(path.join(folder, name))).size));
        const bytes = sizes.reduce((sum, size) => sum + size, 0);
        expect(bytes).toBe(cache.status().bytes);
        expect(bytes).toBeLessThanOrEqual(blocks * FILE_BYTES);
      },
    ),
    { numRuns: 60 },
  );
});

test('what was written is found after a restart, by the same tokens of the same tenant after the same beginning alone', async () => {
  const folder = await newFolder();
  const first = await open(folder);
  const tokens = [1, 2, 3, 4];
  for (const { place, content } of blocksOf(first, 'a', tokens)) first.write(place, (into) => into.set(content));
  await first.close();
  const again = await open(folder);
  const found = async (tenant: string, wanted: number[], cache = again) => {
    const contents: (string | null)[] = [];
    for (const { place } of blocksOf(cache, tenant, wanted)) {
      const content = await cache.read(place);
      contents.push(content && Buffer.from(content).toString());
    }
    return contents;
  };
  const [one, two] = [...blocksOf(again, 'a', tokens)].map(({ content }) => content.toString());
  expect(await found('a', tokens)).toEqual([one, two]);
  expect(await found('b', tokens)).toEqual([null, null]);
  expect(await found('a', [1, 2, 3, 5])).toEqual([one, null]);
  expect(await found('a', [2, 1, 3, 4])).toEqual([null, null]);
  expect(await found('a', tokens, await open(folder, { identity: 'bb'.repeat(32) }))).toEqual([null, null]);
});

test('a file of another model under the name of one of ours is named, not used and removed', async () => {
  const folder = await newFolder();
  const theirs = await open(folder, { identity: 'aa'.repeat(8) + 'bb'.repeat(24) });
  const ours = await open(folder);
  const [their] = [...blocksOf(theirs, '', [1, 2])];
  const [our] = [...blocksOf(ours, '', [1, 2])];
  for (const [cache, { place, content }] of [[theirs, their!] as const, [ours, our!] as const]) {
    cache.write(place, (into) => into.set(content));
    await cache.close();
  }
  const nameOf = (cache: DiskCache, { place }: { place: Parameters<DiskCache['after']>[0] }) =>
    path.join(folder, `${'aa'.repeat(8)}-${cache.after(place)}.block`);
  await rename(nameOf(theirs, their!), nameOf(ours, our!));
  warnings.length = 0;
  expect(await ours.read(our!.place)).toBe(null);
  expect(warnings).toEqual([expect.stringContaining('belongs to another model')]);
  expect(ours.status().counts.damaged).toBe(1);
  expect(await readdir(folder)).toEqual([]);
});

test('when the limit is reached, what was used longest ago goes first, also after a restart', async () => {
  const folder = await newFolder();
  const cache = await open(folder, { blocks: 2 });
  const write = async (token: number, into = cache) => {
    const [{ place, content }] = [...blocksOf(into, '', [token, token])] as [{ place: never; content: Buffer }];
    into.write(place, (to) => to.set(content));
    await into.close();
    return into.after(place);
  };
  const one = await write(1);
  const two = await write(2);
  cache.touch([one]);
  const three = await write(3);
  expect([one, two, three].map((key) => cache.has(key))).toEqual([true, false, true]);
  // The clock of file times may be too coarse to tell the writes apart.
  await utimes(path.join(folder, `${'aa'.repeat(8)}-${one}.block`), 1, 1);
  const smaller = await open(folder, { blocks: 1 });
  expect([one, two, three].map((key) => smaller.has(key))).toEqual([false, false, true]);
});

test('files that are no cache blocks are counted to the user and left alone; a limit below one block is refused', async () => {
  const folder = await newFolder();
  await writeFile(path.join(folder, 'thesis.txt'), 'mine');
  warnings.length = 0;
  await open(folder);
  expect(warnings).toEqual([`${folder}: files that are no cache blocks (1) are left alone`]);
  expect(await readdir(folder)).toEqual(['thesis.txt']);
  await expect(open(folder, { blocks: 0.5 })).rejects.toThrow('one block takes');
});
