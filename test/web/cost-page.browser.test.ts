/** The cost explorer in Chromium, from plain files: no server answers anything but the pages. */
import { readFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { createAdaptorServer } from '@hono/node-server';
import axe from 'axe-core';
import { Hono } from 'hono';
import type { Browser, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { pages } from '../../src/server/pages.ts';
import { browserToTestWith, DESKTOP, launchBrowser, openPage, PHONE } from './browser.ts';
import { buildPages } from './stand-in-server.ts';

const CALM = { ...DESKTOP, reducedMotion: 'reduce' } as const;

describe.runIf(browserToTestWith)('the cost explorer', () => {
  let browser: Browser;
  let built: Awaited<ReturnType<typeof buildPages>>;
  let server: ReturnType<typeof createAdaptorServer>;
  let url: string;
  let page: Page;
  let faults: string[];

  beforeAll(async () => {
    [browser, built] = await Promise.all([launchBrowser(), buildPages('cost')]);
    const app = new Hono();
    app.get('*', pages(built.folder));
    server = createAdaptorServer({ fetch: app.fetch });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/cost`;
  });
  afterAll(async () => {
    await browser?.close();
    server?.close();
    await built?.remove();
  });
  afterEach(async () => {
    await page?.context().close();
    expect(faults).toEqual([]);
  });

  async function open(query = '', options: Parameters<typeof openPage>[2] = CALM): Promise<void> {
    ({ page, faults } = await openPage(browser, url + query, options));
    page.setDefaultTimeout(40_000);
    await page.locator('.chart svg, .refusal').first().waitFor();
  }
  const price = (name: string) => page.locator(`.entry.${name} dd`).textContent();
  const inDollars = async (name: string) => Number((await price(name))!.replace('$', ''));
  const slider = (name: string) => page.getByLabel(name, { exact: true });
  const query = () => new URL(page.url()).searchParams;

  test('a slider moves the prices, the figures and the address', async () => {
    await open();
    const before = await inDollars('output');
    const figure = page.locator('#price-by-batch');
    const said = await figure.locator('.figure-says').textContent();
    const drawn = await figure.locator('.chart').innerHTML();
    const rent = slider('Rent of a device');
    await rent.focus();
    for (let i = 0; i < 20; i++) await page.keyboard.press('ArrowRight');
    await expect.poll(() => rent.getAttribute('aria-valuetext')).toBe('$3.63 an hour');
    // Twenty steps of two hundred between 0.05 and 20, from 2: every price follows the rent.
    expect((await inDollars('output')) / before).toBeCloseTo(3.63 / 2, 1);
    await expect.poll(() => query().get('rent')).toBe('3.63');

    await slider('Speed for each user').fill('150');
    await expect.poll(() => figure.locator('.figure-says').textContent()).not.toBe(said);
    await expect.poll(() => figure.locator('.chart').innerHTML()).not.toBe(drawn);
    expect(await inDollars('output')).toBeGreaterThan(before * 2);
  });

  test('an address opens the scenario that it tells of, and going back returns to it', async () => {
    await open('?model=llama-3.1-70b&machine=h100-sxm&hits=0&load=50');
    expect(await page.getByLabel('Model', { exact: true }).inputValue()).toBe('llama-3.1-70b');
    expect(await slider('Prompt found in cache').inputValue()).toBe('0');
    expect(await page.locator('.sentence').textContent()).toContain('Llama-3.1-70B on NVIDIA H100');
    await page.getByRole('button', { name: 'Agent' }).click();
    await expect.poll(() => query().get('prompt')).toBe('40000');
    await expect.poll(() => page.getByRole('button', { name: 'Agent' }).getAttribute('aria-pressed')).toBe('true');
    const shown = await price('output');
    await page.reload();
    await expect.poll(() => price('output')).toBe(shown);
    await page.goto(`${url}?model=deepseek-v2-lite`);
    await page.goBack();
    expect(await page.getByLabel('Model', { exact: true }).inputValue()).toBe('llama-3.1-70b');
  });

  test('what does not fit is said in words, and nothing stale is left beside it', async () => {
    await open('?machine=rtx4090');
    const refusal = page.locator('.refusal');
    expect(await refusal.textContent()).toMatch(/expected/);
    expect(await price('output')).toBe('–');
    expect(await page.locator('.figure').count()).toBe(0);
    await page.getByLabel('Machine', { exact: true }).selectOption('h200-sxm');
    await page.locator('.figure').first().waitFor();
    expect(await price('output')).toMatch(/^\$\d/);
  });

  test('every figure opens its formula with the values of the scenario', async () => {
    await open('?rent=3');
    const openers = page.locator('.workings summary');
    for (let i = 0; i < (await openers.count()); i++) await openers.nth(i).click();
    const texts = await page.locator('.workings').allTextContents();
    expect(texts.length).toBeGreaterThanOrEqual(5);
    for (const text of texts) expect(text).toMatch(/= .*= /);
    expect(texts.join(' ')).toContain(`= ${await price('output')}`);
    expect(texts.join(' ')).toContain('$3.00 ÷ 3600');
  });

  test('the waterfall is told for input or output, in any order and in none', async () => {
    await open();
    const figure = page.locator('#why-cheap');
    const steps = () =>
      figure.locator('.steps .step').evaluateAll((all) => all.map((step) => step.firstChild?.textContent));
    const said = () => figure.locator('.figure-says').textContent();
    await figure.waitFor();
    expect((await steps()).slice(0, 2)).toEqual(['sparse experts', 'MLA']);
    const before = await said();
    await figure.getByRole('button', { name: /^MLA ?: one step earlier/ }).click();
    await expect.poll(async () => (await steps()).slice(0, 2)).toEqual(['MLA', 'sparse experts']);
    await expect.poll(() => query().get('order')).toBe('mla.experts.fp8.wide.mtp.caching');
    await figure.getByRole('button', { name: 'input' }).click();
    await expect.poll(said).toMatch(/^An input token costs/);
    await figure.getByRole('button', { name: 'in no order' }).click();
    await expect.poll(() => query().get('order')).toBe('free');
    await expect.poll(steps).toEqual([]);
    await figure.getByRole('button', { name: 'in no order' }).click();
    await figure.getByRole('button', { name: 'output' }).click();
    await expect.poll(said).toBe(before);
  });

  test('figures are saved as PNG, SVG and CSV', async () => {
    await open();
    const save = async (format: string) => {
      const [file] = await Promise.all([
        page.waitForEvent('download'),
        page.locator('#price-by-batch').getByRole('button', { name: format }).click(),
      ]);
      expect(file.suggestedFilename()).toBe(`farthing-price-by-batch.${format.toLowerCase()}`);
      return readFile(await file.path());
    };
    const png = await save('PNG');
    expect(png.subarray(1, 4).toString()).toBe('PNG');
    // Width and height stand at byte 16; the picture is more than its empty ground.
    expect([png.readUInt32BE(16), png.readUInt32BE(20)]).toEqual([1920, 1200]);
    expect(png.length).toBeGreaterThan(20_000);
    const svg = (await save('SVG')).toString();
    expect(svg).toMatch(/^<svg/);
    expect(svg).toContain('Price against batch');
    const [head, ...rows] = (await save('CSV')).toString().trim().split('\n');
    expect(head).toBe(
      'sequences a device,USD a million output tokens,tokens a second and device,tokens a second and user,ms a token,binds',
    );
    expect(rows.length).toBeGreaterThan(20);
    // As on the page: rent over tokens a second.
    const [, usd, tokensPerSecond] = rows.at(-1)!.split(',').map(Number);
    expect(usd).toBeCloseTo((2 / 3600 / tokensPerSecond!) * 1e6, 9);
  });

  test('the pages lead to one another', async () => {
    await open();
    const links = page.getByRole('navigation', { name: 'Pages' }).getByRole('link');
    const at = await links.evaluateAll((all) => all.map((link) => (link as HTMLAnchorElement).pathname));
    expect(at).toEqual(expect.arrayContaining(['/', '/cost/']));
    expect(await page.locator('[aria-current="page"]').textContent()).toBe('Cost');
  });

  test('everything can be reached and seen with the keyboard alone', async () => {
    await open();
    await page.mouse.click(2, 2);
    const reached = new Set<string>();
    for (let i = 0; i < 80; i++) {
      await page.keyboard.press('Tab');
      const now = await page.evaluate(() => {
        const { activeElement: element } = document;
        if (!element || element === document.body) return null;
        const ringed = [element, element.nextElementSibling].some((e) => e && getComputedStyle(e).boxShadow !== 'none');
        const label = element.getAttribute('aria-label') ?? (element as HTMLInputElement).labels?.[0]?.textContent;
        return { name: (label ?? element.textContent).trim(), ringed };
      });
      if (now === null) break;
      expect(now).toMatchObject({ ringed: true });
      reached.add(now.name);
    }
    for (const name of ['Model', 'Machine', 'Rent of a device', 'Chat', 'Prompt', 'FP8', 'API price', 'Tokens a month'])
      expect(reached).toContain(name);
    expect([...reached].filter((name) => name.startsWith('The formula'))).not.toEqual([]);
  });

  test('at a phone’s width nothing sticks out, and what is touched is large enough', async () => {
    await open('', { ...PHONE, reducedMotion: 'reduce' });
    await page.locator('.workings summary').first().click();
    const found = await page.evaluate(() => {
      const boxes = [...document.querySelectorAll('button, select, summary, input')]
        .filter((e) => e.checkVisibility())
        // A radio or check box is touched at its label.
        .map((e) => (e.matches('[type=radio], [type=checkbox]') ? e.closest('label')! : e))
        .map((e) => ({ name: e.textContent, ...e.getBoundingClientRect().toJSON() }));
      return {
        width: document.documentElement.scrollWidth,
        outside: boxes.filter(({ left, right }) => left < 0 || right > innerWidth),
        // WCAG 2.2, 2.5.8 asks for 24.
        small: boxes.filter(({ width, height }) => width < 24 || height < 24).map(({ name }) => name),
      };
    });
    expect(found).toEqual({ width: 360, outside: [], small: [] });
  });

  for (const colorScheme of ['light', 'dark'] as const) {
    test(`axe finds nothing to object to in the ${colorScheme} theme`, async () => {
      await open('', { ...CALM, colorScheme });
      await page.locator('.workings summary').first().click();
      await page.evaluate(axe.source);
      const objections = async () => {
        const { violations } = await page.evaluate(() => (window as unknown as { axe: typeof axe }).axe.run());
        return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`);
      };
      expect(await objections()).toEqual([]);
      await page.getByLabel('Machine', { exact: true }).selectOption('rtx4090');
      await page.locator('.refusal').waitFor();
      expect(await objections()).toEqual([]);
    });
  }
});
