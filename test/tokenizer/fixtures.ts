/** The real tokenizers of test/fixtures, unpacked into folders as a user has them on disk. */
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { gunzipSync } from 'node:zlib';
import { onTestFinished } from 'vitest';
import { loadTokenizer, type Tokenizer } from '../../src/tokenizer/tokenizer.ts';

const FIXTURES = 'test/fixtures/tokenizers';

const opened = new Map<string, Promise<Tokenizer>>();

/** The tokenizer of a fixture folder; loaded once for a test file. */
export function fixtureTokenizer(name: string): Promise<Tokenizer> {
  let tokenizer = opened.get(name);
  if (!tokenizer) {
    tokenizer = load(name);
    opened.set(name, tokenizer);
  }
  return tokenizer;
}

/** A new folder with these files, removed when the test ends. */
export function folderOf(files: Readonly<Record<string, string>>): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'farthing-tokenizer-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  for (const [name, text] of Object.entries(files)) writeFileSync(path.join(folder, name), text);
  return folder;
}

export function fixtureText(file: string): string {
  const bytes = readFileSync(path.join(FIXTURES, file));
  return (file.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString('utf8');
}

export function fixtureLines<T>(file: string): T[] {
  return fixtureText(file)
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
}

async function load(name: string): Promise<Tokenizer> {
  const folder = mkdtempSync(path.join(tmpdir(), 'farthing-tokenizer-'));
  try {
    writeFileSync(path.join(folder, 'tokenizer.json'), fixtureText(`${name}/tokenizer.json.gz`));
    const config = path.join(FIXTURES, name, 'tokenizer_config.json');
    if (existsSync(config)) copyFileSync(config, path.join(folder, 'tokenizer_config.json'));
    const tokenizer = await loadTokenizer(folder);
    if (!tokenizer) throw new Error(`${folder} has no tokenizer`);
    return tokenizer;
  } finally {
    rmSync(folder, { recursive: true });
  }
}
