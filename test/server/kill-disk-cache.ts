/**
 * Lives of a server with a disk cache, all but the last ended by SIGKILL amid its writes; after each death a file is torn
 * too, as a loss of power might. Every answer is held to the one without a cache.
 */
import { readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { checkAnswer, readWhole } from './soak.ts';
import { dice, type Question } from './soak-questions.ts';
import { metric, type Served, spawnServe } from './spawn-serve.ts';

export interface Lives {
  readonly kills: number;
  /** Of the disk cache; it is empty. */
  readonly folder: string;
  readonly questions: readonly Question[];
  readonly seed: number;
  readonly onDeath?: (death: Death) => void;
}

interface Death {
  /** Answers that were complete by then, all of them right. */
  readonly answered: number;
  /** Whole blocks left behind, and whether one was being written. */
  readonly blocks: number;
  readonly amidWrite: boolean;
}

export interface LivesReport {
  readonly deaths: readonly Death[];
  /** Blocks that lives after the first did not use, and said so. */
  readonly reported: number;
  /** Prompt tokens that the last life read from disk. */
  readonly fetchedTokens: number;
  /** What was wrong, in words. */
  readonly faults: readonly string[];
}

const CLIENTS = 8;
/** Small, so that blocks are removed and written anew all the time. */
const SERVER = ['--cache', '4MiB', '--disk-cache-size', '24MiB'];

export async function liveAndDie({ kills, folder, questions, seed, onDeath }: Lives): Promise<LivesReport> {
  const roll = dice(seed);
  const deaths: Death[] = [];
  const faults: string[] = [];
  let reported = 0;
  const leave = (served: Served) => {
    const lines = served.said().split('\n').filter(Boolean);
    const damage = lines.filter((line) => /is damaged|bytes long/.test(line));
    reported += damage.length;
    for (const line of lines) if (!damage.includes(line)) faults.push(`the server said: ${line}`);
  };
  const files = (ending: string) => readdirSync(folder).filter((name) => name.endsWith(ending));

  for (let life = 1; life <= kills; life++) {
    const served = await spawnServe(...SERVER, '--disk-cache', folder);
    const target = 1 + roll(2 * questions.length - CLIENTS);
    const asking = askAll(served, questions, ['', `life ${life}`], faults);
    while (asking.answered < target && served.process.exitCode === null) await pause(1);
    for (const end = Date.now() + 500; files('.part').length === 0 && Date.now() < end; ) await pause(0);
    served.process.kill('SIGKILL');
    await Promise.all([served.exit, asking.done]);
    leave(served);
    const death = { answered: asking.answered, blocks: files('.block').length, amidWrite: files('.part').length > 0 };
    deaths.push(death);
    onDeath?.(death);
    for (const name of files('.block')) if (roll(4) === 0) tear(path.join(folder, name), roll);
  }
  const last = await spawnServe(...SERVER, '--disk-cache', folder);
  const asking = askAll(last, questions, [''], faults);
  await asking.done;
  if (asking.answered !== questions.length) faults.push(`the last life answered ${asking.answered} questions`);
  const fetchedTokens = await metric(last.url, 'vllm:external_prefix_cache_hits_total');
  last.process.kill('SIGTERM');
  if ((await last.exit) !== 0) faults.push('the last life did not end well');
  leave(last);
  if (files('.part').length > 0) faults.push(`${files('.part')} were left`);
  return { deaths, reported, fetchedTokens, faults };
}

/** Asks every question under each salt. Answers that a death cuts off do not count; wrong ones are faults. */
function askAll(served: Served, questions: readonly Question[], salts: readonly string[], faults: string[]) {
  const asked = salts.flatMap((cache_salt) => questions.map((question) => ({ question, cache_salt })));
  const state = { answered: 0, done: Promise.resolve() as Promise<unknown> };
  const client = async () => {
    for (let next = asked.shift(); next && !served.process.killed; next = asked.shift()) {
      const { question, cache_salt } = next;
      try {
        const response = await fetch(served.url + question.path, {
          method: 'POST',
          headers: { 'Content-Type': 'application/json' },
          body: JSON.stringify({ ...question.body, cache_salt }),
        });
        checkAnswer(question, await readWhole(response), questions);
        state.answered++;
      } catch (error) {
        if (!served.process.killed) faults.push((error as Error).message);
      }
    }
  };
  state.done = Promise.all(Array.from({ length: CLIENTS }, client));
  return state;
}

/** Cuts a file short, or leaves a hole of zeros in it. */
function tear(file: string, roll: ReturnType<typeof dice>): void {
  const content = readFileSync(file);
  const at = roll(Math.max(1, content.length - 512));
  if (roll(2) === 0) truncateSync(file, at);
  else writeFileSync(file, content.fill(0, at, Math.min(at + 512, content.length)));
}
