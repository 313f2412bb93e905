import { readdirSync, readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { z } from 'zod';

const collections = readdirSync('models/corpus').filter((file) => file.endsWith('.jsonl.gz'));
const record = z.object({
  title: z.string().min(1),
  author: z.string().min(1).optional(),
  source: z.string().min(1),
  licence: z.enum(['CC-BY', 'Public Domain', 'public domain (US)', 'CC0-1.0', 'Apache-2.0', 'CDLA-Sharing-1.0']),
  text: z.string().min(100),
});

test.each(collections)(
  'every document of %s has title, source, licence and, where CC-BY asks for it, author',
  (file) => {
    const lines = gunzipSync(readFileSync(`models/corpus/${file}`))
      .toString('utf8')
      .trimEnd()
      .split('\n');
    expect(lines.length).toBeGreaterThan(50);
    for (const line of lines) {
      const { licence, author } = record.parse(JSON.parse(line));
      if (licence === 'CC-BY') expect(author).toBeTypeOf('string');
    }
  },
);
