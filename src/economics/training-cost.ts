/** What training a model takes: operations from tokens, device-hours from utilisation, dollars from rent. */
import type { Architecture } from './architecture.ts';
import { trainingFlop } from './counts.ts';
import { bubbleShare, SCHEDULES, type Schedule } from './pipeline-schedule.ts';
import {
  type Flop,
  type FlopPerSecond,
  flop,
  type Hours,
  inHours,
  of,
  over,
  plus,
  type Tokens,
  times,
  type Usd,
  type UsdPerHour,
} from './quantity.ts';

interface TrainingPhase {
  readonly name: string;
  readonly tokens: Tokens;
  readonly sequenceLength: number;
}

export interface TrainingPlan {
  readonly phases: readonly TrainingPhase[];
  /** Device-hours of which no tokens are known. */
  readonly furtherHours?: readonly { readonly name: string; readonly deviceHours: Hours }[];
  /** Share of the peak that is useful work: model FLOPs utilisation, by the convention below. */
  readonly utilisation: number;
  readonly convention: 'causal' | 'noncausal';
  /** Of one device, in the precision that the utilisation is stated against. */
  readonly peak: FlopPerSecond;
  readonly devices: number;
  readonly price: UsdPerHour;
}

export interface TrainingCost {
  readonly phases: readonly {
    readonly name: string;
    readonly flop: Flop;
    readonly deviceHours: Hours;
    readonly usd: Usd;
  }[];
  readonly deviceHours: Hours;
  readonly usd: Usd;
  readonly days: number;
}

class TrainingPlanError extends Error {
  override name = 'TrainingPlanError';
}

/** @throws TrainingPlanError naming the field, what was found and what is allowed */
export function trainingCost(a: Architecture, plan: TrainingPlan): TrainingCost {
  if (!(plan.utilisation > 0 && plan.utilisation <= 1)) {
    throw new TrainingPlanError(`utilisation is ${plan.utilisation}, expected a share above 0 and up to 1`);
  }
  const speed = times(plan.peak, plan.utilisation);
  const phases = plan.phases.map(({ name, tokens, sequenceLength }) => {
    const work = flop(trainingFlop(a, sequenceLength, plan.convention) * tokens);
    const deviceHours = inHours(over(work, speed));
    return { name, flop: work, deviceHours, usd: of(plan.price, deviceHours) };
  });
  for (const { name, deviceHours: known } of plan.furtherHours ?? []) {
    phases.push({ name, flop: flop(0), deviceHours: known, usd: of(plan.price, known) });
  }
  const deviceHours = plus(0 as Hours, ...phases.map((phase) => phase.deviceHours));
  return {
    phases,
    deviceHours,
    usd: of(plan.price, deviceHours),
    days: deviceHours / plan.devices / 24,
  };
}

/**
 * What the same run would take under each schedule, when `utilisation` was reached under `schedule`: only the idle share
 * changes.
 */
export function underSchedules(
  cost: TrainingCost,
  {
    schedule,
    stages,
    microbatches,
  }: { readonly schedule: Schedule; readonly stages: number; readonly microbatches: number },
): { readonly schedule: Schedule; readonly bubbleShare: number; readonly deviceHours: Hours; readonly usd: Usd }[] {
  const busy = 1 - bubbleShare(schedule, stages, microbatches);
  return SCHEDULES.map((other) => {
    const share = bubbleShare(other, stages, microbatches);
    const factor = busy / (1 - share);
    return {
      schedule: other,
      bubbleShare: share,
      deviceHours: times(cost.deviceHours, factor),
      usd: times(cost.usd, factor),
    };
  });
}
