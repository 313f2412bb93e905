/** The TOML file of `farthing train`, parsed into a checked record with every default resolved. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { parse } from 'smol-toml';
import { z } from 'zod';
import { FormatError } from '../numerics/format-error.ts';

export class TrainConfigError extends FormatError {
  override name = 'TrainConfigError';
}

const count = (least: number, most: number) => z.int().min(least).max(most);
const share = z.number().min(0).max(1);

const fields = z.strictObject({
  /** The model's config.json: its official keys here, or the path of the file. */
  model: z.union([z.strictObject({ config: z.string() }), z.record(z.string(), z.unknown())]),
  data: z.strictObject({
    train: z.array(z.string()).min(1),
    /** Held-out texts; without them one training document in `hold_out` is kept for validation. */
    validation: z.array(z.string()).default([]),
    hold_out: count(2, 100_000).default(50),
    /** A folder with tokenizer.json; without it a byte-level BPE of the model's vocab_size is trained on the texts. */
    tokenizer: z.string().optional(),
    sequence: count(8, 1 << 20).default(512),
    batch_tokens: count(8, 1 << 24).default(4096),
    accumulate: count(1, 4096).default(1),
    seed: count(0, 2 ** 31 - 1).default(1),
  }),
  optimizer: z
    .strictObject({
      beta1: share.default(0.9),
      beta2: share.default(0.95),
      eps: z.number().positive().max(1).default(1e-8),
      weight_decay: share.default(0.1),
      clip: z.number().positive().default(1),
    })
    .prefault({}),
  schedule: z.strictObject({
    shape: z.enum(['cosine', 'wsd']).default('wsd'),
    peak: z.number().positive().max(1),
    floor: share.default(0.05),
    warmup_steps: count(1, 10 ** 7).default(50),
    steps: count(1, 10 ** 9),
    decay_share: share.default(0.25),
  }),
  objective: z
    .strictObject({
      mtp_weight: z.number().min(0).max(10).default(0.3),
      balance_rate: share.default(0.001),
    })
    .prefault({}),
  run: z.strictObject({
    folder: z.string(),
    validate_every: count(0, 10 ** 9).default(100),
    validation_batches: count(1, 10 ** 6).default(8),
    checkpoint_every: count(1, 10 ** 9).default(100),
  }),
});

export type TrainConfig = z.infer<typeof fields>;

/**
 * Reads the file; paths in it are relative to its folder and come back absolute.
 * @throws TrainConfigError naming file and key, expected and found
 */
export async function readTrainConfig(file: string): Promise<TrainConfig> {
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new TrainConfigError(`${file}: ${error.code === 'ENOENT' ? 'not found' : error.message}`);
  });
  let toml: unknown;
  try {
    toml = parse(text);
  } catch (error) {
    throw new TrainConfigError(`${file}: no TOML: ${(error as Error).message.split('\n')[0]}`);
  }
  const parsed = fields.safeParse(toml);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const where = issue!.path.join('.');
    const unknown = issue!.code === 'unrecognized_keys' ? issue!.keys[0] : undefined;
    const problem =
      unknown === undefined ? `${where}: ${issue!.message}` : unknownKey([...issue!.path.map(String), unknown]);
    throw new TrainConfigError(`${file}: ${problem}`);
  }
  const config = parsed.data;
  if (config.data.batch_tokens % config.data.sequence !== 0) {
    throw new TrainConfigError(
      `${file}: data.batch_tokens is ${config.data.batch_tokens}, expected a multiple of data.sequence (${config.data.sequence})`,
    );
  }
  const absolute = (given: string) => path.resolve(path.dirname(file), given);
  const { model, data, run } = config;
  return {
    ...config,
    model: typeof model.config === 'string' ? { config: absolute(model.config) } : model,
    data: {
      ...data,
      train: data.train.map(absolute),
      validation: data.validation.map(absolute),
      ...(data.tokenizer === undefined ? {} : { tokenizer: absolute(data.tokenizer) }),
    },
    run: { ...run, folder: absolute(run.folder) },
  };
}

function unknownKey(keys: readonly string[]): string {
  const section = keys.length > 1 ? (fields.shape[keys[0] as keyof TrainConfig] as unknown) : fields;
  const known = knownKeys(section);
  const key = keys.at(-1)!;
  const nearest = known
    .map((name) => ({ name, distance: editDistance(name, key) }))
    .sort((a, b) => a.distance - b.distance)[0];
  const hint =
    nearest && nearest.distance <= Math.max(2, key.length / 3)
      ? ` Did you mean "${nearest.name}"?`
      : ` Known are ${known.join(', ')}.`;
  return `unknown key "${keys.join('.')}".${hint}`;
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
