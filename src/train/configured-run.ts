/** From a training config to its run: texts to tokens, steps to metrics and samples, and the finished model. */
import { appendFile, mkdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { replaceFile } from '../numerics/replace-file.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { readCorpus } from './corpus.ts';
import { writeLossCurve } from './loss-curve.ts';
import { readMetrics, recordStep, type StepMetrics } from './metrics-file.ts';
import { type Batch, type PackedDocuments, packDocuments, type TokenDocument } from './packed-documents.ts';
import { createParameters } from './parameters.ts';
import { makeRunTokenizer, openRunTokenizer } from './run-tokenizer.ts';
import { type SampledText, textSampler } from './sample-texts.ts';
import { type TrainConfig, TrainConfigError } from './train-config.ts';
import { writeModel } from './training-checkpoint.ts';
import type { TrainingMemory } from './training-memory.ts';
import { type RunSettings, trainModel } from './training-run.ts';

export interface RunReport extends StepMetrics {
  /** Where texts were sampled: at the steps of validation. */
  readonly samples?: readonly SampledText[];
}

/** What will be trained, before the first step; kept in the run's folder as run.json. */
export interface RunPlan {
  readonly steps: number;
  readonly parameters: number;
  /** Tokens of one epoch. */
  readonly trainingTokens: number;
  readonly tokensPerStep: number;
  readonly validationBatches: number;
}

export type AnnouncedRun = RunPlan & { readonly memory: TrainingMemory };

/**
 * Runs a config to its last step. In its folder: run.json, checkpoints/, metrics.jsonl, samples.jsonl and, at the
 * end, loss.svg and model/.
 * @param resume go on from the newest checkpoint; otherwise the folder must not hold a run yet
 * @param onPlan told once, before the first step
 * @param texts from `readRunTexts`, for who trains several models on the same
 * @throws TrainConfigError, CorpusError, TrainingCheckpointError naming file and key, line or field
 */
export async function* runConfig(
  config: TrainConfig,
  { resume, onPlan, texts }: { resume: boolean; onPlan(plan: AnnouncedRun): void; texts?: RunTexts },
): AsyncGenerator<RunReport> {
  const { model, data, run, optimizer } = config;
  const inRun = (name: string) => path.join(run.folder, name);
  if (!resume && ((await exists(inRun('metrics.jsonl'))) || (await exists(inRun('checkpoints'))))) {
    throw new TrainConfigError(
      `${run.folder} holds a run already. Add --resume to go on with it, or choose another run.folder`,
    );
  }
  const read = texts ?? (await readRunTexts(config));
  const { tokenizer, tokenizerFolder } = read;
  const { training, validation } = packedTexts(config, read);
  const bytesPerTarget = meanTargetBytes(validation, tokenizer);
  const parameters = createParameters(model, data.seed, optimizer.precision);
  const samplesOf =
    run.sample_prompts.length > 0
      ? textSampler(model, parameters, tokenizer, {
          prompts: run.sample_prompts,
          tokens: run.sample_tokens,
          temperature: run.sample_temperature,
          seed: data.seed,
        })
      : null;
  const settings = settingsOf(config);
  const plan: RunPlan = {
    steps: settings.schedule.steps,
    parameters: parameters.list.reduce((sum, { count }) => sum + count, 0),
    trainingTokens: training.tokens,
    tokensPerStep: settings.rows * settings.accumulate,
    validationBatches: validation.length,
  };
  await mkdir(run.folder, { recursive: true });
  await replaceFile(inRun('run.json'), (file) => file.writeFile(`${JSON.stringify(plan)}\n`));
  const companions = ['tokenizer.json', 'tokenizer_config.json'].map((name) => path.join(tokenizerFolder, name));
  const onMemory = (memory: TrainingMemory) => onPlan({ ...plan, memory });
  const files = { checkpoints: inRun('checkpoints'), companions, onMemory };
  let isFirst = true;
  for await (const report of trainModel(model, parameters, training, validation, settings, files)) {
    const { step, validation: nats } = report;
    const metrics = nats === undefined ? report : { ...report, bitsPerByte: nats / Math.LN2 / bytesPerTarget };
    await recordStep(inRun('metrics.jsonl'), metrics, isFirst);
    isFirst = false;
    const due = step === settings.schedule.steps || (run.validate_every > 0 && step % run.validate_every === 0);
    const samples = samplesOf && due ? await samplesOf() : null;
    for (const sample of samples ?? []) {
      await appendFile(inRun('samples.jsonl'), `${JSON.stringify({ step, ...sample })}\n`);
    }
    yield samples ? { ...metrics, samples } : metrics;
  }
  await writeModel(inRun('model'), model, parameters, companions);
  await writeLossCurve(inRun('loss.svg'), { [path.basename(run.folder)]: await readMetrics(inRun('metrics.jsonl')) });
}

/** The given tokenizer, or one made of the training texts when the run began. */
async function tokenizerFolderOf({ model, data, run }: TrainConfig): Promise<string> {
  if (data.tokenizer !== undefined) return data.tokenizer;
  const folder = path.join(run.folder, 'tokenizer');
  // the file that is written last
  if (!(await exists(path.join(folder, 'tokenizer_config.json')))) {
    const texts: string[] = [];
    for await (const { text } of readCorpus(data.train)) texts.push(text);
    await makeRunTokenizer(folder, model, texts);
  }
  return folder;
}

/** The texts of a run as documents of tokens, between bos and eos, and what made them so. */
export interface RunTexts {
  readonly tokenizerFolder: string;
  readonly tokenizer: Tokenizer;
  readonly training: readonly TokenDocument[];
  readonly heldOut: readonly TokenDocument[];
}

export async function readRunTexts(config: TrainConfig): Promise<RunTexts> {
  const { model, data } = config;
  const tokenizerFolder = await tokenizerFolderOf(config);
  const tokenizer = await openRunTokenizer(tokenizerFolder, model);
  const bos = tokenizer.bosTokenId ?? model.bosTokenId;
  const eos = tokenizer.eosTokenIds[0] ?? model.eosTokenIds[0] ?? null;
  const tokensOf = (text: string): TokenDocument => {
    const ids = tokenizer.encode(text, { addSpecialTokens: false });
    return { ids: Int32Array.from([...(bos === null ? [] : [bos]), ...ids, ...(eos === null ? [] : [eos])]) };
  };
  const training: TokenDocument[] = [];
  const heldOut: TokenDocument[] = [];
  let number = 0;
  for await (const { text } of readCorpus(data.train)) {
    number++;
    (data.validation.length === 0 && number % data.hold_out === 0 ? heldOut : training).push(tokensOf(text));
  }
  for await (const { text } of readCorpus(data.validation)) heldOut.push(tokensOf(text));
  return { tokenizerFolder, tokenizer, training, heldOut };
}

function packedTexts(
  { model, data, run }: TrainConfig,
  { training, heldOut }: RunTexts,
): { training: PackedDocuments; validation: Batch[] } {
  const modules = model.family === 'deepseek' ? model.numNextnPredictLayers : 0;
  const shape = { sequence: data.sequence, rows: data.batch_tokens, seed: data.seed, modules };
  const enough = (documents: readonly TokenDocument[]) => tokensIn(documents) >= data.batch_tokens;
  const expectEnough = (documents: readonly TokenDocument[], key: string) => {
    if (enough(documents)) return;
    throw new TrainConfigError(
      `${key}: ${tokensIn(documents)} tokens, expected at least one batch (data.batch_tokens = ${data.batch_tokens})`,
    );
  };
  expectEnough(training, 'data.train');
  if (data.validation.length > 0) expectEnough(heldOut, 'data.validation');
  const validation: Batch[] = [];
  if (enough(heldOut)) {
    const packed = packDocuments(heldOut, shape);
    for (let i = 0; i < Math.min(run.validation_batches, packed.batches); i++) validation.push(packed.batch(i));
  }
  return { training: packDocuments(training, shape), validation };
}

const tokensIn = (documents: readonly TokenDocument[]) => documents.reduce((sum, { ids }) => sum + ids.length, 0);

/** Bytes of text that a target stands for, on average; eos stands for none, though predicting it counts. */
function meanTargetBytes(batches: readonly Batch[], tokenizer: Tokenizer): number {
  const targets = batches.flatMap((batch) => Array.from(batch.targets).filter((target) => target >= 0));
  return targets.reduce((sum, target) => sum + tokenizer.bytes(target).length, 0) / targets.length;
}

function settingsOf({ data, schedule, optimizer, objective, run }: TrainConfig): RunSettings {
  return {
    schedule: {
      shape: schedule.shape,
      peak: schedule.peak,
      floor: schedule.floor,
      warmupSteps: schedule.warmup_steps,
      steps: schedule.steps,
      decayShare: schedule.decay_share,
    },
    adamw: { beta1: optimizer.beta1, beta2: optimizer.beta2, eps: optimizer.eps, weightDecay: optimizer.weight_decay },
    rows: data.batch_tokens,
    accumulate: data.accumulate,
    batchWarmupSteps: data.batch_warmup_steps,
    recompute: run.recompute,
    clip: optimizer.clip,
    mtpWeight: objective.mtp_weight,
    balanceWeight: objective.balance_loss,
    sequenceBalance: { weight: objective.sequence_balance_loss, window: data.sequence },
    balanceRate: objective.balance_rate,
    validateEvery: run.validate_every || schedule.steps,
    checkpointEvery: run.checkpoint_every,
  };
}

const exists = (file: string) =>
  stat(file).then(
    () => true,
    () => false,
  );
