/** The chat page in Chromium, before a server that speaks canned words: what the reader sees and can do. */
import axe from 'axe-core';
import type { Browser, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { browserToTestWith, DESKTOP, launchBrowser, openPage, PHONE } from './browser.ts';
import { SUM, SUM_THINKING, TALE } from './canned.ts';
import { buildPages, type StandInServer, startStandIn } from './stand-in-server.ts';

const PROMPT = 'Tell me a story about a fox and a crow.';

describe.runIf(browserToTestWith)('the chat page', () => {
  let browser: Browser;
  let built: Awaited<ReturnType<typeof buildPages>>;
  let server: StandInServer;
  let page: Page;
  let faults: string[];

  beforeAll(async () => {
    [browser, built] = await Promise.all([launchBrowser(), buildPages()]);
  });
  afterAll(async () => {
    await browser?.close();
    await built?.remove();
  });
  beforeEach(async () => {
    server = await startStandIn(built.folder);
  });
  afterEach(async () => {
    await page?.context().close();
    await server.close();
    expect(faults).toEqual([]);
  });

  async function open(options: Parameters<typeof openPage>[2] = DESKTOP): Promise<void> {
    ({ page, faults } = await openPage(browser, server.url, options));
    page.setDefaultTimeout(40_000);
  }
  const field = () => page.getByLabel('Your prompt').last();
  const button = (name: string | RegExp) => page.getByRole('button', { name });
  const answers = () => page.locator('.answer');
  const shown = (text: string | RegExp) => page.getByText(text).first().waitFor();
  async function send(prompt: string): Promise<void> {
    await field().fill(prompt);
    await field().press('Enter');
  }
  /** Asks, and waits until the answer is done. */
  async function ask(prompt: string): Promise<void> {
    await send(prompt);
    await button('Regenerate').waitFor();
  }

  test('an answer is seen while it is written, and afterwards what it took', async () => {
    server.manner = { kind: 'answer', content: TALE, pauseAfter: 20 };
    await open();
    await button(PROMPT).click();
    await shown(/a hungry fox was walking/);
    expect(await answers().textContent()).not.toContain('sang afterwards');
    server.resume();
    await shown(/sang afterwards/);
    await button('Regenerate').waitFor();
    const tally = await page
      .getByLabel('What this answer took')
      .locator('div')
      .evaluateAll((all) =>
        Object.fromEntries(all.map((row) => ['dt', 'dd'].map((e) => row.querySelector(e)?.textContent))),
      );
    expect(tally).toEqual({
      'tokens/s': expect.stringMatching(/^\d+(\.\d)?$/),
      tokens: '121',
      'in prompt': '31',
      cached: '12',
      'to first': expect.stringMatching(/^\d\.\d\d s$/),
    });
    expect(await page.locator('.prose em').textContent()).toBe('first');
    expect(server.asked[0]).toMatchObject({ model: 'farthing-tales', messages: [{ role: 'user', content: PROMPT }] });
  });

  test('thinking is shown while it lasts, folds away before the answer, and can be read again', async () => {
    server.manner = { kind: 'answer', reasoning: SUM_THINKING, content: SUM, pauseAfter: 15 };
    await open();
    await send('17 + 5 - 3?');
    await shown(/He buys 5 more: 17/);
    expect(await button('Thinking').getAttribute('aria-expanded')).toBe('true');
    server.resume();
    await button('Regenerate').waitFor();
    const thought = button(/^Thought for /);
    expect(await page.getByText('He buys 5 more').isVisible()).toBe(false);
    await thought.click();
    await page.getByText('22 - 3 = 19').waitFor();
  });

  test('what the model thought is not sent back to it, what it said is', async () => {
    server.manner = { kind: 'answer', reasoning: SUM_THINKING, content: SUM };
    await open();
    await ask('17 + 5 - 3?');
    await ask('And one more?');
    expect(server.asked[1]?.messages).toEqual([
      { role: 'user', content: '17 + 5 - 3?' },
      { role: 'assistant', content: SUM },
      { role: 'user', content: 'And one more?' },
    ]);
  });

  for (const [way, stop] of [
    ['Escape', () => page.keyboard.press('Escape')],
    ['the coin', () => button('Stop').click()],
  ] as const) {
    test(`${way} stops the answer: the server is left alone, what was written stays`, async () => {
      server.manner = { kind: 'answer', content: TALE, pauseAfter: 20 };
      await open();
      await send(PROMPT);
      await shown(/a hungry fox was walking/);
      await stop();
      await shown('Stopped.');
      await expect.poll(() => server.abandoned).toBe(true);
      expect(await answers().textContent()).toContain('a hungry fox was walking');
      await button('Send').waitFor();
    });
  }

  test('Enter sends, Shift+Enter begins a line, and nothing is sent while an answer is written', async () => {
    server.manner = { kind: 'answer', content: TALE, pauseAfter: 5 };
    await open();
    await field().pressSequentially('One');
    await field().press('Shift+Enter');
    await field().pressSequentially('two');
    expect(server.asked).toEqual([]);
    await field().press('Enter');
    await shown('Once upon');
    expect(server.asked[0]?.messages[0]?.content).toBe('One\ntwo');
    await send('Not yet');
    expect(await field().inputValue()).toBe('Not yet');
    server.resume();
    await button('Regenerate').waitFor();
    expect(server.asked).toHaveLength(1);
  });

  test('an answer can be written anew, and takes the place of the old one', async () => {
    server.manner = { kind: 'answer', content: 'The first telling.' };
    await open();
    await ask(PROMPT);
    server.manner = { kind: 'answer', content: 'The second telling.' };
    await button('Regenerate').click();
    await shown('The second telling.');
    expect(await answers().count()).toBe(1);
    expect(server.asked[1]).toEqual(server.asked[0]);
  });

  test('the last prompt can be put differently, or left as it was', async () => {
    server.manner = { kind: 'answer', content: 'A tale.' };
    await open();
    await ask('Tell me of a hen');
    await button('Edit this prompt').click();
    await page.locator('.prompt-editor textarea').press('Escape');
    await shown('Tell me of a hen');
    await button('Edit this prompt').click();
    await page.locator('.prompt-editor textarea').fill('Tell me of a duck');
    await page.locator('.prompt-editor textarea').press('Enter');
    await button('Regenerate').waitFor();
    expect(await page.locator('.prompt-text').allTextContents()).toEqual([
      expect.stringContaining('Tell me of a duck'),
    ]);
    expect(server.asked.map(({ messages }) => messages.map(({ content }) => content))).toEqual([
      ['Tell me of a hen'],
      ['Tell me of a duck'],
    ]);
  });

  test('an answer is copied as the Markdown that the model wrote', async () => {
    server.manner = { kind: 'answer', content: SUM };
    await open({ ...DESKTOP, permissions: ['clipboard-read', 'clipboard-write'] });
    await ask('17 + 5 - 3?');
    await button('Copy').click();
    await shown('Copied');
    expect(await page.evaluate(() => navigator.clipboard.readText())).toBe(SUM);
  });

  test('settings go with the request and outlast the page; what is left empty is left to the server', async () => {
    server.manner = { kind: 'answer', content: 'Well.' };
    await open();
    await button('Settings').click();
    await page.getByLabel('Temperature').fill('0,3');
    await page.getByLabel('Seed').fill('7');
    await page.getByLabel('System prompt').fill('Be brief.');
    await page.keyboard.press('Escape');
    await page.reload();
    await ask('Hello');
    const { messages, temperature, seed, top_p, max_tokens } = server.asked[0]!;
    expect({ temperature, seed, top_p, max_tokens }).toEqual({ temperature: 0.3, seed: 7 });
    expect(messages[0]).toEqual({ role: 'system', content: 'Be brief.' });
    await button('Settings').click();
    await button('Back to the model’s defaults').click();
    await expect.poll(() => page.getByLabel('Seed').inputValue()).toBe('');
    await button('Done').click();
    await ask('Hello again');
    expect(server.asked[1]).not.toHaveProperty('seed');
  });

  test('a number that the server would refuse is refused at once, and not kept', async () => {
    await open();
    await button('Settings').click();
    for (const [label, wrong, told] of [
      ['Temperature', '3', 'Expected a number from 0 to 2.'],
      ['Top p', '-0.1', 'Expected a number from 0 to 1.'],
      ['Top k', '2.5', 'Expected a whole number from 0 up.'],
      ['Max tokens', '0', 'Expected a whole number from 1 up.'],
      ['Seed', 'x', 'Expected a whole number from 0 up.'],
    ] as const) {
      await page.getByLabel(label).fill(wrong);
      await shown(told);
      expect(await page.getByLabel(label).getAttribute('aria-invalid')).toBe('true');
      await page.getByLabel(label).fill('');
    }
    expect(await page.evaluate(() => localStorage.getItem('farthing.settings'))).not.toMatch(/[1-9]/);
  });

  test('a conversation outlasts the page; a new one can be begun and the old one fetched back', async () => {
    server.manner = { kind: 'answer', content: TALE };
    await open();
    await ask(PROMPT);
    await page.reload();
    await shown(/sang afterwards/);
    await button('New chat').click();
    await shown('A tale, or a sum?');
    await button(/^Back to/).click();
    await shown(/sang afterwards/);
  });

  test('a page that is left while an answer is written finds it stopped', async () => {
    server.manner = { kind: 'answer', content: TALE, pauseAfter: 20 };
    await open();
    await send(PROMPT);
    await shown(/a hungry fox was walking/);
    await page.reload();
    await shown('Stopped.');
    await shown(/a hungry fox was walking/);
    await button('Send').waitFor();
  });

  test('what another program has put into the storage does no harm', async () => {
    await open();
    await page.evaluate(() => {
      localStorage.setItem('farthing.conversation', '[{"prompt":3}]');
      localStorage.setItem('farthing.settings', '{');
      localStorage.setItem('farthing.theme', '"purple"');
    });
    await page.reload();
    await shown('A tale, or a sum?');
  });

  test('a server that asks for a key gets it', async () => {
    server.apiKey = 'a secret';
    server.manner = { kind: 'answer', content: TALE };
    await open();
    await shown('This server asks for a key');
    await page.getByLabel('API key').fill('wrong');
    await button('Use key').click();
    await shown(/the API key is wrong/i);
    await page.getByLabel('API key').fill('a secret');
    await button('Use key').click();
    await page.getByText('This server asks for a key').waitFor({ state: 'detached' });
    await ask(PROMPT);
    server.apiKey = 'another';
    await button('Regenerate').click();
    await shown('This server asks for a key');
    await page.getByLabel('API key').fill('another');
    await button('Use key').click();
    await shown(/sang afterwards/);
  });

  test('a busy server is left alone for as long as it asks', async () => {
    server.manner = { kind: 'error', status: 429, message: 'the queue is full', retryAfter: 1 };
    await open();
    await send(PROMPT);
    await shown('The server is busy');
    expect(await button('Try again in 1 s').isDisabled()).toBe(true);
    server.manner = { kind: 'answer', content: TALE };
    await page.getByRole('button', { name: 'Try again', exact: true }).click();
    await shown(/sang afterwards/);
  });

  test('what the server refuses is shown in its words', async () => {
    server.manner = { kind: 'error', status: 400, message: 'the prompt has 1200 tokens, the model takes 1024' };
    await open();
    await send(PROMPT);
    await shown('The server declined this request');
    await shown('the prompt has 1200 tokens, the model takes 1024');
    await page.locator('.failure').getByRole('button', { name: 'New chat' }).click();
    await shown('A tale, or a sum?');
  });

  test('an answer that breaks off keeps what came, and says so', async () => {
    server.manner = { kind: 'break', content: 'Once upon a time' };
    await open();
    await send(PROMPT);
    await shown('Once upon a time');
    server.resume();
    await shown('The answer broke off');
    expect(await answers().textContent()).toContain('Once upon a time');
    server.manner = { kind: 'answer', content: TALE };
    await button('Try again').click();
    await shown(/sang afterwards/);
  });

  test('a server that is gone is named, and found again when it is back', async () => {
    await open();
    const port = Number(new URL(server.url).port);
    await server.close();
    await send(PROMPT);
    await shown('The server does not answer');
    server = await startStandIn(built.folder, port);
    server.manner = { kind: 'answer', content: TALE };
    await button('Try again').click();
    await shown(/sang afterwards/);
  });

  test('of several models the first answers, until another is chosen', async () => {
    server.models = ['first', 'second'];
    server.manner = { kind: 'answer', content: 'Well.' };
    await open();
    await ask('Who are you?');
    await page.getByLabel('Model').selectOption('second');
    await page.reload();
    await ask('And you?');
    expect(server.asked.map(({ model }) => model)).toEqual(['first', 'second']);
  });

  test('what a model writes runs nothing and fetches nothing', async () => {
    const hostile = [
      '<img src="http://203.0.113.1/a.png" onerror="window.harmed = true">',
      '<script>window.harmed = true</script>',
      '![picture](http://203.0.113.1/b.png)',
      '[link](javascript:window.harmed=true)',
      '<svg/onload=window.harmed=true>',
      '<style>body{display:none}</style>',
      '<iframe srcdoc="<script>parent.harmed=true</script>"></iframe>',
      '[good](https://example.com/)',
    ];
    server.manner = { kind: 'answer', reasoning: hostile.join('\n\n'), content: hostile.join('\n\n') };
    await open();
    await ask('Do your worst');
    await button(/^Thought/).click();
    expect(await page.evaluate(() => 'harmed' in window)).toBe(false);
    expect(await page.locator('.answer :is(img, script, style, iframe, .prose svg)').count()).toBe(0);
    expect(await page.locator('.answer a').evaluateAll((all) => all.map((a) => a.getAttribute('href')))).toEqual([
      null,
      'https://example.com/',
      null,
      'https://example.com/',
    ]);
    await shown('<script>window.harmed = true</script>');
  });

  test('a screen reader is told whole sentences, and that the model thinks', async () => {
    server.manner = { kind: 'answer', reasoning: SUM_THINKING, content: TALE, pauseAfter: 5 };
    await open();
    const told = page.locator('.chat-page > [role="status"]');
    await send(PROMPT);
    await expect.poll(() => told.textContent()).toBe('The model is thinking.');
    await page.evaluate(() => {
      const heard: string[] = [];
      const status = document.querySelector('.chat-page > [role="status"]')!;
      new MutationObserver(() => heard.push(status.textContent)).observe(status, {
        childList: true,
        characterData: true,
        subtree: true,
      });
      Object.assign(window, { heard });
    });
    server.resume();
    await button('Regenerate').waitFor();
    await expect.poll(() => told.textContent()).toContain('sang afterwards.');
    const heard = await page.evaluate(() => (window as unknown as { heard: string[] }).heard.filter(Boolean));
    expect(heard.join('')).toBe(TALE);
  });

  test('the theme is the system’s until another is chosen, which is kept', async () => {
    await open({ ...DESKTOP, colorScheme: 'light' });
    const ground = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
    const light = await ground();
    await page.emulateMedia({ colorScheme: 'dark' });
    const dark = await ground();
    expect(dark).not.toBe(light);
    await button('Use the light theme').click();
    await expect.poll(ground).toBe(light);
    await page.reload();
    expect(await ground()).toBe(light);
    await button('Use the dark theme').click();
    await page.emulateMedia({ colorScheme: 'light' });
    expect(await ground()).toBe(light);
  });

  test('everything can be reached and seen with the keyboard alone', async () => {
    server.manner = { kind: 'answer', content: SUM };
    await open();
    await ask('17 + 5 - 3?');
    // Where Tab sets out from.
    await page.mouse.click(2, 2);
    const reached: string[] = [];
    for (let i = 0; i < 12; i++) {
      await page.keyboard.press('Tab');
      const now = await page.evaluate(() => {
        const { activeElement: element } = document;
        if (!element || element === document.body) return null;
        const ringed = [element, element.closest('.composer')].some(
          (e) => e && getComputedStyle(e).boxShadow !== 'none',
        );
        const name = element.getAttribute('aria-label') ?? element.textContent;
        return { name: name.trim(), ringed };
      });
      if (now === null) break;
      expect(now).toMatchObject({ ringed: true });
      reached.push(now.name);
    }
    expect(reached).toEqual([
      'Farthing',
      'Chat',
      'Engine',
      'Train',
      'Cost',
      'New chat',
      'Settings',
      expect.stringMatching(/^Use the/),
      'Edit this prompt',
      'Copy',
      'Regenerate',
      'Your prompt',
    ]);
  });

  const WIDE = `${'x'.repeat(90)}\n\n\`\`\`\n${'const a = 1; '.repeat(12)}\n\`\`\`\n\n|${'a column|'.repeat(9)}\n|${'-|'.repeat(9)}\n|${'cell|'.repeat(9)}`;

  test('at a phone’s width nothing sticks out, and what is touched is large enough', async () => {
    server.manner = { kind: 'answer', reasoning: WIDE, content: WIDE };
    await open(PHONE);
    const check = async () => {
      const found = await page.evaluate(() => {
        const inView = [...document.querySelectorAll('button, input, select, textarea')].filter((e) =>
          e.checkVisibility(),
        );
        const boxes = inView.map((e) => ({ name: e.textContent, ...e.getBoundingClientRect().toJSON() }));
        return {
          width: document.documentElement.scrollWidth,
          outside: boxes.filter(({ left, right }) => left < 0 || right > innerWidth),
          // WCAG 2.2, 2.5.8 asks for 24.
          small: boxes.filter(({ width, height }) => width < 24 || height < 24).map(({ name }) => name),
        };
      });
      expect(found).toEqual({ width: 360, outside: [], small: [] });
    };
    await check();
    await ask(`${'y'.repeat(80)} and more`);
    await check();
    await button(/^Thought/).click();
    await check();
    await button('Edit this prompt').click();
    await check();
    await button('Cancel').click();
    await button('Settings').click();
    await check();
    await button('Done').click();
    server.manner = { kind: 'error', status: 500, message: 'z'.repeat(90) };
    await send('Once more');
    await shown('The answer broke off');
    await check();
  });

  for (const colorScheme of ['light', 'dark'] as const) {
    test(`axe finds nothing to object to in the ${colorScheme} theme`, async () => {
      server.manner = {
        kind: 'answer',
        reasoning: SUM_THINKING,
        content: `${TALE}\n\n\`code\`\n\n- one\n- [two](/)`,
        pauseAfter: 60,
      };
      await open({ ...DESKTOP, colorScheme, reducedMotion: 'reduce' });
      await page.evaluate(axe.source);
      const objections = async () => {
        const { violations } = await page.evaluate(() => (window as unknown as { axe: typeof axe }).axe.run());
        return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`);
      };
      expect(await objections()).toEqual([]);
      await send(PROMPT);
      await shown(/a hungry fox/);
      expect(await objections()).toEqual([]);
      server.resume();
      await button('Regenerate').waitFor();
      await button(/^Thought/).click();
      expect(await objections()).toEqual([]);
      server.manner = { kind: 'error', status: 429, message: 'the queue is full', retryAfter: 60 };
      await send('More');
      await shown('The server is busy');
      expect(await objections()).toEqual([]);
      await button('Settings').click();
      await page.getByLabel('Temperature').fill('3');
      expect(await objections()).toEqual([]);
    });
  }

  test('the end stays in view while an answer is written, unless the reader has gone back', async () => {
    const long = Array.from({ length: 60 }, (_, i) => `Paragraph ${i} of a long tale.`).join('\n\n');
    server.manner = { kind: 'answer', content: long, pauseAfter: 200 };
    await open();
    await send(PROMPT);
    await shown('Paragraph 30');
    const fromEnd = () =>
      page.evaluate(() => document.documentElement.scrollHeight - window.innerHeight - window.scrollY);
    await expect.poll(fromEnd).toBeLessThan(8);
    await page.mouse.move(640, 400);
    await page.mouse.wheel(0, -300);
    await button('To the end').waitFor();
    server.resume();
    await button('Regenerate').waitFor();
    expect(await fromEnd()).toBeGreaterThan(250);
    await button('To the end').click();
    await expect.poll(fromEnd).toBeLessThan(8);
  });
});
