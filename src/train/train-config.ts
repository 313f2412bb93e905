/** The TOML file of `farthing train`, parsed into a checked record with every default resolved. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { parse } from 'smol-toml';
import { z } from 'zod';
import { type ModelConfig, parseConfig } from '../model/config.ts';
import { number, oneOf, whole } from '../model/config-fields.ts';
import { FormatError, shown } from '../numerics/format-error.ts';

export class TrainConfigError extends FormatError {
  override name = 'TrainConfigError';
}

const share = number(0, 1);
const smallest = 1e-12;
const paths = z.array(z.string('a path'), 'a list of paths');

const sections = z.strictObject({
  /** The model's config.json: its official keys here, or `config`, the path of the file. */
  model: z.record(z.string(), z.unknown(), 'a section'),
  data: z.strictObject(
    {
      train: paths.min(1, 'at least one path'),
      /** Held-out texts; without them one training document in `hold_out` is kept for validation. */
      validation: paths.default([]),
      hold_out: whole(2, 100_000).default(50),
      /** A folder with tokenizer.json; without it a byte-level BPE of the model's vocab_size is trained on the texts. */
      tokenizer: z.string('a folder').optional(),
      sequence: whole(8, 1 << 20).default(512),
      batch_tokens: whole(8, 1 << 24).default(4096),
      accumulate: whole(1, 4096).default(1),
      /** Steps in which `accumulate` is reached from 1. */
      batch_warmup_steps: whole(0, 10 ** 9).default(0),
      seed: whole(0, 2 ** 31 - 1).default(1),
    },
    'a section',
  ),
  optimizer: z
    .strictObject(
      {
        beta1: share.default(0.9),
        beta2: share.default(0.95),
        eps: number(smallest, 1).default(1e-8),
        weight_decay: share.default(0.1),
        clip: number(smallest, 1e6).default(1),
        /** Operands of products; masters and gradients are FP32, moments BF16 in all. */
        precision: oneOf(['bf16', 'fp32', 'fp8', 'fp8-power-of-two']).default('bf16'),
      },
      'a section',
    )
    .prefault({}),
  schedule: z.strictObject(
    {
      shape: oneOf(['wsd', 'cosine']).default('wsd'),
      peak: number(smallest, 1),
      floor: share.default(0.05),
      warmup_steps: whole(1, 10 ** 7).default(50),
      steps: whole(1, 10 ** 9),
      decay_share: share.default(0.25),
    },
    'a section',
  ),
  objective: z
    .strictObject(
      {
        mtp_weight: number(0, 10).default(0.3),
        balance_rate: share.default(0.001),
        /** α of the auxiliary balance loss over the batch; 0 for none. */
        balance_loss: number(0, 10).default(0),
        /** α of the balance loss of each sequence (V3 report §2.1.2). */
        sequence_balance_loss: number(0, 10).default(0),
      },
      'a section',
    )
    .prefault({}),
  run: z.strictObject(
    {
      folder: z.string('a path'),
      /** Steps between validations, samples with them, and between checkpoints; 0: only after the last step. */
      validate_every: whole(0, 10 ** 9).default(100),
      validation_batches: whole(1, 10 ** 6).default(8),
      checkpoint_every: whole(1, 10 ** 9).default(100),
      /** Layers compute their inner values again in the backward pass, instead of keeping them: less memory, more time. */
      recompute: z.boolean('true or false').default(false),
      /** Beginnings of texts that the model continues, to see it learn. */
      sample_prompts: z.array(z.string('a text'), 'a list of texts').max(64, 'at most 64 texts').default([]),
      sample_tokens: whole(1, 10_000).default(60),
      sample_temperature: number(0, 10).default(0.8),
    },
    'a section',
  ),
});

export type TrainConfig = Omit<z.infer<typeof sections>, 'model'> & { readonly model: ModelConfig };

/**
 * Reads the file; paths in it are relative to its folder and come back absolute.
 * @throws TrainConfigError, ConfigError naming file and key, expected and found
 */
export async function readTrainConfig(file: string): Promise<TrainConfig> {
  const refuse = (problem: string): never => {
    throw new TrainConfigError(`${file}: ${problem}`);
  };
  const toml = parsed(await read(file), parse, `${file}: no TOML`);
  const checked = sections.safeParse(toml);
  if (!checked.success) return refuse(checked.error.issues.map((issue) => problemOf(issue, toml)).join('\n  '));
  const { data, run } = checked.data;
  const absolute = (given: string) => path.resolve(path.dirname(file), given);
  const model = await modelOf(checked.data.model, file, absolute);
  const { sequence, batch_tokens: rows } = data;
  if (rows % sequence !== 0) refuse(`data.batch_tokens is ${rows}, expected a multiple of data.sequence (${sequence})`);
  if (sequence > model.maxPositionEmbeddings) {
    const longest = model.maxPositionEmbeddings;
    refuse(`data.sequence is ${sequence}, expected at most the model's max_position_embeddings (${longest})`);
  }
  return {
    ...checked.data,
    model,
    data: {
      ...data,
      train: data.train.map(absolute),
      validation: data.validation.map(absolute),
      ...(data.tokenizer === undefined ? {} : { tokenizer: absolute(data.tokenizer) }),
    },
    run: { ...run, folder: absolute(run.folder) },
  };
}

async function modelOf(
  section: Record<string, unknown>,
  file: string,
  absolute: (given: string) => string,
): Promise<ModelConfig> {
  const { config, ...keys } = section;
  if (config === undefined) return parseConfig(keys, `${file} [model]`);
  if (typeof config !== 'string' || Object.keys(keys).length > 0) {
    throw new TrainConfigError(
      `${file}: [model] has "config" and other keys, expected the path of a config.json alone, or its keys without a path`,
    );
  }
  const json = absolute(config);
  return parseConfig(parsed(await read(json), JSON.parse, `${json}: no JSON`), json);
}

function read(file: string): Promise<string> {
  return readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new TrainConfigError(`${file}: ${error.code === 'ENOENT' ? 'not found' : error.message}`);
  });
}

function parsed(text: string, parser: (text: string) => unknown, refusal: string): unknown {
  try {
    return parser(text);
  } catch (error) {
    throw new TrainConfigError(`${refusal}: ${(error as Error).message.split('\n')[0]}`);
  }
}

function problemOf(issue: z.core.$ZodIssue, toml: unknown): string {
  if (issue.code === 'unrecognized_keys')
    return issue.keys.map((key) => unknownKey([...issue.path, key].map(String))).join('\n  ');
  const found = issue.path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown>)?.[key], toml);
  return `${issue.path.join('.')} is ${shown(found)}, expected ${issue.message}`;
}

function unknownKey(keys: readonly string[]): string {
  const section = keys.length > 1 ? sections.shape[keys[0] as keyof typeof sections.shape] : sections;
  const known = knownKeys(section);
  const key = keys.at(-1)!;
  const [nearest] = known
    .map((name) => ({ name, distance: editDistance(name, key) }))
    .sort((a, b) => a.distance - b.distance);
  const close = nearest !== undefined && nearest.distance <= Math.max(2, key.length / 3);
  const hint = close ? `Did you mean "${nearest.name}"?` : `Known are ${known.join(', ')}.`;
  return `unknown key "${keys.join('.')}". ${hint}`;
}

function knownKeys(section: unknown): string[] {
  let schema = section as { shape?: object; def?: { innerType?: unknown } };
  while (!schema.shape && schema.def?.innerType) schema = schema.def.innerType as typeof schema;
  return Object.keys(schema.shape ?? {});
}

/** Levenshtein distance. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row.at(-1)!;
}
