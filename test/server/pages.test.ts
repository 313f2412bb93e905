import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Hono } from 'hono';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Listening, listen } from '../../src/server/listen.ts';
import { pages } from '../../src/server/pages.ts';

let parent: string;
let server: Listening;

beforeAll(async () => {
  parent = await mkdtemp(path.join(tmpdir(), 'farthing-pages-'));
  const folder = path.join(parent, 'web');
  await mkdir(path.join(folder, 'assets'), { recursive: true });
  await mkdir(path.join(folder, 'cost'));
  await writeFile(path.join(parent, 'secret.txt'), 'not a page');
  await writeFile(path.join(folder, 'index.html'), '<p>chat</p>');
  await writeFile(path.join(folder, 'cost/index.html'), '<p>cost</p>');
  await writeFile(path.join(folder, 'assets/chat-1a2b.js'), 'chat()');
  const app = new Hono();
  app.get('*', pages(folder));
  app.notFound((c) => c.text('nothing here', 404));
  server = await listen(app, '127.0.0.1', 0);
});
afterAll(async () => {
  await server.close(0);
  await rm(parent, { recursive: true });
});

test.each([
  ['/', '<p>chat</p>', 'text/html; charset=utf-8', 'no-cache'],
  ['/cost', '<p>cost</p>', 'text/html; charset=utf-8', 'no-cache'],
  ['/cost/', '<p>cost</p>', 'text/html; charset=utf-8', 'no-cache'],
  ['/assets/chat-1a2b.js', 'chat()', 'text/javascript; charset=utf-8', 'public, max-age=31536000, immutable'],
])('%s is served as what it is, and kept as long as it stays the same', async (at, text, type, kept) => {
  const response = await fetch(server.url + at);
  expect(await response.text()).toBe(text);
  expect(response.headers.get('Content-Type')).toBe(type);
  expect(response.headers.get('Cache-Control')).toBe(kept);
  expect(response.headers.get('X-Content-Type-Options')).toBe('nosniff');
});

test.each([
  '/nothing',
  '/assets',
  '/assets/',
  '/cost/nothing.js',
  '/%2e%2e/secret.txt',
  '/..%2fsecret.txt',
  '/%',
  '/%00',
])('%s is not found', async (at) => {
  for (const method of ['GET', 'HEAD']) expect((await fetch(server.url + at, { method })).status).toBe(404);
});
