import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect, onTestFinished, test } from 'vitest';
import { type CorpusDocument, readCorpus } from '../../src/train/corpus.ts';

function folderOf(files: Readonly<Record<string, string | Buffer>>): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'farthing-corpus-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  for (const [name, content] of Object.entries(files)) writeFileSync(path.join(folder, name), content);
  return folder;
}

async function read(...paths: string[]): Promise<CorpusDocument[]> {
  const documents: CorpusDocument[] = [];
  for await (const document of readCorpus(paths)) documents.push(document);
  return documents;
}

const line = (title: string) => `${JSON.stringify({ title, source: 's', text: `text of ${title}` })}\n`;

test('a folder is read in order of names: plain text, JSON lines, gzipped or not', async () => {
  const folder = folderOf({
    'c.jsonl.gz': gzipSync(line('c1') + line('c2')),
    'a.txt': 'text of a\n',
    'b.jsonl': `${line('b1')}\n${line('b2')}`,
    'notes.md': 'not part of it',
  });
  const documents = await read(folder);
  expect(documents.map(({ text }) => text)).toEqual(['a', 'b1', 'b2', 'c1', 'c2'].map((name) => `text of ${name}`));
  expect(documents[1]).toEqual({ title: 'b1', source: 's', text: 'text of b1' });
});

test.each([
  ['a path that is not there', (folder: string) => path.join(folder, 'no'), /no: not found/],
  ['a folder without texts', (folder: string) => folder, /holds no \.txt/],
  ['a file of another kind', (folder: string) => path.join(folder, 'notes.md'), /notes\.md: expected a \.txt/],
])('%s is refused by name', async (_, choose, message) => {
  await expect(read(choose(folderOf({ 'notes.md': 'x' })))).rejects.toThrow(message);
});

test.each([
  ['no JSON', '{"text":', /x\.jsonl: line 2 is no JSON: \{"text":/],
  ['no text', '{"title":"t"}', /x\.jsonl: line 2: expected an object with a text/],
])('a line with %s is refused by number', async (_, bad, message) => {
  await expect(read(folderOf({ 'x.jsonl': line('fine') + bad }))).rejects.toThrow(message);
});
