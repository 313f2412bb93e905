/** The metrics of a run: a file with one line of JSON for each step, in order, each step once. */
import { appendFile, readFile } from 'node:fs/promises';
import { replaceFile } from '../numerics/replace-file.ts';
import type { StepReport } from './training-run.ts';

/** What is kept of a step. */
export interface StepMetrics extends StepReport {
  /** Held-out bits per byte of text, where measured. */
  readonly bitsPerByte?: number;
}

/** Appends a step. Where the file goes on beyond the step before it (a run was killed and goes on), the rest is dropped. */
export async function recordStep(file: string, metrics: StepMetrics, isFirst: boolean): Promise<void> {
  const line = `${JSON.stringify(metrics)}\n`;
  if (!isFirst) return appendFile(file, line);
  const before = (await readMetrics(file)).filter(({ step }) => step < metrics.step);
  const lines = before.map((kept) => `${JSON.stringify(kept)}\n`).join('');
  await replaceFile(file, (handle) => handle.writeFile(lines + line));
}

/** The steps of a file, each once: what a resumed run wrote later counts. A line that a kill tore at the end is left out. */
export async function readMetrics(file: string): Promise<StepMetrics[]> {
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return '';
    throw error;
  });
  const whole = text.slice(0, text.lastIndexOf('\n') + 1);
  const lines = whole.split('\n').filter((line) => line !== '');
  const steps = new Map(lines.map((line) => JSON.parse(line) as StepMetrics).map((each) => [each.step, each]));
  return [...steps.values()].sort((a, b) => a.step - b.step);
}
