/**
 * Idle time and memory of pipeline schedules, for `stages` stages. F: forward of one chunk, B: its whole backward, W:
 * the part of it that makes weight gradients, F&B: a forward and a backward run into each other.
 */
import type { Seconds } from './quantity.ts';

export const SCHEDULES = ['1f1b', 'zb1p', 'dualpipe', 'dualpipev'] as const;
export type Schedule = (typeof SCHEDULES)[number];

export interface ChunkTimes {
  readonly forward: Seconds;
  readonly backward: Seconds;
  readonly weightGradient: Seconds;
  /** Of a forward and a backward chunk run into each other; their sum where nothing overlaps. */
  readonly overlapped: Seconds;
}

/** Bubble of one step (DeepSeek-V3 report table 2; DualPipe README). */
export function bubble(
  schedule: Schedule,
  stages: number,
  { forward, backward, weightGradient, overlapped }: ChunkTimes,
) {
  const idle = {
    '1f1b': (stages - 1) * (forward + backward),
    zb1p: (stages - 1) * (forward + backward - 2 * weightGradient),
    dualpipe: (stages / 2 - 1) * (overlapped + backward - 3 * weightGradient),
    dualpipev: (stages / 2 - 1) * (overlapped + backward - 3 * weightGradient),
  }[schedule];
  return Math.max(0, idle) as Seconds;
}

/** Devices, copies of parameters and of activations that a schedule needs for `stages` stages (same table). */
export function pipelineFootprint(schedule: Schedule, stages: number) {
  switch (schedule) {
    case '1f1b':
    case 'zb1p':
      return { devices: stages, parameterCopies: 1, activationsOfStages: stages };
    case 'dualpipe':
      return { devices: stages, parameterCopies: 2, activationsOfStages: stages + 1 };
    case 'dualpipev':
      return { devices: stages / 2, parameterCopies: 2, activationsOfStages: stages + 1 };
  }
}

/**
 * Share of a step that a device idles, with the usual proportions of a transformer: B = 2 F, W = F, nothing gained by
 * running chunks into each other.
 * @param microbatches chunks of one step
 */
export function bubbleShare(schedule: Schedule, stages: number, microbatches: number): number {
  const unit = 1 as Seconds;
  const chunk: ChunkTimes = {
    forward: unit,
    backward: (2 * unit) as Seconds,
    weightGradient: unit,
    overlapped: (3 * unit) as Seconds,
  };
  const idle = bubble(schedule, stages, chunk);
  return idle / (idle + 3 * microbatches);
}
