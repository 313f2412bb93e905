import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { modelReport } from '../../src/model/model-report.ts';
import { comparisonsNamed, runAblation, type VariantResult } from '../../src/train/ablation.ts';
import { writeAblation } from '../../src/train/ablation-report.ts';
import { COMPARISONS, type VariantName, variantOf } from '../../src/train/ablation-variants.ts';

const folder = mkdtempSync(path.join(os.tmpdir(), 'ablation-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const HIDDEN = 128;
const CIRCUMSTANCES = { command: 'farthing ablate', machine: 'a machine', threads: 2, date: '2026-01-01' };

test('what is compared has equal active parameters, but for the dense model of equal total', () => {
  for (const { name, variants } of COMPARISONS) {
    const reports = variants.map((variant) => ({ variant, ...modelReport(variantOf(variant, HIDDEN).model) }));
    const active = reports
      .filter(({ variant }) => variant !== 'dense, same total')
      .map((each) => each.activeParameters);
    expect(Math.max(...active) / Math.min(...active), name).toBeLessThan(1.03);
  }
  const total = (variant: VariantName) => modelReport(variantOf(variant, HIDDEN).model).parameters;
  for (const variant of ['dense, same total', 'coarse experts', 'finest experts', 'no shared expert'] as const)
    expect(Math.abs(total(variant) / total('moe') - 1), variant).toBeLessThan(0.01);
});

test('the attentions differ in their cache as their papers say', () => {
  const bytes = (variant: VariantName) => modelReport(variantOf(variant, HIDDEN).model).cacheBytesPerToken.model;
  // two bytes, four layers: keys and values of 4, 2 and 1 heads of 32; a latent of 32 and a rotary key of 16
  expect([bytes('MHA'), bytes('GQA'), bytes('MQA'), bytes('dense, same active')]).toEqual(
    [2 * 4 * 32, 2 * 2 * 32, 2 * 32, 32 + 16].map((values) => values * 2 * 4),
  );
});

test('an ablation that is stopped goes on where it was, and writes what its runs measured', async () => {
  const sentence = (i: number) =>
    `The ${['fox', 'crow', 'king', 'mouse'][i % 4]} saw ${i} ${['apples', 'stars', 'eggs'][i % 3]} and was glad. `;
  const documents = Array.from({ length: 260 }, (_, i) =>
    JSON.stringify({ text: Array.from({ length: 24 }, (_, j) => sentence(i * 7 + j)).join('') }),
  );
  const corpus = path.join(folder, 'texts.jsonl');
  writeFileSync(corpus, documents.join('\n'));
  const runs = path.join(folder, 'runs');
  const settings = {
    comparisons: comparisonsNamed(['shared']),
    hidden: 64,
    steps: 4,
    seeds: 2,
    folder: runs,
    corpus: [corpus],
  };
  for await (const { report, run } of runAblation(settings)) {
    if (run === 2 && report.step === 2) break;
  }
  const seen: string[] = [];
  let results: VariantResult[] = [];
  for (const training = runAblation(settings); ; ) {
    const { value, done } = await training.next();
    if (done) {
      results = value;
      break;
    }
    seen.push(`${value.run}:${value.report.step}`);
  }
  expect(seen[0]).toBe('2:3');
  expect(seen).toHaveLength(2 + 2 * 4);

  const page = path.join(folder, 'ablation.md');
  await writeAblation(page, settings, results, CIRCUMSTANCES);
  const text = readFileSync(page, 'utf8');
  for (const { variant, seeds } of results) {
    for (const { seed, bitsPerByte, imbalance } of seeds) {
      const name = `${variant.replaceAll(' ', '-')}-64-seed${seed}`;
      const last = readFileSync(path.join(runs, name, 'metrics.jsonl'), 'utf8')
        .trimEnd()
        .split('\n')
        .at(-1)!;
      expect(JSON.parse(last)).toMatchObject({ step: 4, bitsPerByte, validationImbalance: imbalance });
      expect(imbalance).toBeGreaterThanOrEqual(1);
      expect(text).toContain(bitsPerByte.toFixed(3));
    }
  }
  expect(readdirSync(path.join(folder, 'ablation'))).toEqual(['shared.svg']);
  await expect(runAblation({ ...settings, steps: 7 }).next()).rejects.toThrow('a run of 4 steps, expected 7');
});

test('a difference is called one only where all seeds agree', async () => {
  const result = (variant: VariantName, losses: number[]): VariantResult => ({
    variant,
    parameters: 1,
    activeParameters: 1,
    cacheBytesPerToken: 1,
    trainingBytes: { state: 1, step: 1 },
    seeds: losses.map((bitsPerByte, i) => ({
      seed: i + 1,
      bitsPerByte,
      secondsPerStep: 1,
      imbalance: null,
      metrics: [],
    })),
  });
  const comparisons = comparisonsNamed(['experts']);
  const settings = { comparisons, hidden: 64, steps: 10, seeds: 2, folder, corpus: [] };
  const page = path.join(folder, 'verdict.md');
  const results = [
    result('dense, same active', [2, 2.1]),
    result('moe', [1.9, 2.2]),
    result('dense, same total', [1.9, 1.8]),
  ];
  await writeAblation(page, settings, results, CIRCUMSTANCES);
  const text = readFileSync(page, 'utf8');
  expect(text).toContain('*moe* against *dense, same active*: the seeds disagree');
  expect(text).toContain('*dense, same total* against *dense, same active*: lower loss with every seed, by 0.200 bits');
  expect(text).toContain('| +0.000 (−0.100 to +0.100) |');
});
