/** A scenario worked out: the plan it is served with, what that reaches and costs, or why it cannot be served. */
import type { Architecture } from '../../src/economics/architecture.ts';
import { DeploymentError } from '../../src/economics/deployment.ts';
import { type Machine, machineById } from '../../src/economics/machine.ts';
import { type CatalogueModel, modelById } from '../../src/economics/model-catalogue.ts';
import { seconds, usdPerHour } from '../../src/economics/quantity.ts';
import { type Serving, type ServingPlan, serve, type Workload } from '../../src/economics/serving.ts';
import { type PlanChoice, suggestPlan, USUAL_CHOICE } from '../../src/economics/suggested-plan.ts';
import type { Scenario } from './scenario.ts';

export interface Evaluation {
  readonly scenario: Scenario;
  readonly model: CatalogueModel;
  readonly architecture: Architecture;
  readonly machine: Machine;
  readonly workload: Workload;
  readonly choice: PlanChoice;
  readonly plan: ServingPlan;
  readonly serving: Serving;
}

const TTFT_TARGET_SECONDS = 5;

/** @returns the words of what does not fit, where the scenario cannot be served */
export function evaluate(scenario: Scenario): Evaluation | string {
  const model = modelById(scenario.model);
  const { architecture } = model;
  const listed = machineById(scenario.machine);
  const machine = scenario.rent === null ? listed : { ...listed, price: usdPerHour(scenario.rent) };
  const workload: Workload = {
    promptTokens: scenario.prompt,
    outputTokens: scenario.output,
    hitShare: scenario.hits / 100,
    tpotTarget: seconds(1 / scenario.speed),
    ttftTarget: seconds(TTFT_TARGET_SECONDS),
    load: scenario.load / 100,
  };
  const choice: PlanChoice = {
    ...USUAL_CHOICE,
    precision: scenario.precision,
    cache: scenario.cache,
    wide: scenario.spread,
    mtpAcceptance: scenario.mtp > 0 ? scenario.mtp / 100 : null,
  };
  try {
    const plan = suggestPlan(architecture, machine, workload, choice);
    return {
      scenario,
      model,
      architecture,
      machine,
      workload,
      choice,
      plan,
      serving: serve(architecture, plan, workload),
    };
  } catch (error) {
    if (error instanceof DeploymentError) return error.message;
    throw error;
  }
}
