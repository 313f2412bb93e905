/**
 * Trains every variant of some comparisons with several seeds, one run folder each, and gathers what came out. Runs
 * that are complete are kept, one that was interrupted goes on, so the whole can be stopped and called again.
 */
import { mkdir, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { modelReport } from '../model/model-report.ts';
import { COMPARISONS, type Comparison, type Variant, type VariantName, variantOf } from './ablation-variants.ts';
import { type RunReport, type RunTexts, readRunTexts, runConfig } from './configured-run.ts';
import { readMetrics, type StepMetrics } from './metrics-file.ts';
import { createParameters } from './parameters.ts';
import { type TrainConfig, TrainConfigError } from './train-config.ts';
import { lossProgram } from './training-step.ts';

export interface AblationSettings {
  readonly comparisons: readonly Comparison[];
  /** Hidden size of the models, a multiple of 64. */
  readonly hidden: number;
  readonly steps: number;
  readonly seeds: number;
  /** Where the runs are kept. */
  readonly folder: string;
  /** Texts to train on; one document in 50 is held out. */
  readonly corpus: readonly string[];
}

/** A step of one of the runs. */
export interface AblationProgress {
  readonly variant: string;
  readonly seed: number;
  /** This run among all, from 1. */
  readonly run: number;
  readonly runs: number;
  readonly report: RunReport;
  /** For the steps left of all runs, at the pace so far. */
  readonly secondsLeft: number;
}

export interface VariantResult {
  readonly variant: string;
  readonly parameters: number;
  readonly activeParameters: number;
  readonly cacheBytesPerToken: number;
  /** FP32 masters, gradients and moments, and what a step holds: activations, saved values, their gradients. */
  readonly trainingBytes: { readonly state: number; readonly step: number };
  /** One for each seed, in order. */
  readonly seeds: readonly SeedResult[];
}

export interface SeedResult {
  readonly seed: number;
  /** Held out, after the last step. */
  readonly bitsPerByte: number;
  /** A step of the fastest tenth: on a machine with other work, nearest to what the step takes by itself. */
  readonly secondsPerStep: number;
  /** Busiest expert over the mean in the worst layer, held out, after the last step. */
  readonly imbalance: number | null;
  readonly metrics: readonly StepMetrics[];
}

export const BATCH_TOKENS = 1024;
export const SEQUENCE = 128;

/** @throws TrainConfigError when the folder holds runs of another length */
export async function* runAblation(settings: AblationSettings): AsyncGenerator<AblationProgress, VariantResult[]> {
  const { comparisons, steps, seeds, folder } = settings;
  const names = [...new Set(comparisons.flatMap(({ variants }) => variants))];
  const runs = Array.from({ length: seeds }, (_, i) => i + 1).flatMap((seed) => names.map((name) => ({ name, seed })));
  await mkdir(folder, { recursive: true });
  let texts: RunTexts | null = null;
  const undone: boolean[] = [];
  for (const { name, seed } of runs) undone.push((await stepsDone(settings, name, seed)) < steps);
  let [done, seconds] = [0, 0];
  for (const [i, { name, seed }] of runs.entries()) {
    if (!undone[i]) continue;
    const config = configOf(settings, variantOf(name, settings.hidden), seed);
    // the tokenizer lies beside the runs
    texts ??= await readRunTexts({ ...config, run: { ...config.run, folder } });
    for await (const report of runConfig(config, { resume: true, onPlan() {}, texts })) {
      done++;
      seconds += report.seconds;
      const left = undone.slice(i + 1).filter(Boolean).length * steps + steps - report.step;
      yield { variant: name, seed, run: i + 1, runs: runs.length, report, secondsLeft: (left * seconds) / done };
    }
    await rm(path.join(config.run.folder, 'checkpoints'), { recursive: true });
  }
  return Promise.all(names.map((name) => resultOf(settings, variantOf(name, settings.hidden))));
}

const runFolder = ({ folder, hidden }: AblationSettings, name: string, seed: number) =>
  path.join(folder, `${name.replaceAll(/\W+/g, '-').toLowerCase()}-${hidden}-seed${seed}`);

async function stepsDone(settings: AblationSettings, name: VariantName, seed: number): Promise<number> {
  const folder = runFolder(settings, name, seed);
  const plan = await readFile(path.join(folder, 'run.json'), 'utf8').catch(() => null);
  if (plan === null) return 0;
  const { steps } = JSON.parse(plan) as { steps: number };
  if (steps !== settings.steps) {
    throw new TrainConfigError(
      `${folder}: a run of ${steps} steps, expected ${settings.steps}. Choose another folder for the runs, or as many steps`,
    );
  }
  return (await readMetrics(path.join(folder, 'metrics.jsonl'))).at(-1)?.step ?? 0;
}

function configOf(settings: AblationSettings, variant: Variant, seed: number): TrainConfig {
  const { steps, corpus } = settings;
  return {
    model: variant.model,
    data: {
      train: [...corpus],
      validation: [],
      hold_out: 50,
      sequence: SEQUENCE,
      batch_tokens: BATCH_TOKENS,
      accumulate: 1,
      batch_warmup_steps: 0,
      seed,
    },
    optimizer: { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: 1, precision: variant.precision },
    schedule: {
      shape: 'wsd',
      peak: 4e-3,
      floor: 0.05,
      warmup_steps: Math.max(1, Math.round(steps / 10)),
      steps,
      decay_share: 0.3,
    },
    objective: {
      mtp_weight: variant.mtpWeight,
      balance_rate: variant.balanceRate,
      balance_loss: variant.balanceWeight,
      sequence_balance_loss: 0,
    },
    run: {
      folder: runFolder(settings, variant.name, seed),
      validate_every: 0,
      validation_batches: 64,
      checkpoint_every: 100,
      recompute: false,
      sample_prompts: [],
      sample_tokens: 1,
      sample_temperature: 0,
    },
  };
}

async function resultOf(settings: AblationSettings, variant: Variant): Promise<VariantResult> {
  const { parameters, activeParameters, cacheBytesPerToken } = modelReport(variant.model);
  const seeds = Array.from({ length: settings.seeds }, (_, i) => i + 1);
  return {
    variant: variant.name,
    parameters,
    activeParameters,
    cacheBytesPerToken: cacheBytesPerToken.model,
    trainingBytes: trainingBytes(variant),
    seeds: await Promise.all(
      seeds.map(async (seed) =>
        seedResult(seed, await readMetrics(path.join(runFolder(settings, variant.name, seed), 'metrics.jsonl'))),
      ),
    ),
  };
}

function seedResult(seed: number, metrics: readonly StepMetrics[]): SeedResult {
  const { bitsPerByte, validationImbalance = null } = metrics.at(-1) ?? {};
  if (bitsPerByte === undefined) throw new Error('a run without held-out texts');
  const times = metrics.map(({ seconds }) => seconds).sort((a, b) => a - b);
  return {
    seed,
    bitsPerByte,
    secondsPerStep: times[Math.floor(times.length / 10)]!,
    imbalance: validationImbalance,
    metrics,
  };
}

function trainingBytes({ model, precision, mtpWeight, balanceWeight }: Variant) {
  const parameters = createParameters(model, 1, precision);
  const program = lossProgram(model, parameters, { rows: BATCH_TOKENS, mtpWeight, balanceWeight, gradients: true });
  const { master, gradient, firstMoment, secondMoment } = parameters;
  const state = [master, gradient, firstMoment, secondMoment].reduce((sum, { byteLength }) => sum + byteLength, 0);
  return { state, step: program.bytes };
}

export function comparisonsNamed(names: readonly string[]): Comparison[] {
  return COMPARISONS.filter(({ name }) => names.length === 0 || names.includes(name));
}
