/**
 * The prepared programs of training: forward and backward over a batch of packed documents, the size of the gradient,
 * and the AdamW update. JavaScript fills the batch and reads a few numbers; all else runs in native calls.
 */
import { compile, type Program } from '../backend/compile.ts';
import { createGraph, type Op, own, type Region, resident, rowsOf, type Tensor } from '../backend/graph.ts';
import { balanceLoss, crossEntropy, routerEntropy } from '../backend/ops.ts';
import type { ModelConfig } from '../model/config.ts';
import { deepseekMtp, type LayerRoute } from '../model/deepseek.ts';
import { forward, frequencyTable, head } from '../model/forward.ts';
import { ropeFrequencies } from '../model/rope.ts';
import { differentiate } from './autograd.ts';
import type { Batch } from './packed-documents.ts';
import { type Parameters, trainingGraph } from './parameters.ts';

/** One model's loss over one batch shape, with or without gradients. */
export interface LossProgram {
  /**
   * Loss of a batch in nats: mean over trained targets. With gradients, adds `scale` times the gradient of
   * loss + mtpWeight · mtpLoss to the parameters' gradients.
   */
  run(batch: Batch, scale?: number): Promise<Losses>;
  /** As `run`. @returns what each op took, in order */
  profile(batch: Batch): Promise<{ op: Op; seconds: number }[]>;
  /** Tokens sent to each expert in the last run, one array for each MoE layer, MTP modules after the main ones. */
  expertLoads(): { layer: number; counts: Int32Array }[];
  /** Mean over MoE layers of the entropy of a token's affinities in the last run, in nats; null without experts. */
  routerEntropy(): number | null;
  /** What met numbers that are not finite in the last run of FP8 training, by name, in order. */
  notFinite(): string[];
  /** Bytes of planned memory: activations, saved values and their gradients. */
  readonly bytes: number;
}

interface Losses {
  /** Sum of −log p over trained targets, and their number. */
  readonly nats: number;
  readonly targets: number;
  /** Mean loss of the multi-token-prediction modules, or null without them. */
  readonly mtp: number | null;
}

/**
 * @param rows tokens of a batch
 * @param mtpWeight λ of the MTP loss (V3 report eq. 24–25); 0 leaves the module out
 * @param balanceWeight α of the auxiliary balance loss over the batch, which is trained on and not reported; 0 leaves it out
 * @param recompute layers compute their inner values again in the backward pass, instead of keeping them
 * @param sequenceBalance the same for each window of `window` tokens (V3 report eq. 17–20)
 */
export function lossProgram(
  config: ModelConfig,
  parameters: Parameters,
  {
    rows,
    mtpWeight,
    balanceWeight = 0,
    sequenceBalance = { weight: 0, window: 0 },
    recompute = false,
    gradients,
  }: {
    rows: number;
    mtpWeight: number;
    balanceWeight?: number;
    sequenceBalance?: { readonly weight: number; readonly window: number };
    recompute?: boolean;
    gradients: boolean;
  },
): LossProgram {
  const graph = trainingGraph(parameters, rows);
  const column = (dtype: 'f32' | 'i32') => own(rowsOf('token'), 1, dtype);
  const [ids, positions, starts, targets] = [column('i32'), column('i32'), column('i32'), column('i32')];
  const seeds = column('f32');
  const { weights } = parameters;
  const rope = ropeFrequencies(config);
  const inputs = { ids, positions, frequencies: frequencyTable(rope), attention: { kind: 'causal', starts } } as const;
  const main = forward(graph, config, rope, weights, inputs);
  const loss = crossEntropy(graph, head(graph, weights, main.hidden), targets);
  const routes: LayerRoute[] = [...main.routes];
  const modules = config.family === 'deepseek' && mtpWeight > 0 ? config.numNextnPredictLayers : 0;
  const ahead: { ids: Tensor; targets: Tensor; seeds: Tensor; loss: Tensor }[] = [];
  let { hidden } = main;
  for (let depth = 0; depth < modules && config.family === 'deepseek'; depth++) {
    const [nextIds, nextTargets] = [column('i32'), column('i32')];
    const mtp = deepseekMtp({ graph, config, rope, weights, inputs }, depth, hidden, nextIds);
    hidden = mtp.hidden;
    routes.push(...mtp.routes);
    const nextLoss = crossEntropy(graph, head(graph, weights, hidden), nextTargets);
    ahead.push({ ids: nextIds, targets: nextTargets, seeds: column('f32'), loss: nextLoss });
  }
  const scoring = config.family === 'deepseek' ? config.scoringFunc : 'sigmoid';
  const entropies = gradients ? routes.map(({ logits }) => routerEntropy(graph, logits, scoring)) : [];
  const balances = [{ weight: balanceWeight, window: 0 }, sequenceBalance]
    .filter(({ weight }) => gradients && weight > 0)
    .map(({ weight, window }) => ({ weight, window, seeds: column('f32') }));
  const balance = balances.flatMap(({ window, seeds: each }) =>
    routes.map(({ logits, experts }) => ({ loss: balanceLoss(graph, logits, experts, scoring, window), seeds: each })),
  );
  if (gradients) {
    differentiate(
      graph,
      new Map([{ loss, seeds }, ...ahead, ...balance].map((each) => [each.loss, each.seeds])),
      parameters.gradients,
      recompute,
    );
  }
  const watched = graph.fp8?.watched ?? [];
  const columnsOfModules = ahead.flatMap((module) => Object.values(module));
  const keep = [
    ids,
    positions,
    starts,
    targets,
    seeds,
    ...balances.map((each) => each.seeds),
    ...entropies,
    loss,
    ...columnsOfModules,
    ...routes.map(({ plan }) => plan.offsets),
  ];
  const program = compile(graph, { token: rows, logit: 0, sequence: 0 }, keep);
  const sum = (tensor: Tensor) => program.f32(tensor).reduce((a, b) => a + b, 0);

  /** @returns trained targets of each loss, the main one first */
  const fill = (batch: Batch, scale: number): number[] => {
    if (batch.ids.length !== rows) throw new RangeError(`a batch of ${batch.ids.length} tokens, expected ${rows}`);
    if (batch.ahead.length < ahead.length) {
      throw new RangeError(`a batch for ${batch.ahead.length} MTP modules, expected ${ahead.length}`);
    }
    program.i32(ids).set(batch.ids);
    program.i32(positions).set(batch.positions);
    program.i32(starts).set(batch.starts);
    const fillLoss = (given: Int32Array, row: Tensor, seedRow: Tensor, weight: number) => {
      program.i32(row).set(given);
      const count = given.reduce((n, target) => n + (target >= 0 ? 1 : 0), 0);
      program.f32(seedRow).fill((scale * weight) / Math.max(count, 1));
      return count;
    };
    for (const { weight, seeds: row } of balances) program.f32(row).fill((scale * weight) / rows);
    for (const { flag } of watched) program.i32(flag)[0] = 0;
    const trained = fillLoss(batch.targets, targets, seeds, 1);
    const trainedAhead = ahead.map((module, depth) => {
      program.i32(module.ids).set(batch.ahead[depth]!.ids);
      return fillLoss(batch.ahead[depth]!.targets, module.targets, module.seeds, mtpWeight / ahead.length);
    });
    return [trained, ...trainedAhead];
  };

  return {
    bytes: program.bytes,
    async run(batch, scale = 1) {
      const [trained, ...trainedAhead] = fill(batch, scale) as [number, ...number[]];
      await program.run({});
      const mtp = ahead.map((module, depth) => sum(module.loss) / Math.max(trainedAhead[depth]!, 1));
      const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;
      return { nats: sum(loss), targets: trained, mtp: mtp.length > 0 ? mean(mtp) : null };
    },
    async profile(batch) {
      fill(batch, 1);
      const times = await program.profile({});
      return graph.ops.map((op, i) => ({ op, seconds: times[i]!.end - times[i]!.start }));
    },
    routerEntropy: () =>
      entropies.length > 0 ? entropies.reduce((total, each) => total + sum(each), 0) / (entropies.length * rows) : null,
    notFinite: () =>
      watched
        .filter(({ flag }) => program.i32(flag)[0] !== 0)
        .map(({ what, weight }) => `the ${what} of ${parameters.names.get(weight.storage)}`),
    expertLoads: () => routes.map(({ layer, plan }) => ({ layer, counts: differences(program, plan.offsets) })),
  };
}

function differences(program: Program, offsets: Tensor): Int32Array {
  const start = program.i32(offsets);
  return Int32Array.from({ length: start.length - 1 }, (_, e) => start[e + 1]! - start[e]!);
}

export interface AdamW {
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly weightDecay: number;
}

/** Clears, measures and applies gradients. */
export interface Optimizer {
  zero(): Promise<void>;
  /** ‖gradient‖ over all parameters. */
  norm(): Promise<number>;
  /** AdamW step `step` (from 1); the gradient is multiplied by `gradientScale` first. Masters and moments change. */
  update(step: number, learningRate: number, gradientScale: number): Promise<void>;
}

const NORM_PIECES = 256;

export function createOptimizer(parameters: Parameters, { beta1, beta2, eps, weightDecay }: AdamW): Optimizer {
  const { count, decayed } = parameters;
  const flat = (array: Float32Array | Uint16Array, from: number, to: number) =>
    resident(1, to - from, array instanceof Uint16Array ? 'bf16' : 'f32', part(array, from, to));
  const noLengths = { token: 0, logit: 0, sequence: 0 };

  const clear = createGraph('fast');
  clear.ops.push({ kernel: 'fill', writes: [flat(parameters.gradient, 0, count)], reads: [], scalars: [0] });
  const clearProgram = compile(clear, noLengths);

  const measure = createGraph('fast');
  const squares = own(rowsOf(null, 1), NORM_PIECES);
  measure.ops.push({
    kernel: 'sum_squares',
    writes: [squares],
    reads: [flat(parameters.gradient, 0, count)],
    scalars: [],
  });
  const measureProgram = compile(measure, noLengths, [squares]);

  const apply = createGraph('fast');
  const controls = [weightDecay, 0].map((decay, i) => {
    const control = own(rowsOf(null, 1), 8);
    const [from, to] = i === 0 ? [0, decayed] : [decayed, count];
    if (to > from) {
      const writes = [parameters.master, parameters.firstMoment, parameters.secondMoment].map((array) =>
        flat(array, from, to),
      );
      apply.ops.push({ kernel: 'adamw', writes, reads: [flat(parameters.gradient, from, to), control], scalars: [] });
    }
    return { control, decay };
  });
  const applyProgram = compile(
    apply,
    noLengths,
    controls.map(({ control }) => control),
  );

  return {
    zero: () => clearProgram.run({}),
    async norm() {
      await measureProgram.run({});
      return Math.sqrt(measureProgram.f32(squares).reduce((a, b) => a + b, 0));
    },
    async update(step, learningRate, gradientScale) {
      const corrections = [1 - beta1 ** step, 1 - beta2 ** step];
      for (const { control, decay } of controls) {
        applyProgram.f32(control).set([learningRate, beta1, beta2, eps, decay, ...corrections, gradientScale]);
      }
      await applyProgram.run({});
    },
  };
}

function part(array: Float32Array | Uint16Array, from: number, to: number): Region {
  const { buffer, byteOffset, BYTES_PER_ELEMENT: bytes } = array;
  return { buffer: buffer as ArrayBuffer, byteOffset: byteOffset + from * bytes, byteLength: (to - from) * bytes };
}
