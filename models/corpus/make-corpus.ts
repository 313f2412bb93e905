/**
 * Makes the collections of this folder from the published sources: `npx tsx models/corpus/make-corpus.ts SOURCES OUT`.
 * One form for all (JSON lines of title, source, licence, text), plain quotes, whole paragraphs, no story twice.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { createGunzip, gzipSync } from 'node:zlib';
import { replaceFile } from '../../src/numerics/replace-file.ts';

interface Document {
  readonly title: string;
  readonly author?: string;
  readonly illustrator?: string;
  readonly source: string;
  readonly licence: string;
  readonly text: string;
}

type Row = Readonly<Record<string, string>> & { readonly sections: readonly string[] };

const [sources, out] = process.argv.slice(2);
if (!sources || !out) throw new Error('usage: make-corpus.ts SOURCES OUT');

/** In this order, the first of two tellings of a tale is kept: the simplest and shortest forms come first. */
const collections: Record<string, AsyncIterable<Document>> = {
  tinystories: tinyStories(),
  storybooks: storybooks(),
  'fairy-tales': fairyTales(),
  fables: classicBooks((title) => title === "Aesop's Fables"),
  fairytaleqa: fairytaleQa(),
  'standard-ebooks': standardEbooks(),
  'classic-books': classicBooks((title) => title !== "Aesop's Fables"),
};

await mkdir(out, { recursive: true });
const isNew = duplicateFinder();
for (const [name, documents] of Object.entries(collections)) {
  const lines: string[] = [];
  let dropped = 0;
  for await (const document of documents) {
    const text = plain(document.text);
    if (text.length < 150 || !isNew(text)) dropped++;
    else lines.push(JSON.stringify({ ...document, title: plain(document.title), text }));
  }
  const packed = gzipSync(`${lines.join('\n')}\n`, { level: 9 });
  await replaceFile(path.join(out, `${name}.jsonl.gz`), async (file) => {
    await file.writeFile(packed);
  });
  console.log(`${name}: ${lines.length} documents, ${dropped} dropped, ${packed.length} bytes`);
}

/** Story limits are not marked: in one file a story begins without a blank line before it, in the other as tales do. */
async function* tinyStories(): AsyncIterable<Document> {
  const train = await readFile(path.join(sources!, 'tinystories-sample/train.txt'), 'utf8');
  const valid = await readFile(path.join(sources!, 'tinystories-sample/valid.txt'), 'utf8');
  const stories = [...train.split(/(?<=\S)\n(?=\S)/), ...valid.split(/(?<=\S)\n(?=\S)/)].flatMap(atOpenings);
  for (const [i, text] of stories.entries()) {
    yield { title: `TinyStories ${i}`, source: 'TinyStories', licence: 'CDLA-Sharing-1.0', text };
  }
}

/** Parts a run of stories where one opens: "Once upon a time", or a sentence on somebody not named just before. */
function atOpenings(run: string): string[] {
  const stories: string[][] = [];
  const paragraphs = run.split('\n\n');
  for (const [i, paragraph] of paragraphs.entries()) {
    const before = paragraphs.slice(Math.max(0, i - 4), i).join(' ');
    const [, one, two] =
      /^([A-Z][a-z]+)(?: and ([A-Z][a-z]+))? (?:is|are|was|were|has|had|likes?d?|loves?d?|wants?|wanted|went|lived) /.exec(
        paragraph,
      ) ?? [];
    const isSomebody =
      one !== undefined && !/^(?:Mom|Dad|Mommy|Daddy|He|She|It|They|This|That|There|Everyone)$/.test(one);
    const isNew = isSomebody && !before.includes(one) && !(two && before.includes(two));
    const opens =
      isNew || /^(?:Once upon a time|Once,? there (?:was|were)|One day, an? [a-z ]+ named)\b/.test(paragraph);
    if (opens || stories.length === 0) stories.push([paragraph]);
    else stories.at(-1)!.push(paragraph);
  }
  return stories.map((story) => story.join('\n\n'));
}

async function* storybooks(): AsyncIterable<Document> {
  for await (const { title, author, illustrator, source, license, text } of rows('storybooks-cc-by/train.jsonl')) {
    yield {
      title: title!,
      author: author!,
      illustrator: illustrator!,
      source: source!,
      licence: license!,
      text: text!,
    };
  }
}

async function* fairyTales(): AsyncIterable<Document> {
  for await (const { title, author, source, text } of rows('classic-childrens-books/fairy-tales.jsonl.gz')) {
    yield { title: title!, author: author!, source: source!, licence: 'public domain (US)', text: text! };
  }
}

async function* fairytaleQa(): AsyncIterable<Document> {
  for (const file of ['fairytaleqa/train.stories.jsonl.gz', 'fairytaleqa/val.stories.jsonl']) {
    for await (const { story, sections } of rows(file)) {
      const text = sections.map(unwrapped).join('\n\n');
      yield { title: story!.replaceAll('-', ' '), source: 'FairytaleQA', licence: 'Apache-2.0', text };
    }
  }
}

async function* standardEbooks(): AsyncIterable<Document> {
  for await (const { title, part, author, source, text } of rows('classic-childrens-books/standard-ebooks.jsonl.gz')) {
    // Aesop's fables come one by one with the classic books.
    if (part === 'fables') continue;
    yield { title: `${title}, ${part}`, author: author!, source: source!, licence: 'CC0-1.0', text: text! };
  }
}

/** Chapters in an order that has nothing to do with the books', so that the first of them are a sample of all. */
async function* classicBooks(wanted: (title: string) => boolean): AsyncIterable<Document> {
  const all: Document[] = [];
  for await (const { title, author, source, text } of rows('classic-childrens-books/classic-books.jsonl.gz')) {
    const book = { title: title!, author: author!, source: source!, licence: 'public domain (US)' };
    if (wanted(book.title)) all.push(...chapters(book, text!));
  }
  const order = (document: Document) => createHash('sha256').update(document.title).digest('hex');
  const keyed = all.map((document) => ({ document, key: order(document) }));
  for (const { document } of keyed.sort((a, b) => (a.key < b.key ? -1 : 1))) yield document;
}

/** A book at its headings, so that a chapter or a fable is a document. */
function chapters(book: Omit<Document, 'text'>, text: string): Document[] {
  const isHeading = (paragraph: string) =>
    paragraph.length < 90 &&
    (/^(?:the )?(?:chapter|stave|part|book)\b|^\w+ chapter\b/i.test(paragraph) ||
      /^[IVXL]+\b[.\s—-]*[^a-z]*$/.test(paragraph) ||
      /^(?:THE|A|AN) [A-Z' ,-]+$/.test(paragraph));
  const parts: { heading: string; paragraphs: string[] }[] = [{ heading: '', paragraphs: [] }];
  for (const paragraph of text.split('\n\n')) {
    const open = parts.at(-1)!;
    if (!isHeading(paragraph)) open.paragraphs.push(paragraph);
    else if (open.paragraphs.length === 0) open.heading = `${open.heading} ${paragraph}`.trim();
    else parts.push({ heading: paragraph, paragraphs: [] });
  }
  return parts.map(({ heading, paragraphs }) => ({
    ...book,
    title: heading ? `${book.title}, ${heading}` : book.title,
    text: paragraphs.join('\n\n'),
  }));
}

/** Lines cut at a width become paragraphs again: a line that does not end a sentence goes on in the next. */
function unwrapped(section: string): string {
  const wrapped = section.includes('\n\n');
  return section
    .split(/\n\s*\n/)
    .map((block) =>
      block.replace(wrapped ? /\s*\n\s*/g : /(?<![.!?:;"'”’])\s*\n\s*/g, ' ').replace(/\s*\n\s*/g, '\n\n'),
    )
    .join('\n\n')
    .replace(/(?<=[\p{L},])\n\n(?=\p{Ll})/gu, ' ');
}

/** ASCII quotes and dashes, no invisible characters, no double encoding, paragraphs one blank line apart. */
function plain(text: string): string {
  return text
    .replace(/â€œ|â€\u009d/g, '"')
    .replace(/â€™|â€˜/g, "'")
    .replaceAll('â€', '"')
    .replace(/[“”„]/g, '"')
    .replace(/[‘’]/g, "'")
    .replaceAll('…', '...')
    .replace(/‑/g, '-')
    .replace(/\s*(?:—|―|--+)\s*/g, ' - ')
    .replace(/[\u200b\u2060\ufeff\ufffd\u0080-\u009f]/g, '')
    .replace(/\s*[\u2028\u2029]\s*/g, '\n\n')
    .replace(/[^\S\n]+/g, ' ')
    .replace(/ ?\n ?/g, '\n')
    .replace(/\n{3,}/g, '\n\n')
    .trim();
}

/** Tells whether less than half of a text's runs of eight words were in the texts before it. */
function duplicateFinder(): (text: string) => boolean {
  const seen = new Set<string>();
  return (text) => {
    const words = text.toLowerCase().match(/[a-z]+/g) ?? [];
    const runs = words.slice(7).map((_, i) => words.slice(i, i + 8).join(' '));
    const known = runs.filter((run) => seen.has(run)).length;
    for (const run of runs) seen.add(run);
    return known * 2 <= runs.length;
  };
}

async function* rows(file: string): AsyncIterable<Row> {
  const raw = createReadStream(path.join(sources!, file));
  const input = file.endsWith('.gz') ? raw.pipe(createGunzip()) : raw;
  for await (const line of createInterface({ input })) yield JSON.parse(line);
}
