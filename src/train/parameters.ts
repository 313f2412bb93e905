/**
 * The trainable state of a model: FP32 masters and gradients and BF16 Adam moments, each one flat array, and the packed copies
 * that forward and backward products read. Matrices come first (weight decay applies to them), then norms, biases and
 * the embedding table.
 */
import { compile } from '../backend/compile.ts';
import { createFp8, quantiseWeight } from '../backend/fp8-ops.ts';
import {
  createGraph,
  type DType,
  type Graph,
  type Region,
  resident,
  type Storage,
  storageBytes,
  type Tensor,
} from '../backend/graph.ts';
import { allocate } from '../backend/native.ts';
import { pack, packTransposed } from '../backend/ops.ts';
import type { ModelConfig } from '../model/config.ts';
import { type ExpectedWeight, weightCatalogue } from '../model/weight-catalogue.ts';
import type { Weights } from '../model/weights.ts';
import type { ParameterGradient } from './autograd.ts';
import { normal } from './random.ts';

interface Parameter {
  readonly name: string;
  readonly shape: readonly number[];
  /** First element in the flat arrays. */
  readonly at: number;
  readonly count: number;
}

/**
 * What products work with: FP32 operands (the reference), BF16 ones, or e4m3 ones in linear layers and experts with
 * BF16 in the head; masters, gradients and sums are FP32 in all. `fp8-power-of-two` rounds FP8 scales up to powers of
 * two.
 */
export type Precision = 'fp32' | 'bf16' | 'fp8' | 'fp8-power-of-two';

const isFp8 = (precision: Precision) => precision.startsWith('fp8');
const hasPowersOfTwo = (precision: Precision) => precision === 'fp8-power-of-two';

/** A graph of the precision that `parameters` were made for, over so many tokens. */
export function trainingGraph({ precision }: Parameters, tokens: number): Graph {
  const fp8 = isFp8(precision) ? createFp8(hasPowersOfTwo(precision), tokens) : null;
  return createGraph(precision === 'fp32' ? 'f32' : 'fast', fp8);
}

export interface Parameters {
  readonly precision: Precision;
  readonly list: readonly Parameter[];
  /** Elements of all parameters, and of those under weight decay, which come first. */
  readonly count: number;
  readonly decayed: number;
  readonly master: Float32Array;
  readonly gradient: Float32Array;
  /** BF16 (V3 report §3.3.3). */
  readonly firstMoment: Uint16Array;
  readonly secondMoment: Uint16Array;
  /** Selection biases of the routers, f32 [experts] by name: moved by the balancer, not by gradients. */
  readonly routerBiases: ReadonlyMap<string, Float32Array>;
  /** The weights as a forward pass asks for them. */
  readonly weights: Weights;
  /** Of packed matrices. */
  readonly names: ReadonlyMap<Storage, string>;
  /** Bytes of the packed copies that have been asked for so far. */
  packedBytes(): number;
  /** For `differentiate`. */
  readonly gradients: ReadonlyMap<Storage, ParameterGradient>;
  /** Refreshes the packed copies that have been asked for so far from the masters. */
  repack(): Promise<void>;
}

const MATRIX_ROLES = new Set(['linear', 'expert', 'router', 'head']);
const ROUTER_BIAS = 'e_score_correction_bias';

/** Fresh parameters: matrices and tables normal with the config's initializer_range, norms 1, biases 0. */
export function createParameters(config: ModelConfig, seed: number, precision: Precision = 'bf16'): Parameters {
  const all = weightCatalogue(config).filter((weight) => weight.role !== 'scale' && !isCopy(config, weight));
  const trained = all.filter(({ name }) => !name.endsWith(ROUTER_BIAS));
  const decays = (weight: ExpectedWeight) => MATRIX_ROLES.has(weight.role);
  const list: Parameter[] = [];
  let count = 0;
  let decayed = 0;
  for (const group of [trained.filter(decays), trained.filter((weight) => !decays(weight))]) {
    for (const { name, shape } of group) {
      const size = shape.reduce((a, b) => a * b, 1);
      list.push({ name, shape, at: count, count: size });
      count += Math.ceil(size / 16) * 16;
    }
    decayed ||= count;
  }
  const flat = () => new Float32Array(allocate(count * 4));
  const half = () => new Uint16Array(allocate(count * 2));
  const [master, gradient, firstMoment, secondMoment] = [flat(), flat(), half(), half()] as const;
  const roles = new Map(trained.map(({ name, role }) => [name, role]));
  list.forEach(({ name, at, count: size }, stream) => {
    const role = roles.get(name);
    if (role === 'norm') master.fill(1, at, at + size);
    else if (role !== 'bias') normal(master.subarray(at, at + size), seed, stream, config.initializerRange);
  });

  const known = new Map(list.map((parameter) => [parameter.name, parameter]));
  const find = (name: string): Parameter => {
    const parameter = known.get(name);
    if (!parameter) throw new Error(`no parameter "${name}"`);
    return parameter;
  };
  const viewOf = (flatArray: Float32Array, { at, shape }: Parameter): Tensor => {
    const [rows, cols] = shape.length === 1 ? [1, shape[0]!] : (shape as [number, number]);
    return resident(rows, cols, 'f32', {
      buffer: flatArray.buffer as ArrayBuffer,
      byteOffset: at * 4,
      byteLength: rows * cols * 4,
    });
  };

  const gradients = new Map<Storage, ParameterGradient>();
  const made = new Map<string, Tensor>();
  const names = new Map<Storage, string>();
  const packs: ((graph: Graph) => { flag: Tensor; name: string } | null)[] = [];
  let packedBytes = 0;
  const packedRoom = (n: number, k: number, dtype: DType): Tensor => {
    const memory = region(storageBytes(dtype, n, k));
    const scales = dtype === 'packed_fp8' ? region(Math.ceil(n / 128) * Math.ceil(k / 128) * 4) : null;
    packedBytes += memory.byteLength + (scales?.byteLength ?? 0);
    return resident(n, k, dtype, memory, scales);
  };
  const once = (key: string, make: () => Tensor) => {
    const tensor = made.get(key) ?? make();
    made.set(key, tensor);
    return tensor;
  };
  const routerBiases = new Map<string, Float32Array>();
  for (const { name, shape } of all) {
    if (name.endsWith(ROUTER_BIAS))
      routerBiases.set(name, new Float32Array(allocate(Math.max(shape[0]! * 4, 64)), 0, shape[0]!));
  }

  const weights: Weights = {
    linear(name, precise) {
      const key = name === 'lm_head' && config.tieWordEmbeddings ? 'model.embed_tokens.weight' : `${name}.weight`;
      return once(`linear ${key}`, () => {
        const parameter = find(key);
        const source = viewOf(master, parameter);
        const [n, k] = parameter.shape as [number, number];
        const kept = name === 'lm_head' ? 'packed_bf16' : 'packed_fp8';
        const fast: DType = isFp8(precision) ? kept : 'packed_bf16';
        const dtype: DType = precise || precision === 'fp32' ? 'packed_f32' : fast;
        const [packed, transposed] = [packedRoom(n, k, dtype), packedRoom(k, n, dtype)];
        names.set(packed.storage, name);
        packs.push((graph) => {
          if (dtype === 'packed_fp8') {
            return { name, flag: quantiseWeight(graph, hasPowersOfTwo(precision), source, packed, transposed) };
          }
          pack(graph, source, packed);
          packTransposed(graph, source, transposed);
          return null;
        });
        gradients.set(packed.storage, { gradient: viewOf(gradient, parameter), transposed });
        return packed;
      });
    },
    vector(name) {
      return once(name, () => {
        const bias = routerBiases.get(name);
        if (bias)
          return resident(1, bias.length, 'f32', {
            buffer: bias.buffer as ArrayBuffer,
            byteOffset: 0,
            byteLength: bias.byteLength,
          });
        return trainable(name);
      });
    },
    table: (name) => once(name, () => trainable(`${name}.weight`)),
    head() {
      throw new Error('absorbed heads are for inference');
    },
  };
  const trainable = (name: string): Tensor => {
    const parameter = find(name);
    const tensor = viewOf(master, parameter);
    gradients.set(tensor.storage, { gradient: viewOf(gradient, parameter), transposed: null });
    return tensor;
  };

  let repackProgram: { readonly packs: number; run(): Promise<void> } | null = null;
  return {
    precision,
    list,
    count,
    decayed,
    master,
    gradient,
    firstMoment,
    secondMoment,
    routerBiases,
    weights,
    names,
    packedBytes: () => packedBytes,
    gradients,
    async repack() {
      if (repackProgram?.packs !== packs.length) {
        const graph = createGraph('fast');
        const flags = packs.map((each) => each(graph)).filter((each) => each !== null);
        const program = compile(graph, { token: 0, logit: 0, sequence: 0 });
        const run = async () => {
          await program.run({});
          const wrong = flags.find(({ flag }) => program.i32(flag)[0] !== 0);
          if (wrong) throw new Error(`${wrong.name}.weight has a number that is not finite`);
        };
        repackProgram = { packs: packs.length, run };
      }
      await repackProgram.run();
    },
  };
}

/** MTP modules share the main model's embedding and head (V3 report §2.2); checkpoints may hold copies. */
function isCopy(config: ModelConfig, { name, required }: ExpectedWeight): boolean {
  if (name === 'lm_head.weight') return config.tieWordEmbeddings;
  const layer = Number(/^model\.layers\.(\d+)\./.exec(name)?.[1] ?? -1);
  if (layer < config.numHiddenLayers) return required === 'never';
  return /\.(embed_tokens|shared_head\.head)\.weight$/.test(name);
}

function region(byteLength: number): Region {
  return { buffer: allocate(byteLength), byteOffset: 0, byteLength };
}
