/**
 * Published serving systems, predicted from the architecture, the machine's data sheet and the efficiency factors of
 * single kernels. Benchmarks run with balanced routing, real traffic with the imbalance of expert-balance.ts.
 */
import type { Comparison } from './comparison.ts';
import published from './data/published.json' with { type: 'json' };
import { decodePoint } from './decode.ts';
import { type Deployment, widelySpread } from './deployment.ts';
import { REAL_TRAFFIC_IMBALANCE } from './expert-balance.ts';
import { machineById } from './machine.ts';
import { modelById } from './model-catalogue.ts';
import { prefillPoint } from './prefill.ts';
import { productionLoad, productionWorkload } from './production-day.ts';
import { costPerMillion, times } from './quantity.ts';
import { serve } from './serving.ts';

/** Acceptance of the second token in production: the middle of 80 to 90 % (ISCA 2025 paper §2.3.3). */
const PUBLISHED_ACCEPTANCE = 0.85;
const TOKENS_PER_STEP = 16_384;
const WITHIN_DAY = 0.25;
const WITHIN = 0.3;

function spread(machine: string, devices: number, of: Partial<Deployment>): Deployment {
  return { ...widelySpread(machineById(machine), devices), imbalance: REAL_TRAFFIC_IMBALANCE, ...of };
}

/** The production day: units and workload as published, batch from the published speed of a user. */
export function productionDay(): Comparison[] {
  const { source, prefillDevices, decodeDevices, redundantExperts, prefillPerNode, decodePerNode } =
    published.productionDay;
  const machine = 'h800-sxm';
  const plan = {
    prefill: spread(machine, prefillDevices, { redundantExperts }),
    decode: spread(machine, decodeDevices, { redundantExperts }),
    prefillTokensPerStep: TOKENS_PER_STEP,
  };
  const workload = { ...productionWorkload(), load: productionLoad() };
  const { prefill, decode } = serve(modelById('deepseek-r1').architecture, plan, workload);
  return [
    {
      id: 'd6.prefill',
      what: 'Production day, prefill of a node, hits counted',
      unit: 'tokens/s',
      printed: prefillPerNode,
      computed: prefill.inputPerNode * prefill.load,
      within: WITHIN_DAY,
      source,
      note:
        `At ${(prefill.load * 100).toFixed(0)} % of capacity: nodes by the published steps, demand by a measured day ` +
        'of another service of the model, whose highest ten minutes just fit the most nodes.',
    },
    {
      id: 'd6.decode',
      what: 'Production day, decode of a node',
      unit: 'tokens/s',
      printed: decodePerNode,
      computed: decode.perNode,
      within: WITHIN_DAY,
      source,
      note: `${decode.batch.toFixed(0)} sequences a device, so that a user gets the published 20 to 22 tokens/s.`,
    },
  ];
}

interface Run {
  readonly id: string;
  readonly what: string;
  readonly model: string;
  readonly machine: string;
  readonly devices: number;
  readonly balanced: boolean;
  readonly perNode: number;
  readonly promptTokens?: number;
  readonly tokensPerStep?: number;
  readonly batch?: number;
  readonly context?: number;
  readonly mtpAcceptance?: number;
  readonly source?: string;
}

/** Benchmarks with batch and context given. */
export function servingRuns(): Comparison[] {
  return (published.serving as readonly Run[]).map((run) => compareRun(run, WITHIN));
}

/** Systems of others that no tolerance was promised for. */
export function furtherRuns(): Comparison[] {
  const note =
    'Likely cause: time between kernels, and an imbalance above that of the one pair it was taken from; neither was published.';
  return (published.beyond as readonly Run[]).map((run) => ({ ...compareRun(run, null), note }));
}

function compareRun(run: Run, within: number | null): Comparison {
  const { id, what, machine, devices, balanced, perNode: printed } = run;
  const { architecture } = modelById(run.model);
  const deployment = spread(machine, devices, {
    ...(balanced ? { imbalance: 1 } : {}),
    mtpAcceptance: run.mtpAcceptance ?? null,
  });
  const { promptTokens, tokensPerStep = TOKENS_PER_STEP } = run;
  const speed =
    promptTokens !== undefined
      ? prefillPoint(architecture, deployment, { promptTokens, hitShare: 0, tokensPerStep }).missesPerDevice
      : decodePoint(architecture, deployment, run.batch!, run.context!).perDevice;
  return {
    id,
    what,
    unit: 'tokens/s a node',
    printed,
    computed: times(speed, deployment.machine.devicesPerNode),
    within,
    source: run.source ?? published.beyondSource,
  };
}

const POSITIONS_IN_K = [1, 2, 4, 8, 16, 32, 64, 96, 128];
/** Sequences of a device, as in the published decode profile; drafting as in production. */
const CURVE_BATCH = 128;

/** Cost of a token against its position, V3.1 and V3.2-Exp. */
export function costCurves(): Comparison[] {
  const { curves, source } = published.costCurves;
  return Object.entries(curves).flatMap(([name, points]) => {
    const [phase, version] = name.split('_') as ['prefill' | 'decode', 'v31' | 'v32'];
    return POSITIONS_IN_K.map((position): Comparison => {
      const computed = costAt(phase, version, position * 1000);
      const isShort = phase === 'decode' && position < (version === 'v31' ? 8 : 2);
      return {
        id: `v32.${phase}.${version}.${position}k`,
        what: `${version === 'v31' ? 'V3.1' : 'V3.2-Exp'}, ${phase}, token ${position}K`,
        unit: '$/M',
        printed: interpolated(points as [number, number][], position),
        computed,
        within: WITHIN,
        source,
        ...(isShort ? { note: SHORT_DECODE } : {}),
      };
    });
  });
}

const SHORT_DECODE =
  'For V3.1 the curve is half of what the production day of the same makers comes to at 4,989 tokens (0.15 against 0.30 $/M). ' +
  'Likely cause: in a batch of short and long sequences communication hides behind the attention of the long ones, while ' +
  'here all sequences of a batch stand at the same position and the links bind.';

function costAt(phase: 'prefill' | 'decode', version: 'v31' | 'v32', position: number): number {
  const { architecture } = modelById(version === 'v31' ? 'deepseek-v3.1' : 'deepseek-v3.2');
  const { prefillDevices, decodeDevices } = published.productionDay;
  const common = { imbalance: 1, cache: version === 'v32' ? 'fp8' : 'bf16' } as const;
  if (phase === 'prefill') {
    const deployment = spread('h800-sxm', prefillDevices, common);
    // The mean token of a prompt twice as long stands at this position.
    const shape = { promptTokens: 2 * position, hitShare: 0, tokensPerStep: TOKENS_PER_STEP };
    return costPerMillion(deployment.machine.price, prefillPoint(architecture, deployment, shape).missesPerDevice);
  }
  const deployment = spread('h800-sxm', decodeDevices, { ...common, mtpAcceptance: PUBLISHED_ACCEPTANCE });
  return costPerMillion(
    deployment.machine.price,
    decodePoint(architecture, deployment, CURVE_BATCH, position).perDevice,
  );
}

function interpolated(points: readonly (readonly [number, number])[], x: number): number {
  const next = Math.max(
    1,
    points.findIndex(([at]) => at >= x),
  );
  const [x0, y0] = points[next - 1]!;
  const [x1, y1] = points[next]!;
  return y0 + ((y1 - y0) * (x - x0)) / (x1 - x0);
}
