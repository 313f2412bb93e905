import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import axe from 'axe-core';
import { pino } from 'pino';
import type { Browser, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { setThreads } from '../../src/backend/native.ts';
import { type LanguageModel, loadModel } from '../../src/engine/language-model.ts';
import { createApp } from '../../src/server/app.ts';
import { type Listening, listen } from '../../src/server/listen.ts';
import { createMetrics } from '../../src/server/metrics.ts';
import { browserToTestWith, DESKTOP, launchBrowser, openPage, PHONE } from '../web/browser.ts';
import { buildPages } from '../web/stand-in-server.ts';

const OPENING = 'Once upon a time there was a fox who lived with a crow in a big red tree near the water. '.repeat(8);

// The built-in model, since it drafts.
describe.runIf(browserToTestWith)('the engine page on the real server', () => {
  let folder: string;
  let model: LanguageModel;
  let server: Listening;
  let browser: Browser;
  let built: Awaited<ReturnType<typeof buildPages>>;
  let page: Page;
  let faults: string[];
  const stopping = new AbortController();

  const load = () => {
    const diskCache = { folder, bytes: 2 ** 26, warn: (problem: string) => faults.push(problem) };
    return loadModel('models/farthing-tiny', { sequences: 4, waiting: 100, diskCache });
  };
  const answers = async (count: number, maxTokens: number) => {
    const ask = async (seed: number) => {
      for await (const _ of model.generate({ prompt: `${OPENING}${seed}`, maxTokens, seed }));
    };
    await Promise.all(Array.from({ length: count }, (_, seed) => ask(seed)));
  };

  beforeAll(async () => {
    setThreads(2);
    faults = [];
    folder = await mkdtemp(path.join(os.tmpdir(), 'engine-page-'));
    built = await buildPages();
    model = await load();
    await answers(1, 4);
    await model.close();
    model = await load();
    const metrics = createMetrics(model.engine, model.name);
    const runs = { folder: 'none', stopping: stopping.signal };
    const log = pino({ level: 'silent' });
    server = await listen(
      createApp({ model, apiKey: null, log, metrics, runs, pagesFolder: built.folder }),
      '127.0.0.1',
      0,
    );
    browser = await launchBrowser();
  });
  afterEach(async () => {
    await page.context().close();
    expect(faults).toEqual([]);
  });
  afterAll(async () => {
    await browser.close();
    stopping.abort();
    await server.close(0);
    await model.close();
    await built.remove();
    await rm(folder, { recursive: true });
  });

  async function open(options: Parameters<typeof openPage>[2] = DESKTOP): Promise<void> {
    ({ page, faults } = await openPage(browser, `${server.url}/engine`, options));
    page.setDefaultTimeout(40_000);
    await page.getByText('farthing-tiny').waitFor();
  }
  /** The value and the note of a figure. */
  const figure = async (name: string) => {
    const all = page.locator('.engine-figures > div').filter({ has: page.getByText(name, { exact: true }) });
    const [value, note] = await all.locator('dd').allTextContents();
    return { value: value!, note: note! };
  };
  const chart = (name: RegExp) => page.getByRole('img', { name }).getAttribute('aria-label');

  test('while requests run it shows them, their tokens, the cache, hits from disk, kept drafts and the load of experts', async () => {
    await open();
    expect(await figure('prefix hits')).toEqual({ value: '–', note: '– from disk' });
    const running = answers(24, 60);
    await expect
      .poll(() => figure('running'))
      .toMatchObject({ value: '4', note: expect.stringMatching(/^\d+ waiting$/) });
    await expect.poll(async () => Number((await figure('tokens/s')).value)).toBeGreaterThan(0);
    await running;
    await expect.poll(() => figure('answered')).toMatchObject({ value: '24' });
    const { counts, disk } = model.engine.status();
    const percent = (part: number, all: number) => `${Math.round((100 * part) / all)} %`;
    expect(counts.fetchedPromptTokens).toBeGreaterThan(0);
    expect(await figure('prefix hits')).toEqual({
      value: percent(counts.cachedPromptTokens, counts.promptTokens),
      note: `${percent(counts.fetchedPromptTokens, counts.promptTokens)} from disk`,
    });
    const { drafted, accepted } = counts.drafts;
    expect((await figure('drafts kept')).value).toBe(percent(accepted, drafted));
    await page.getByText(`${disk!.counts.read} blocks read, `).waitFor();
    await page.getByText(`of ${drafted.toLocaleString('en')} drafted`).waitFor();
    expect(await chart(/^Prefix hits/)).toMatch(/from disk/);
    const [, expert, layer] = (await chart(/^Expert loads/))!.match(/busiest is expert (\d+) of layer (\d+)/)!;
    const loads = model.engine.status().expertLoads[layer!]!;
    expect(loads[Number(expert)]).toBeGreaterThan(loads.reduce((a, b) => a + b, 0) / loads.length);
  });

  test('at a phone’s width nothing sticks out', async () => {
    await open(PHONE);
    const found = await page.evaluate(() => ({
      width: document.documentElement.scrollWidth,
      outside: [...document.querySelectorAll('.engine-main *, .masthead *')]
        .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
        .map((e) => e.className),
    }));
    expect(found).toEqual({ width: 360, outside: [] });
  });

  for (const colorScheme of ['light', 'dark'] as const) {
    test(`axe finds nothing to object to in the ${colorScheme} theme`, async () => {
      await open({ ...DESKTOP, colorScheme, reducedMotion: 'reduce' });
      await page.evaluate(axe.source);
      const { violations } = await page.evaluate(() => (window as unknown as { axe: typeof axe }).axe.run());
      expect(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`)).toEqual([]);
    });
  }
});
