/** Everything between a training config and its run: texts to tokens, parameters, metrics, the finished model. */
import { appendFile, mkdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { type ModelConfig, parseConfig } from '../model/config.ts';
import { loadTokenizer, type Tokenizer } from '../tokenizer/tokenizer.ts';
import { writeTokenizer } from '../tokenizer/write-tokenizer.ts';
import { SPLIT_PATTERN, trainBpe } from './bpe.ts';
import { readCorpus } from './corpus.ts';
import { writeLossCurve } from './loss-curve.ts';
import { type Batch, packDocuments, type TokenDocument } from './packed-documents.ts';
import { createParameters } from './parameters.ts';
import { type TrainConfig, TrainConfigError } from './train-config.ts';
import { writeModel } from './training-checkpoint.ts';
import { type StepReport, trainModel } from './training-run.ts';

export interface RunReport extends StepReport {
  readonly bitsPerByte?: number;
}

const SPECIALS = ['<|bos|>', '<|eos|>', '<|pad|>', '<|user|>', '<|assistant|>', '<think>', '</think>'];
const CHAT_TEMPLATE =
  "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}<|assistant|>{{ message['content'] }}{{ eos_token }}" +
  "{% else %}<|user|>{{ message['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

/**
 * Runs a config to its last step. In its folder: checkpoints/, metrics.jsonl, loss.svg and, at the end, model/.
 * @param resume go on from the newest checkpoint; otherwise the folder must not hold a run yet
 * @param onPlan told once what will be trained, before the first step
 * @throws TrainConfigError, ConfigError, CorpusError naming file and key, line or field
 */
export async function* runConfig(
  config: TrainConfig,
  { resume, onPlan }: { resume: boolean; onPlan(plan: string): void },
): AsyncGenerator<RunReport> {
  const { data, run, schedule, optimizer, objective } = config;
  const metrics = path.join(run.folder, 'metrics.jsonl');
  if (!resume && (await exists(metrics))) {
    throw new TrainConfigError(
      `${run.folder} holds a run already. Add --resume to go on with it, or choose another run.folder`,
    );
  }
  await mkdir(run.folder, { recursive: true });
  const model = await modelConfig(config);
  const texts = { train: await textsOf(data.train), validation: await textsOf(data.validation) };
  if (data.validation.length === 0) {
    texts.validation = texts.train.filter((_, i) => i % data.hold_out === data.hold_out - 1);
    texts.train = texts.train.filter((_, i) => i % data.hold_out !== data.hold_out - 1);
  }
  const { tokenizer, folder } = await tokenizerOf(config, model, texts.train);
  const tokens = (text: string): TokenDocument => ({
    ids: [model.bosTokenId ?? 0, ...tokenizer.encode(text), model.eosTokenIds[0] ?? 1],
  });
  const shape = { sequence: data.sequence, rows: data.batch_tokens, seed: data.seed };
  const training = packDocuments(texts.train.map(tokens), shape);
  const held = texts.validation.map(tokens);
  const heldTokens = held.reduce((sum, { ids }) => sum + ids.length, 0);
  const validation: Batch[] = [];
  if (heldTokens >= data.batch_tokens) {
    const packed = packDocuments(held, shape);
    for (let i = 0; i < Math.min(run.validation_batches, packed.batches); i++) validation.push(packed.batch(i));
  }
  const bytesPerToken =
    texts.validation.reduce((sum, text) => sum + Buffer.byteLength(text), 0) / Math.max(1, heldTokens);
  const parameters = createParameters(model, data.seed);
  onPlan(
    `${parameters.count.toLocaleString('en')} parameters, ${training.tokens.toLocaleString('en')} tokens, ` +
      `${schedule.steps} steps of ${data.batch_tokens * data.accumulate}, ${validation.length} validation batches`,
  );
  const companions = ['tokenizer.json', 'tokenizer_config.json'].map((name) => path.join(folder, name));
  const settings = {
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
    clip: optimizer.clip,
    mtpWeight: objective.mtp_weight,
    balanceRate: objective.balance_rate,
    validateEvery: run.validate_every,
    checkpointEvery: run.checkpoint_every,
  };
  const files = { checkpoints: path.join(run.folder, 'checkpoints'), companions };
  for await (const report of trainModel(model, parameters, training, validation, settings, files)) {
    const full =
      report.validation === undefined
        ? report
        : { ...report, bitsPerByte: report.validation / Math.LN2 / bytesPerToken };
    await appendFile(metrics, `${JSON.stringify(full)}\n`);
    yield full;
  }
  await writeModel(path.join(run.folder, 'model'), model, parameters, companions);
  await writeLossCurve(path.join(run.folder, 'loss.svg'), { [path.basename(run.folder)]: await readMetrics(metrics) });
}

/** The steps of a metrics.jsonl, each once: a resumed run's later lines replace earlier ones. */
export async function readMetrics(file: string): Promise<RunReport[]> {
  const lines = (await readFile(file, 'utf8')).split('\n').filter((line) => line.endsWith('}'));
  const steps = new Map(lines.map((line) => JSON.parse(line) as RunReport).map((report) => [report.step, report]));
  return [...steps.values()].sort((a, b) => a.step - b.step);
}

async function modelConfig({ model }: TrainConfig): Promise<ModelConfig> {
  if (typeof model.config !== 'string') return parseConfig(model, '[model]');
  return parseConfig(JSON.parse(await readFile(model.config, 'utf8')), model.config);
}

async function textsOf(paths: readonly string[]): Promise<string[]> {
  const texts: string[] = [];
  for await (const { text } of readCorpus(paths)) texts.push(text);
  return texts;
}

async function tokenizerOf(
  { data, run }: TrainConfig,
  model: ModelConfig,
  texts: readonly string[],
): Promise<{ tokenizer: Tokenizer; folder: string }> {
  const folder = data.tokenizer ?? path.join(run.folder, 'tokenizer');
  if (data.tokenizer === undefined && !(await exists(path.join(folder, 'tokenizer.json')))) {
    await mkdir(folder, { recursive: true });
    await writeTokenizer(folder, {
      ...trainBpe(texts, model.vocabSize, SPECIALS),
      splitPattern: SPLIT_PATTERN,
      specials: SPECIALS,
      shown: ['<think>', '</think>'],
      bos: SPECIALS[0]!,
      eos: SPECIALS[1]!,
      pad: SPECIALS[2]!,
      chatTemplate: CHAT_TEMPLATE,
      maxLength: model.maxPositionEmbeddings,
    });
  }
  const tokenizer = await loadTokenizer(folder);
  if (tokenizer === null) throw new TrainConfigError(`data.tokenizer: ${folder} has no tokenizer.json`);
  if (tokenizer.vocabSize > model.vocabSize) {
    throw new TrainConfigError(
      `${folder}: ${tokenizer.vocabSize} tokens, expected at most the model's vocab_size (${model.vocabSize})`,
    );
  }
  return { tokenizer, folder };
}

const exists = (file: string) =>
  stat(file).then(
    () => true,
    () => false,
  );
