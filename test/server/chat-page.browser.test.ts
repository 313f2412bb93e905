import { pino } from 'pino';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { setThreads } from '../../src/backend/native.ts';
import { type LanguageModel, loadModel } from '../../src/engine/language-model.ts';
import { createApp } from '../../src/server/app.ts';
import { type Listening, listen } from '../../src/server/listen.ts';
import { createMetrics } from '../../src/server/metrics.ts';
import { browserToTestWith, launchBrowser, openPage } from '../web/browser.ts';
import { buildPages } from '../web/stand-in-server.ts';
import { makeTinyModel } from './tiny-model.ts';

// Looks at whether page and server understand each other; how the page looks and behaves is tested in test/web.
describe.runIf(browserToTestWith)('the chat page on the real server', () => {
  const key = 'a secret';
  let model: LanguageModel;
  let server: Listening;
  let browser: Browser;
  let removePages: () => Promise<void>;

  beforeAll(async () => {
    setThreads(2);
    const pages = await buildPages();
    removePages = pages.remove;
    model = await loadModel(await makeTinyModel({ context: 4096 }));
    const metrics = createMetrics(model.engine, model.name);
    const log = pino({ level: 'silent' });
    const runs = { folder: 'none', stopping: new AbortController().signal };
    const app = createApp({ model, apiKey: key, log, metrics, runs, pagesFolder: pages.folder });
    server = await listen(app, '127.0.0.1', 0);
    browser = await launchBrowser();
  });
  afterAll(async () => {
    await browser.close();
    await model.close();
    await server.close(0);
    await removePages();
  });

  test('asks for the key, streams an answer, and stops one when told to', async () => {
    const { page, faults } = await openPage(browser, server.url);
    await page.getByLabel('API key').fill(key);
    await page.keyboard.press('Enter');
    await page.getByText('tiny-model').first().waitFor();

    const prompt = page.getByLabel('Your prompt');
    await prompt.fill('Tell me a tale');
    // pressed from within the page, as soon as there is something to stop: from here it would come after the tiny model's end
    await page.evaluate(() => {
      const watch = new MutationObserver(() => {
        const stop = document.querySelector<HTMLButtonElement>('button[title^="Stop"]');
        if (!stop || !document.querySelector('.answer[data-state="writing"]')) return;
        watch.disconnect();
        stop.click();
      });
      watch.observe(document.body, { subtree: true, childList: true, attributes: true });
    });
    await prompt.press('Enter');
    await page.locator('.answer[data-state="stopped"]').waitFor();
    await expect.poll(() => model.engine.status().counts.finished.cancelled).toBe(1);

    await page.getByRole('button', { name: 'Regenerate' }).click();
    await page.locator('.answer[data-state="done"]').waitFor();
    const { stop, length } = model.engine.status().counts.finished;
    expect(stop + length).toBe(1);
    expect(await page.locator('.answer').textContent()).not.toBe('');
    expect(faults).toEqual([]);
  });
});
