/** Reading a corpus: plain text files, JSON lines with a `text` field, gzipped or not, and folders of those. */
import { createReadStream } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { createGunzip } from 'node:zlib';
import { z } from 'zod';
import { FormatError } from '../numerics/format-error.ts';

export interface CorpusDocument {
  readonly title: string;
  readonly source: string;
  readonly text: string;
}

class CorpusError extends FormatError {
  override name = 'CorpusError';
}

const record = z.object({ text: z.string().min(1), title: z.string().default(''), source: z.string().default('') });

/**
 * Documents of the given files and folders, in order of name. A .txt file is one document; a line of .jsonl is one.
 * @throws CorpusError naming file and line
 */
export async function* readCorpus(paths: readonly string[]): AsyncGenerator<CorpusDocument> {
  for (const given of paths) {
    const files = (await stat(given).catch(() => refuse(given, 'not found'))).isDirectory()
      ? (await readdir(given))
          .sort()
          .map((name) => path.join(given, name))
          .filter((file) => readable(file))
      : [given];
    if (files.length === 0) refuse(given, 'holds no .txt, .jsonl or .jsonl.gz file');
    for (const file of files) {
      if (!readable(file)) refuse(file, 'expected a .txt, .jsonl, .txt.gz or .jsonl.gz file');
      yield* /\.jsonl(\.gz)?$/.test(file) ? readLines(file) : readText(file);
    }
  }
}

const readable = (file: string) => /\.(txt|jsonl)(\.gz)?$/.test(file);

function refuse(file: string, problem: string): never {
  throw new CorpusError(`${file}: ${problem}`);
}

function open(file: string) {
  const raw = createReadStream(file);
  return file.endsWith('.gz') ? raw.pipe(createGunzip()) : raw;
}

async function* readText(file: string): AsyncGenerator<CorpusDocument> {
  const chunks: Buffer[] = [];
  for await (const chunk of open(file)) chunks.push(chunk as Buffer);
  const text = Buffer.concat(chunks).toString('utf8').trim();
  if (text) yield { title: path.basename(file), source: file, text };
}

async function* readLines(file: string): AsyncGenerator<CorpusDocument> {
  let number = 0;
  for await (const line of createInterface({ input: open(file), crlfDelay: Number.POSITIVE_INFINITY })) {
    number++;
    if (line.trim() === '') continue;
    let json: unknown;
    try {
      json = JSON.parse(line);
    } catch {
      refuse(file, `line ${number} is no JSON: ${line.slice(0, 60)}`);
    }
    const parsed = record.safeParse(json);
    if (!parsed.success) refuse(file, `line ${number}: expected an object with a text, found ${line.slice(0, 60)}`);
    yield parsed.data;
  }
}
