/**
 * Time of one pass through all layers on one device. With two microbatches the stages of one run beside those of the
 * other, offset by one: attention beside combine and dispatch, experts beside dispatch and combine (V3 report §3.4).
 */
import type { Architecture } from './architecture.ts';
import type { Deployment } from './deployment.ts';
import {
  addStage,
  attentionStage,
  denseStage,
  exchangeStages,
  expertStage,
  headStage,
  noTime,
  type Pass,
  type StageTime,
  stageSeconds,
} from './stage-time.ts';

/** The work of a device group in one step; `rows` and `sequences` as in `Pass`. */
export type StepWork = Omit<Pass, 'computeShare'> & {
  /** Rows that the output head sees. */
  readonly headRows: number;
};

export interface StepTime {
  readonly seconds: number;
  /** Where they go. */
  readonly time: StageTime;
  /** Whether two microbatches ran, rather than one after the other. */
  readonly overlapped: boolean;
  /** One layer with experts (or of the only kind there is), for one microbatch. */
  readonly layer: { readonly attention: number; readonly out: number; readonly block: number; readonly back: number };
}

/** The faster of one batch and two microbatches, where the deployment may choose. */
export function stepTime(a: Architecture, d: Deployment, work: StepWork): StepTime {
  const whole = passTime(a, d, work, 1);
  if (!d.overlap || d.devices === 1 || work.sequences < 2) return whole;
  const halves = passTime(a, d, work, 2);
  return halves.seconds < whole.seconds ? halves : whole;
}

function passTime(a: Architecture, d: Deployment, work: StepWork, microbatches: 1 | 2): StepTime {
  const { machine } = d;
  // Throughput kernels take multiprocessors from what they run beside; latency kernels take none.
  const taken =
    microbatches === 2 && work.phase === 'prefill' && machine.kind === 'gpu'
      ? machine.kernels.exchangeMultiprocessors / machine.multiprocessors
      : 0;
  const pass: Pass = {
    phase: work.phase,
    rows: work.rows / microbatches,
    sequences: work.sequences / microbatches,
    context: work.context,
    prefixRows: work.prefixRows / microbatches,
    computeShare: 1 - taken,
  };
  const attention = attentionStage(a, d, pass);
  const block = expertStage(a, d, pass);
  const { out, back } = exchangeStages(a, d, pass);
  const time = noTime();
  const moeLayers = a.experts ? a.layers - a.denseLayers : a.layers;
  if (microbatches === 2) {
    for (const [one, other] of [
      [attention, out],
      [out, block],
      [block, back],
      [back, attention],
    ] as const) {
      addStage(time, stageSeconds(one) > stageSeconds(other) ? one : other, moeLayers);
    }
  } else {
    for (const stage of [attention, out, block, back]) addStage(time, stage, moeLayers);
  }
  if (a.experts && a.denseLayers > 0) {
    const dense = denseStage(a, d, pass);
    for (const stage of [attention, dense]) addStage(time, stage, a.denseLayers * microbatches);
    if (d.tensorParallel > 1)
      addStage(time, exchangeStages({ ...a, experts: null }, d, pass).out, 2 * a.denseLayers * microbatches);
  }
  addStage(time, headStage(a, d, work.headRows));
  return {
    seconds: stageSeconds(time),
    time,
    overlapped: microbatches === 2,
    layer: {
      attention: stageSeconds(attention),
      out: stageSeconds(out),
      block: stageSeconds(block),
      back: stageSeconds(back),
    },
  };
}
