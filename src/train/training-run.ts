/** A training run from its first or its last checkpoint to its last step. */
import type { ModelConfig } from '../model/config.ts';
import { balanceExperts, loadImbalance, loadPercents } from './balance.ts';
import type { Batch, PackedDocuments } from './packed-documents.ts';
import type { Parameters } from './parameters.ts';
import { learningRate, microBatches, type Schedule } from './schedule.ts';
import { type Companions, resumeCheckpoint, saveCheckpoint } from './training-checkpoint.ts';
import { type TrainingMemory, trainingMemory } from './training-memory.ts';
import { type AdamW, createOptimizer, type LossProgram, lossProgram } from './training-step.ts';

export interface RunSettings {
  readonly schedule: Schedule;
  readonly adamw: AdamW;
  /** Tokens of one micro-batch, and micro-batches in a step. */
  readonly rows: number;
  readonly accumulate: number;
  /** Steps in which micro-batches grow from 1 to `accumulate` (V3 report §4.2: the batch size is scheduled). */
  readonly batchWarmupSteps?: number;
  /** Whether layers compute their inner values again in the backward pass, instead of keeping them. */
  readonly recompute?: boolean;
  /** Gradients are scaled down to this norm. */
  readonly clip: number;
  /** λ of the MTP loss. */
  readonly mtpWeight: number;
  /** α of the auxiliary balance loss. */
  readonly balanceWeight?: number;
  /** α of the balance loss of each sequence (V3 report eq. 17), and the tokens of a sequence. */
  readonly sequenceBalance?: { readonly weight: number; readonly window: number };
  /** Speed of the selection biases. */
  readonly balanceRate: number;
  /** Steps between validations and between checkpoints; 0 for none. */
  readonly validateEvery: number;
  readonly checkpointEvery: number;
}

/** One line of a run's metrics. */
export interface StepReport {
  readonly step: number;
  /** Nats per trained token of this step. */
  readonly loss: number;
  readonly mtpLoss: number | null;
  readonly learningRate: number;
  readonly gradientNorm: number;
  /** Worst layer's busiest expert over the mean. */
  readonly imbalance: number | null;
  /** By MoE layer, each expert's load over the mean in percent. */
  readonly expertLoads?: Readonly<Record<number, readonly number[]>>;
  /** Mean entropy of a token's affinities over experts, in nats. */
  readonly routerEntropy?: number;
  readonly tokens: number;
  readonly seconds: number;
  /** Nats per token of the validation batches, where they were run. */
  readonly validation?: number;
  /** As `imbalance`, over all validation batches. */
  readonly validationImbalance?: number;
}

export interface RunFiles {
  /** Where checkpoints go, or null to keep none. */
  readonly checkpoints: string | null;
  readonly companions: Companions;
  /** Told once, before the first step. */
  readonly onMemory?: (memory: TrainingMemory) => void;
}

/**
 * Trains `parameters` on `data`. Resumes from the newest checkpoint if there is one; the steps after it are those of
 * an uninterrupted run, bit for bit. Who leaves the loop early leaves a checkpoint of the last step reported.
 */
export async function* trainModel(
  config: ModelConfig,
  parameters: Parameters,
  data: PackedDocuments,
  validation: readonly Batch[],
  settings: RunSettings,
  files: RunFiles,
): AsyncGenerator<StepReport> {
  const { schedule, rows, mtpWeight, balanceWeight, sequenceBalance, recompute } = settings;
  const program = lossProgram(config, parameters, {
    rows,
    mtpWeight,
    ...(balanceWeight === undefined ? {} : { balanceWeight }),
    ...(sequenceBalance === undefined ? {} : { sequenceBalance }),
    ...(recompute === undefined ? {} : { recompute }),
    gradients: true,
  });
  const validator =
    validation.length > 0 ? lossProgram(config, parameters, { rows, mtpWeight: 0, gradients: false }) : null;
  const optimizer = createOptimizer(parameters, settings.adamw);
  files.onMemory?.(trainingMemory(parameters, validator ? [program, validator] : [program], rows));
  const done = files.checkpoints ? await resumeCheckpoint(files.checkpoints, config, parameters) : 0;
  await parameters.repack();

  const batchesOf = (step: number) => microBatches(step, settings.accumulate, settings.batchWarmupSteps ?? 0);
  let taken = 0;
  for (let step = 1; step <= done; step++) taken += batchesOf(step);
  for (let step = done + 1; step <= schedule.steps; step++) {
    const accumulate = batchesOf(step);
    const begin = performance.now();
    await optimizer.zero();
    let [nats, targets, mtp, entropy] = [0, 0, 0, 0];
    const loads = new Loads();
    for (let micro = 0; micro < accumulate; micro++) {
      const losses = await program.run(data.batch(taken++), 1 / accumulate);
      nats += losses.nats;
      targets += losses.targets;
      const wrong = program.notFinite();
      if (wrong.length > 0) throw new NotFiniteError(step, `${wrong[0]} has a number that is not finite`);
      mtp += (losses.mtp ?? 0) / accumulate;
      entropy += (program.routerEntropy() ?? 0) / accumulate;
      loads.add(program);
    }
    const gradientNorm = await optimizer.norm();
    if (!Number.isFinite(gradientNorm)) {
      throw new NotFiniteError(step, `the gradient is ${gradientNorm}`);
    }
    const rate = learningRate(step, schedule);
    await optimizer.update(step, rate, Math.min(1, settings.clip / (gradientNorm + 1e-6)));
    for (const [layer, counts] of loads.byLayer) {
      const bias = parameters.routerBiases.get(`model.layers.${layer}.mlp.gate.e_score_correction_bias`);
      if (bias) balanceExperts(bias, counts, settings.balanceRate);
    }
    await parameters.repack();
    const due = (every: number) => every > 0 && (step % every === 0 || step === schedule.steps);
    const seconds = (performance.now() - begin) / 1000;
    const report = {
      step,
      loss: nats / Math.max(1, targets),
      mtpLoss: mtp > 0 ? mtp : null,
      learningRate: rate,
      gradientNorm,
      imbalance: loads.imbalance(),
      ...(loads.byLayer.size > 0
        ? {
            routerEntropy: entropy,
            expertLoads: Object.fromEntries([...loads.byLayer].map(([layer, counts]) => [layer, loadPercents(counts)])),
          }
        : {}),
      tokens: rows * accumulate,
      seconds,
    };
    const validated =
      validator && due(settings.validateEvery) ? { ...report, ...(await validate(validator, validation)) } : report;
    // saved after its step was reported, so that no step before a checkpoint is missing from the metrics
    let left = true;
    try {
      yield validated;
      left = false;
    } finally {
      if (files.checkpoints && (left || due(settings.checkpointEvery))) {
        await saveCheckpoint(files.checkpoints, step, config, parameters, files.companions);
      }
    }
  }
}

/** The weights are as the step before left them. */
class NotFiniteError extends Error {
  override name = 'NotFiniteError';
  constructor(step: number, what: string) {
    super(`step ${step}: ${what}. Lower the learning rate or look at the data of this step`);
  }
}

/** Nats per trained token over all batches, and how evenly they load the experts. */
async function validate(program: LossProgram, batches: readonly Batch[]) {
  let [nats, targets] = [0, 0];
  const loads = new Loads();
  for (const batch of batches) {
    const losses = await program.run(batch);
    nats += losses.nats;
    targets += losses.targets;
    loads.add(program);
  }
  const imbalance = loads.imbalance();
  return { validation: nats / Math.max(1, targets), ...(imbalance === null ? {} : { validationImbalance: imbalance }) };
}

/** Tokens sent to each expert over several runs, by MoE layer. */
class Loads {
  readonly byLayer = new Map<number, Int32Array>();

  add(program: LossProgram) {
    for (const { layer, counts } of program.expertLoads()) {
      const sum = this.byLayer.get(layer);
      this.byLayer.set(layer, sum ? sum.map((n, e) => n + counts[e]!) : counts);
    }
  }

  /** The worst layer's busiest expert over the mean, or null without experts. */
  imbalance(): number | null {
    return this.byLayer.size > 0 ? Math.max(...[...this.byLayer.values()].map(loadImbalance)) : null;
  }
}
