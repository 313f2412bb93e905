/**
 * The whole program as it is delivered: the built command, the built pages and the built-in model, in Chromium.
 * `npm run build` makes what it needs. Whether page and server agree in every case is tested in test/server.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { expect, test } from 'vitest';
import { browserToTestWith, launchBrowser, openPage } from './browser.ts';

test.runIf(browserToTestWith)(
  'farthing serve: an example prompt on the page is answered by the built-in model',
  async () => {
    const farthing = spawn(process.execPath, ['dist/cli/main.js', 'serve', '--port', '0', '--json'], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, FARTHING_THREADS: '2' },
    });
    const exit = once(farthing, 'exit');
    const browser = await launchBrowser();
    try {
      const [line] = await once(createInterface(farthing.stdout), 'line');
      const { url, model } = JSON.parse(line) as { url: string; model: string };
      const { page, faults } = await openPage(browser, url);
      await page.locator('.model-name', { hasText: model }).waitFor();

      await page.getByRole('button', { name: 'Settings' }).click();
      await page.getByLabel('Seed').fill('1');
      await page.getByLabel('Max tokens').fill('120');
      await page.getByRole('button', { name: 'Done' }).click();
      await page.getByRole('button', { name: 'Tell me a story about a fox and a crow.' }).click();
      // Some of the story can be read while the rest is being written.
      await page.locator('.answer[data-state="writing"] .prose').waitFor();
      await page.locator('.answer[data-state="done"]').waitFor();
      expect((await page.locator('.answer .prose').textContent())?.length).toBeGreaterThan(100);
      expect(await page.getByLabel('What this answer took').textContent()).toMatch(/tokens\/s.+tokens.+in prompt/);

      // The same seed and settings: the same answer, to the letter.
      const first = await page.locator('.answer .prose').textContent();
      await page.getByRole('button', { name: 'Regenerate' }).click();
      await page.locator('.answer[data-state="writing"]').waitFor();
      await page.locator('.answer[data-state="done"]').waitFor();
      expect(await page.locator('.answer .prose').textContent()).toBe(first);
      expect(faults).toEqual([]);
    } finally {
      await browser.close();
      farthing.kill();
      await exit;
    }
  },
);
