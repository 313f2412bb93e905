import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';

/** Folders of src/, lowest first; a file may import from its own folder and from the layers below its own. */
const LAYERS = [
  ['numerics'],
  ['backend'],
  ['tokenizer', 'model'],
  ['economics', 'train', 'engine'],
  ['align', 'router'],
  ['server'],
  ['cli'],
];

const layerOf = (folder: string) => LAYERS.findIndex((layer) => layer.includes(folder));

const sources = readdirSync('src', { recursive: true, encoding: 'utf8' }).filter((f) => /\.tsx?$/.test(f));

test('imports point down the layers, never up', () => {
  const upward: string[] = [];
  for (const file of sources) {
    const from = file.split(path.sep)[0]!;
    if (from === file) continue;
    for (const [, target] of readFileSync(path.join('src', file), 'utf8').matchAll(
      /(?:from|import\()\s*'(\.[^']+)'/g,
    )) {
      const to = path.relative('src', path.resolve('src', path.dirname(file), target!)).split(path.sep)[0]!;
      if (to === from || to === '..') continue;
      const allowed = layerOf(from) > layerOf(to) && !(from === 'economics' && to !== 'model' && to !== 'numerics');
      if (layerOf(from) < 0 || layerOf(to) < 0 || !allowed) upward.push(`${file} imports ${target}`);
    }
  }
  expect(upward).toEqual([]);
});

test('nothing below the command line imports it or the server', () => {
  const offenders = sources.filter(
    (file) =>
      !/^(cli|server)\b/.test(file) && /from '[./]*\/(cli|server)\//.test(readFileSync(path.join('src', file), 'utf8')),
  );
  expect(offenders).toEqual([]);
});
