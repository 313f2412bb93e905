/** The training page in Chromium, before the real run routes and a run that was really trained: what is seen and done. */
import { appendFile, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import axe from 'axe-core';
import { Hono } from 'hono';
import type { Browser, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { toApiError } from '../../src/server/api-error.ts';
import { type Listening, listen } from '../../src/server/listen.ts';
import { pages } from '../../src/server/pages.ts';
import { trainingRuns } from '../../src/server/training-runs.ts';
import { runConfig } from '../../src/train/configured-run.ts';
import { readTrainConfig } from '../../src/train/train-config.ts';
import { browserToTestWith, DESKTOP, launchBrowser, openPage, PHONE } from './browser.ts';
import { buildPages } from './stand-in-server.ts';

const STEPS = 24;
const SAMPLED = 'The fox';

/** Trains a tiny model on the way: metrics, loads and samples are of the real thing. */
async function trainTinyRun(folder: string): Promise<void> {
  const [model] = (await readFile('examples/tales.toml', 'utf8'))
    .replace('vocab_size = 2048', 'vocab_size = 320')
    .replace('num_hidden_layers = 4', 'num_hidden_layers = 3')
    .split('[data]');
  const texts = Array.from({ length: 200 }, (_, i) =>
    JSON.stringify({ text: `The fox saw ${i} apples and ${i % 7} eggs, and the crow saw the fox. It was a fine day.` }),
  );
  await writeFile(path.join(folder, 'texts.jsonl'), texts.join('\n'));
  const rest = `[data]\ntrain = ["texts.jsonl"]\nsequence = 64\nbatch_tokens = 128\nhold_out = 5\n[schedule]\npeak = 3e-3\nsteps = ${STEPS}
warmup_steps = 5\n[run]\nfolder = "runs/tiny"\nvalidate_every = 8\nsample_prompts = ["${SAMPLED}"]\nsample_tokens = 6\n`;
  await writeFile(path.join(folder, 'run.toml'), `${model}${rest}`);
  const config = await readTrainConfig(path.join(folder, 'run.toml'));
  for await (const _ of runConfig(config, { resume: false, onPlan() {} }));
}

describe.runIf(browserToTestWith)('the training page', () => {
  let folder: string;
  let browser: Browser;
  let built: Awaited<ReturnType<typeof buildPages>>;
  let server: Listening;
  let stopping: AbortController;
  let page: Page;
  let faults: string[];

  const inRun = (run: string, name: string) => path.join(folder, 'runs', run, name);
  const linesOf = async (name: string) => (await readFile(inRun('tiny', name), 'utf8')).trimEnd().split('\n');

  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'train-page-'));
    [browser, built] = await Promise.all([launchBrowser(), buildPages(), trainTinyRun(folder)]);
  }, 120_000);
  afterAll(async () => {
    await browser?.close();
    await built?.remove();
    await rm(folder, { recursive: true });
  });
  beforeEach(() => serve('runs'));
  afterEach(async () => {
    await page?.context().close();
    await stop();
    await rm(path.join(folder, 'runs/live'), { recursive: true, force: true });
    expect(faults).toEqual([]);
  });

  async function serve(runs: string, port = 0): Promise<void> {
    stopping = new AbortController();
    const app = new Hono();
    const watched = { folder: path.join(folder, runs), stopping: stopping.signal };
    app.route(
      '/v1/runs',
      trainingRuns(watched, (error) => toApiError(error, 'run')),
    );
    app.get('*', pages(built.folder));
    server = await listen(app, '127.0.0.1', port);
  }
  async function stop(): Promise<void> {
    stopping.abort();
    await server.close(0);
  }
  async function open(options: Parameters<typeof openPage>[2] = DESKTOP): Promise<void> {
    ({ page, faults } = await openPage(browser, `${server.url}/train`, options));
    page.setDefaultTimeout(40_000);
  }
  /** A second run beside the tiny one: its first steps. */
  async function copyRun(steps: number): Promise<string[]> {
    const lines = await linesOf('metrics.jsonl');
    await rm(path.join(folder, 'aside'), { recursive: true, force: true });
    await mkdir(path.join(folder, 'aside'));
    await writeFile(path.join(folder, 'aside/metrics.jsonl'), `${lines.slice(0, steps).join('\n')}\n`);
    await writeFile(path.join(folder, 'aside/run.json'), await readFile(inRun('tiny', 'run.json')));
    await rename(path.join(folder, 'aside'), path.join(folder, 'runs/live'));
    return lines;
  }
  const row = (name: string) => page.getByRole('row').filter({ hasText: name });
  const cell = (run: string, column: string) => row(run).locator(`td[data-name="${column}"]`).textContent();
  const chart = (name: string | RegExp) => page.getByRole('img', { name });
  /** Whether anything but the ground is drawn. */
  const drawn = (name: RegExp) =>
    chart(name)
      .locator('canvas')
      .first()
      .evaluate((canvas: HTMLCanvasElement) => {
        const { data } = canvas.getContext('2d')!.getImageData(0, 0, canvas.width, canvas.height);
        const colours = new Set<number>();
        for (let i = 0; i < data.length; i += 4)
          if (data[i + 3]! > 200) colours.add(data[i]! * 65536 + data[i + 1]! * 256 + data[i + 2]!);
        return colours.size > 4;
      });

  test('a run that has ended shows its figures, curves, expert loads and texts, as its files have them', async () => {
    await open();
    await page.getByText('done').waitFor();
    const last = JSON.parse((await linesOf('metrics.jsonl')).at(-1)!);
    await expect.poll(() => cell('tiny', 'Step')).toBe(`${STEPS} / ${STEPS}`);
    expect(await cell('tiny', 'Held out')).toBe(last.validation.toFixed(3));
    expect(await cell('tiny', 'Bits per byte')).toBe(last.bitsPerByte.toFixed(3));
    expect(await cell('tiny', 'Busiest expert')).toBe(`${last.imbalance.toFixed(2)}×`);
    for (const name of [
      /^Training loss/,
      /^Rate/,
      /^Learning rate/,
      /^Gradient norm/,
      /^Busiest expert/,
      /^Expert loads/,
    ])
      await expect.poll(() => drawn(name)).toBe(true);
    expect(await chart(/^Training loss/).getAttribute('aria-label')).toContain(`at step ${STEPS}`);
    const texts = (await linesOf('samples.jsonl')).map((line) => JSON.parse(line));
    const shown = page.locator('.sample-text');
    await expect.poll(() => shown.textContent()).toContain(SAMPLED);
    await page.getByLabel(/^at step/).press('Home');
    const first = texts.find(({ step }) => step === 8).text.replace(/\n{2,}/g, '\n');
    await expect.poll(() => shown.textContent()).toBe(SAMPLED + first);
  });

  test('a run is watched while it goes on, also after it went back to a checkpoint', async () => {
    const lines = await copyRun(5);
    await open();
    await expect.poll(() => cell('live', 'Step')).toBe(`5 / ${STEPS}`);
    await row('live').getByText(/left$/).waitFor();
    await appendFile(inRun('live', 'metrics.jsonl'), `${lines[5]}\n`);
    await expect.poll(() => chart(/^Training loss/).getAttribute('aria-label')).toContain('at step 6.');
    await writeFile(inRun('live', 'aside'), `${lines.slice(0, 3).join('\n')}\n`);
    await rename(inRun('live', 'aside'), inRun('live', 'metrics.jsonl'));
    await expect.poll(() => chart(/^Training loss/).getAttribute('aria-label')).toContain('at step 3.');
    expect(await cell('live', 'Step')).toBe(`3 / ${STEPS}`);
  });

  test('runs are shown beside each other by choice, which is kept; the last one stays', async () => {
    await copyRun(12);
    await open();
    await page.getByRole('checkbox', { name: 'tiny' }).click();
    await expect.poll(() => chart(/^Training loss/).getAttribute('aria-label')).toMatch(/live: .* tiny: /);
    await page.reload();
    await expect.poll(() => chart(/^Training loss/).getAttribute('aria-label')).toMatch(/live: .* tiny: /);
    await page.getByRole('checkbox', { name: 'live' }).click();
    await expect.poll(() => chart(/^Training loss/).getAttribute('aria-label')).not.toContain('live');
    await page.getByRole('checkbox', { name: 'tiny' }).click();
    await expect.poll(() => page.getByRole('checkbox', { name: 'tiny' }).isChecked()).toBe(true);
  });

  test('a folder without runs says how to begin one', async () => {
    await stop();
    await serve('none');
    await open();
    await page.getByText('farthing train --config examples/tales.toml').waitFor();
  });

  test('a server that goes away is named, and found again when it is back', async () => {
    await open();
    await page.getByText('done').waitFor();
    const port = Number(new URL(server.url).port);
    await stop();
    await page.getByText('The server does not answer').waitFor();
    await serve('runs', port);
    await page.getByText('The server does not answer').waitFor({ state: 'detached' });
    expect(await cell('tiny', 'Step')).toBe(`${STEPS} / ${STEPS}`);
  });

  test('everything can be reached and seen with the keyboard alone', async () => {
    await copyRun(12);
    await open();
    await page.getByRole('checkbox', { name: 'tiny' }).click();
    await page.locator('.sample-text').first().waitFor();
    await page.mouse.click(2, 2);
    const reached: string[] = [];
    for (let i = 0; i < 12; i++) {
      await page.keyboard.press('Tab');
      const now = await page.evaluate(() => {
        const { activeElement: element } = document;
        if (!element || element === document.body) return null;
        const label = element instanceof HTMLInputElement ? element.labels?.[0] : element;
        return { name: label?.textContent.trim(), ringed: getComputedStyle(element).boxShadow !== 'none' };
      });
      if (now === null) break;
      expect(now).toMatchObject({ ringed: true });
      reached.push(now.name ?? '');
    }
    expect(reached.slice(-4)).toEqual(['live', 'tiny', 'Steps', expect.stringMatching(/^at step/)]);
  });

  test('at a phone’s width nothing sticks out', async () => {
    await copyRun(12);
    await open(PHONE);
    await page.getByRole('checkbox', { name: 'tiny' }).click();
    await page.locator('.sample-text').first().waitFor();
    const found = await page.evaluate(() => ({
      width: document.documentElement.scrollWidth,
      outside: [...document.querySelectorAll('.train-main *, .masthead *')]
        .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
        .map((e) => e.className),
    }));
    expect(found).toEqual({ width: 360, outside: [] });
  });

  for (const colorScheme of ['light', 'dark'] as const) {
    test(`axe finds nothing to object to in the ${colorScheme} theme`, async () => {
      await copyRun(12);
      await open({ ...DESKTOP, colorScheme, reducedMotion: 'reduce' });
      await page.getByRole('checkbox', { name: 'tiny' }).click();
      await page.locator('.sample-text').first().waitFor();
      await page.evaluate(axe.source);
      const { violations } = await page.evaluate(() => (window as unknown as { axe: typeof axe }).axe.run());
      expect(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`)).toEqual([]);
    });
  }
});
