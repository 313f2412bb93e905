import { mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { openCheckpoint } from '../../src/model/checkpoint.ts';
import { FormatError } from '../../src/numerics/format-error.ts';
import { type TinyTensor, tinyConfig, tinyTensors, writeCheckpoint, writeShards } from './tiny-checkpoint.ts';

const root = mkdtempSync(join(tmpdir(), 'farthing-malformed-'));
afterAll(() => rmSync(root, { recursive: true }));
let folders = 0;
const newFolder = () => join(root, String(folders++));

const FILE = 'model.safetensors';
const INCOMPLETE = 'The file is incomplete or of another model than config.json';
const INDEX = 'model.safetensors.index.json';
const [FIRST, SECOND] = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'];

/** Opens the folder and reads every weight; gives the message of the refusal, with the folder's own path taken out. */
async function refusal(folder: string): Promise<string> {
  try {
    const checkpoint = await openCheckpoint(folder);
    for (const name of checkpoint.names) checkpoint.tensor(name);
  } catch (error) {
    expect(error).toBeInstanceOf(FormatError);
    return (error as Error).message.replaceAll(folder, 'FOLDER');
  }
  return 'was not refused';
}

describe('a folder whose parts are missing or not what they should be is refused', () => {
  test.each<[what: string, damage: (folder: string) => void, message: string]>([
    ['no folder', (folder) => rmSync(folder, { recursive: true }), 'FOLDER: no such folder'],
    [
      'no config',
      (folder) => unlinkSync(join(folder, 'config.json')),
      'config.json: no such file in FOLDER. A checkpoint folder has config.json and safetensors files',
    ],
    [
      'a folder as config',
      (folder) => {
        unlinkSync(join(folder, 'config.json'));
        mkdirSync(join(folder, 'config.json'));
      },
      'config.json: is a folder or a device, expected a file',
    ],
    [
      'a config with a key twice',
      (folder) => writeFileSync(join(folder, 'config.json'), '{"model_type": "llama", "model_type": "qwen2"}'),
      'config.json: names "model_type" twice in one object',
    ],
    [
      'a config that is a list',
      (folder) => writeFileSync(join(folder, 'config.json'), '[]'),
      'config.json: the whole is [], expected a JSON object',
    ],
    [
      'no weights',
      (folder) => unlinkSync(join(folder, FILE)),
      'FOLDER: has neither model.safetensors nor model.safetensors.index.json. Weights are read from safetensors files',
    ],
    [
      'both one file and an index',
      (folder) => writeFileSync(join(folder, INDEX), '{}'),
      'FOLDER: has both model.safetensors and model.safetensors.index.json, expected one. Remove the one that is stale',
    ],
    [
      'an empty file',
      (folder) => truncateSync(join(folder, FILE), 0),
      'model.safetensors: is empty, expected a safetensors file',
    ],
    [
      'a folder as weights',
      (folder) => {
        unlinkSync(join(folder, FILE));
        mkdirSync(join(folder, FILE));
      },
      'model.safetensors: is a folder or a device, expected a file',
    ],
  ])('%s', async (_, damage, message) => {
    const folder = newFolder();
    await writeCheckpoint(folder, tinyConfig, tinyTensors());
    damage(folder);
    expect(await refusal(folder)).toBe(message);
  });

  test.each(['', '{', '{"model_type": "llama",}', 'model_type: llama'])(
    'a config that is not JSON: %j',
    async (text) => {
      const folder = newFolder();
      await writeCheckpoint(folder, tinyConfig, tinyTensors());
      writeFileSync(join(folder, 'config.json'), text);
      expect(await refusal(folder)).toMatch(/^config\.json: not JSON: ./);
    },
  );
});

describe('a damaged safetensors file is refused', () => {
  type Header = Record<string, { dtype: unknown; shape: unknown; data_offsets: unknown }>;
  const NORM = 'model.norm.weight';
  /** Rewrites the header of the good file, or its text. */
  const header = (change: (header: Header, text: string) => string | Header) => (file: Buffer) => {
    const length = Number(file.readBigUInt64LE(0));
    const text = file.toString('utf8', 8, 8 + length).trimEnd();
    const changed = change(JSON.parse(text), text);
    const bytes = Buffer.from(typeof changed === 'string' ? changed : JSON.stringify(changed), 'latin1');
    const start = Buffer.alloc(8);
    start.writeBigUInt64LE(BigInt(bytes.length));
    return Buffer.concat([start, bytes, file.subarray(8 + length)]);
  };
  const norm = (change: object) => header((all) => ({ ...all, [NORM]: { ...all[NORM]!, ...change } }));
  const length = (bytes: bigint) => (file: Buffer) => {
    file.writeBigUInt64LE(bytes);
    return file;
  };

  test.each<[what: string, damage: (file: Buffer) => Buffer, message: string | RegExp]>([
    [
      'shorter than a length',
      (file) => file.subarray(0, 5),
      'has 5 bytes, expected at least the 8 of a header length. It is truncated',
    ],
    [
      'cut in the header',
      (file) => file.subarray(0, 100),
      /^the header length says \d+ bytes, but only 92 follow\. The file is truncated$/,
    ],
    [
      'cut in the data',
      (file) => file.subarray(0, -100),
      /^tensor "\S+" ends at byte \d+ of the data, but the file holds \d+\. It is truncated$/,
    ],
    [
      'an absurd header length',
      length(2n ** 63n),
      'the header length says 9223372036854775808 bytes, expected at most 100000000. It is no safetensors file',
    ],
    [
      'a header of 4 GB',
      length(2n ** 32n),
      'the header length says 4294967296 bytes, expected at most 100000000. It is no safetensors file',
    ],
    ['a header past the end', length(99_999_999n), /^the header length says 99999999 bytes, but only \d+ follow/],
    ['no header', length(0n), 'the header starts with "", expected "{"'],
    ['a header that is no JSON', header((_, text) => text.slice(0, -1)), /^the header is not JSON: ./],
    ['a header that is a list', header(() => '[]'), 'the header starts with "[", expected "{"'],
    ['a header after a space', header((_, text) => ` ${text}`), 'the header starts with " ", expected "{"'],
    ['a header that is no text', header(() => '{"\xff": 1}'), 'the header is not UTF-8 text'],
    [
      'a tensor named twice',
      header((all, text) => `${text.slice(0, -1)},"${NORM}":${JSON.stringify(all[NORM])}}`),
      `the header names "${NORM}" twice`,
    ],
    [
      'metadata of numbers',
      header((all) => ({ ...all, __metadata__: { step: 3 } as never })),
      '__metadata__ "step" is 3, expected a string',
    ],
    [
      'metadata that is text',
      header((all) => ({ ...all, __metadata__: 'pt' as never })),
      '__metadata__ is "pt", expected an object of strings',
    ],
    [
      'a tensor that is a number',
      header((all) => ({ ...all, [NORM]: 7 as never })),
      `tensor "${NORM}" is described by 7, expected { dtype, shape, data_offsets }`,
    ],
    [
      'a foreign key',
      norm({ crc: 1 }),
      `tensor "${NORM}" has a key "crc", expected dtype, shape and data_offsets only`,
    ],
    [
      'an unknown dtype',
      norm({ dtype: 'F4' }),
      `tensor "${NORM}" has dtype "F4", expected one of BOOL, U8, I8, F8_E4M3, F8_E5M2, F8_E8M0, U16, I16, F16, BF16, U32, I32, F32, U64, I64, F64`,
    ],
    ['no dtype', norm({ dtype: undefined }), /^tensor "model.norm.weight" has dtype missing, expected one of /],
    [
      'a negative size',
      norm({ shape: [-8] }),
      `tensor "${NORM}" has shape [-8], expected an array of whole sizes from 0`,
    ],
    [
      'a fractional size',
      norm({ shape: [0.5, 16] }),
      `tensor "${NORM}" has shape [0.5,16], expected an array of whole sizes from 0`,
    ],
    ['a size as text', norm({ shape: '8' }), `tensor "${NORM}" has shape "8", expected an array of whole sizes from 0`],
    [
      'sizes that overflow',
      norm({ shape: [2 ** 32, 2 ** 32] }),
      `tensor "${NORM}" has 16 bytes, expected 36893488147419103000 (BF16 [4294967296, 4294967296])`,
    ],
    ['bytes that are not the shape', norm({ shape: [9] }), `tensor "${NORM}" has 16 bytes, expected 18 (BF16 [9])`],
    [
      'offsets reversed',
      norm({ data_offsets: [16, 0] }),
      `tensor "${NORM}" has data_offsets [16, 0], expected begin not past end`,
    ],
    [
      'one offset',
      norm({ data_offsets: [16] }),
      `tensor "${NORM}" has data_offsets [16], expected [begin, end] in bytes`,
    ],
    [
      'a negative offset',
      norm({ data_offsets: [-16, 0] }),
      `tensor "${NORM}" has data_offsets [-16,0], expected [begin, end] in bytes`,
    ],
    [
      'overlapping tensors',
      header((all) => ({
        ...all,
        [NORM]: {
          ...all[NORM]!,
          data_offsets: (all['model.layers.0.input_layernorm.weight'] as never as Header[string]).data_offsets,
        },
      })),
      /^tensor "\S+" begins at byte \d+, inside tensor "\S+" \(to \d+\)$/,
    ],
    [
      'offsets past the end',
      norm({ data_offsets: [2 ** 40, 2 ** 40 + 16] }),
      /begins at byte \d+, expected \d+: a hole of 16 bytes$/,
    ],
    [
      'a hole where a tensor was',
      header((all) => ({ ...all, [NORM]: undefined as never })),
      /^tensor "\S+" begins at byte \d+, expected \d+: a hole of 16 bytes$/,
    ],
    [
      'bytes after the end',
      (file) => Buffer.concat([file, Buffer.from('x')]),
      '1 byte after the last tensor, expected none',
    ],
  ])('%s', async (_, damage, message) => {
    const folder = newFolder();
    await writeCheckpoint(folder, tinyConfig, tinyTensors());
    const path = join(folder, FILE);
    writeFileSync(path, damage(readFileSync(path)));
    const found = await refusal(folder);
    expect(found.startsWith(`${FILE}: `)).toBe(true);
    if (typeof message === 'string') expect(found.slice(FILE.length + 2)).toBe(message);
    else expect(found.slice(FILE.length + 2)).toMatch(message);
  });
});

describe('a file that is not of the model in config.json is refused', () => {
  const ROUTER = 'model.layers.1.mlp.gate.weight';
  const UP = 'model.layers.0.mlp.up_proj.weight';
  const SCALE = `${UP}_scale_inv`;
  const edit = (name: string, change: (tensor: TinyTensor) => void) => (tensors: TinyTensor[]) => {
    change(tensors.find((tensor) => tensor.name === name)!);
    return tensors;
  };
  const reshape = (name: string, shape: number[], dtype: TinyTensor['dtype'] = 'BF16') =>
    edit(name, (tensor) => {
      const bytes = shape.reduce(
        (product, size) => product * size,
        { BF16: 2, F8_E4M3: 1, F16: 2, F32: 4, I32: 4 }[dtype],
      );
      Object.assign(tensor, { shape, dtype, bytes: new Uint8Array(bytes) });
    });
  const without = (pattern: RegExp) => (tensors: TinyTensor[]) => tensors.filter(({ name }) => !pattern.test(name));
  const scales = (value: number) => edit(SCALE, (tensor) => void new Float32Array(tensor.bytes.buffer).fill(value));
  const same = (tensors: TinyTensor[]) => tensors;
  const DIFFERENT = 'The file and the config are from different models';

  test.each<[what: string, change: (tensors: TinyTensor[]) => TinyTensor[], config: object, message: string]>([
    [
      'a missing tensor',
      without(/^model\.norm/),
      {},
      `tensor "model.norm.weight" is missing, expected [8] (F32 or F16 or BF16). ${INCOMPLETE}`,
    ],
    [
      'a missing head',
      without(/^lm_head/),
      {},
      `tensor "lm_head.weight" is missing, expected [16, 8] (F32 or F16 or BF16). ${INCOMPLETE}`,
    ],
    [
      'a missing expert',
      without(/experts\.3\.down_proj/),
      {},
      `tensor "model.layers.1.mlp.experts.3.down_proj.weight" is missing, expected [8, 4] (F32 or F16 or BF16 or F8_E4M3). ${INCOMPLETE}`,
    ],
    [
      'a missing selection bias',
      without(/layers\.1\.mlp\.gate\.e_score/),
      {},
      `tensor "model.layers.1.mlp.gate.e_score_correction_bias" is missing, expected [4] (F32 or F16 or BF16). ${INCOMPLETE}`,
    ],
    [
      'half an MTP module',
      without(/layers\.2\.enorm/),
      {},
      `tensor "model.layers.2.enorm.weight" is missing, expected [8] (F32 or F16 or BF16). ${INCOMPLETE}`,
    ],
    [
      'no tensors at all',
      () => [],
      {},
      `tensor "model.embed_tokens.weight" is missing, expected [16, 8] (F32 or F16 or BF16). ${INCOMPLETE}`,
    ],
    [
      'an extra tensor',
      (tensors) => [...tensors, { name: 'model.adapter', dtype: 'BF16', shape: [1], bytes: new Uint8Array(2) }],
      {},
      `tensor "model.adapter" is not part of the model that config.json describes. ${DIFFERENT}`,
    ],
    [
      'more layers than the config',
      same,
      { num_hidden_layers: 1, num_nextn_predict_layers: 0 },
      `tensor "model.layers.1.self_attn.q_a_proj.weight_scale_inv" and 97 more are not part of the model that config.json describes. ${DIFFERENT}`,
    ],
    [
      'fewer layers than the config',
      same,
      { num_hidden_layers: 5, num_nextn_predict_layers: 0 },
      `tensor "model.layers.3.input_layernorm.weight" is missing, expected [8] (F32 or F16 or BF16). ${INCOMPLETE}`,
    ],
    [
      'more experts than the config',
      same,
      { n_routed_experts: 2, n_group: 1 },
      `tensor "${ROUTER}" has shape [4, 8], expected [2, 8]\n  (n_routed_experts = 2 in config.json). ${DIFFERENT}`,
    ],
    [
      'a router of another model',
      reshape(ROUTER, [4, 16]),
      {},
      `tensor "${ROUTER}" has shape [4, 16], expected [4, 8]\n  (hidden_size = 8 in config.json). ${DIFFERENT}`,
    ],
    [
      'a transposed weight',
      reshape(UP, [8, 12], 'F8_E4M3'),
      {},
      `tensor "${UP}" has shape [8, 12], expected [12, 8]\n  (intermediate_size = 12, hidden_size = 8 in config.json). ${DIFFERENT}`,
    ],
    [
      'a flat weight',
      reshape(UP, [96], 'F8_E4M3'),
      {},
      `tensor "${UP}" has shape [96], expected [12, 8]\n  (intermediate_size = 12, hidden_size = 8 in config.json). ${DIFFERENT}`,
    ],
    [
      'an axis too many',
      reshape('model.norm.weight', [8, 1]),
      {},
      `tensor "model.norm.weight" has shape [8, 1], expected [8]. ${DIFFERENT}`,
    ],
    [
      'a size made of several fields',
      reshape('model.layers.0.self_attn.kv_b_proj.weight', [8, 6], 'F8_E4M3'),
      {},
      `tensor "model.layers.0.self_attn.kv_b_proj.weight" has shape [8, 6], expected [16, 6]\n  (num_attention_heads × (qk_nope_head_dim + v_head_dim) = 16 in config.json). ${DIFFERENT}`,
    ],
    [
      'whole numbers as weights',
      reshape('model.norm.weight', [8], 'I32'),
      {},
      'tensor "model.norm.weight" has dtype I32, expected F32 or F16 or BF16',
    ],
    [
      'an FP8 router',
      reshape(ROUTER, [4, 8], 'F8_E4M3'),
      {},
      `tensor "${ROUTER}" has dtype F8_E4M3, expected F32 or F16 or BF16. F8_E4M3 needs the quantization_config of the published config.json, and only projections may have it`,
    ],
    [
      'FP8 that the config does not know',
      same,
      { quantization_config: null },
      'tensor "model.layers.0.self_attn.q_a_proj.weight" has dtype F8_E4M3, expected F32 or F16 or BF16. F8_E4M3 needs the quantization_config of the published config.json, and only projections may have it',
    ],
    [
      'FP8 without scales',
      without(/layers\.0\.mlp\.up_proj\.weight_scale_inv/),
      {},
      `tensor "${UP}" is F8_E4M3, but its block scales "${SCALE}" are missing`,
    ],
    [
      'scales without FP8',
      reshape(UP, [12, 8]),
      {},
      `tensor "${SCALE}" scales "${UP}", which is BF16, expected F8_E4M3`,
    ],
    [
      'scales of another grid',
      reshape(SCALE, [2, 1], 'F32'),
      {},
      `tensor "${SCALE}" has shape [2, 1], expected [1, 1]\n  (ceil(intermediate_size / 128) = 1 in config.json). ${DIFFERENT}`,
    ],
    ['scales in BF16', reshape(SCALE, [1, 1]), {}, `tensor "${SCALE}" has dtype BF16, expected F32`],
    [
      'a scale of zero',
      scales(0),
      {},
      `tensor "${SCALE}" is 0 at [0, 0], expected a positive number. The file is damaged`,
    ],
    [
      'a negative scale',
      scales(-1),
      {},
      `tensor "${SCALE}" is -1 at [0, 0], expected a positive number. The file is damaged`,
    ],
    [
      'a scale that is NaN',
      scales(Number.NaN),
      {},
      `tensor "${SCALE}" is NaN at [0, 0], expected a positive number. The file is damaged`,
    ],
    [
      'an infinite scale',
      scales(Number.POSITIVE_INFINITY),
      {},
      `tensor "${SCALE}" is Infinity at [0, 0], expected a positive number. The file is damaged`,
    ],
    [
      'an FP8 code that is NaN',
      edit(UP, ({ bytes }) => void bytes.set([0x7f], 19)),
      {},
      `tensor "${UP}" is NaN at [2, 3], expected numbers. The file is damaged`,
    ],
    [
      'an FP8 code that is minus NaN',
      edit(UP, ({ bytes }) => void bytes.set([0xff], 95)),
      {},
      `tensor "${UP}" is NaN at [11, 7], expected numbers. The file is damaged`,
    ],
  ])('%s', async (_, change, config, message) => {
    const folder = newFolder();
    await writeCheckpoint(folder, { ...tinyConfig, ...config }, change(tinyTensors()));
    expect(await refusal(folder)).toBe(`${FILE}: ${message}`);
  });
});

describe('shards and an index that disagree are refused', () => {
  const NORM = 'model.norm.weight';
  const EMBED = 'model.embed_tokens.weight';
  const elsewhere = (shard: unknown) => (map: Record<string, unknown>) => ({ weight_map: { ...map, [NORM]: shard } });
  const notAFile = (shard: string) =>
    `${INDEX}: tensor "${NORM}" is in ${JSON.stringify(shard)}, expected the name of a .safetensors file in this folder`;

  test.each<[what: string, index: (map: Record<string, unknown>) => unknown, message: string]>([
    [
      'an index without a map',
      () => ({}),
      `${INDEX}: "weight_map" is missing, expected an object of tensor names and file names`,
    ],
    [
      'an index that is a list',
      () => [],
      `${INDEX}: "weight_map" is missing, expected an object of tensor names and file names`,
    ],
    [
      'a map that is a list',
      () => ({ weight_map: [] }),
      `${INDEX}: "weight_map" is [], expected an object of tensor names and file names`,
    ],
    [
      'a shard that is a number',
      elsewhere(1),
      `${INDEX}: tensor "${NORM}" is in 1, expected the name of a .safetensors file in this folder`,
    ],
    ['a shard in the folder above', elsewhere('../x.safetensors'), notAFile('../x.safetensors')],
    ['a shard anywhere', elsewhere('/etc/x.safetensors'), notAFile('/etc/x.safetensors')],
    ['a shard below', elsewhere('a/x.safetensors'), notAFile('a/x.safetensors')],
    ['a shard with a backslash', elsewhere('..\\x.safetensors'), notAFile('..\\x.safetensors')],
    ['a shard of another format', elsewhere('pytorch_model.bin'), notAFile('pytorch_model.bin')],
    ['a shard named by dots', elsewhere('..safetensors'), notAFile('..safetensors')],
    [
      'a shard that is not there',
      elsewhere('gone.safetensors'),
      `gone.safetensors: no such file in FOLDER, though ${INDEX} lists it`,
    ],
    [
      'a tensor that the shard lacks',
      (map) => ({ weight_map: { ...map, ghost: SECOND } }),
      `${SECOND}: tensor "ghost" is missing, though ${INDEX} has it here`,
    ],
    [
      'a tensor that the index lacks',
      ({ [EMBED]: _, ...map }) => ({ weight_map: map }),
      `${FIRST}: tensor "${EMBED}" is here, but ${INDEX} does not list it`,
    ],
    [
      'a tensor in another shard',
      (map) => ({ weight_map: { ...map, [EMBED]: SECOND } }),
      `${FIRST}: tensor "${EMBED}" is here, but ${INDEX} has it in ${SECOND}`,
    ],
    ['an empty map', () => ({ weight_map: {} }), `${INDEX}: "weight_map" is empty, expected the tensors of the model`],
  ])('%s', async (_, index, message) => {
    const folder = newFolder();
    const map = await writeShards(folder, tinyConfig, tinyTensors());
    writeFileSync(join(folder, INDEX), JSON.stringify(index(map)));
    expect(await refusal(folder)).toBe(message);
  });

  test('a truncated shard is refused by name', async () => {
    const folder = newFolder();
    await writeShards(folder, tinyConfig, tinyTensors());
    const path = join(folder, SECOND);
    writeFileSync(path, readFileSync(path).subarray(0, -1));
    expect(await refusal(folder)).toMatch(
      /^model-00002-of-00002\.safetensors: tensor "\S+" ends at byte \d+ of the data, but the file holds \d+\. It is truncated$/,
    );
  });

  test('a tensor missing from all shards is not blamed on one of them', async () => {
    const folder = newFolder();
    await writeShards(
      folder,
      tinyConfig,
      tinyTensors().filter(({ name }) => name !== NORM),
    );
    expect(await refusal(folder)).toBe(
      `${INDEX}: tensor "${NORM}" is missing, expected [8] (F32 or F16 or BF16). ${INCOMPLETE}`,
    );
  });
});

test('a checkpoint with any bytes changed opens or is refused by name', async () => {
  const folder = newFolder();
  await writeCheckpoint(folder, tinyConfig, tinyTensors());
  const path = join(folder, FILE);
  const good = readFileSync(path);
  const header = 8 + Number(good.readBigUInt64LE(0));
  await fc.assert(
    fc.asyncProperty(fc.nat({ max: header - 1 }), fc.nat({ max: 255 }), fc.nat({ max: 300 }), async (at, byte, cut) => {
      const damaged = Buffer.from(good);
      damaged[at] = byte;
      // A mapped file is replaced, never rewritten in place.
      unlinkSync(path);
      writeFileSync(path, damaged.subarray(0, cut % 3 === 0 ? damaged.length - cut : damaged.length));
      await refusal(folder);
    }),
    { numRuns: 300 },
  );
});
