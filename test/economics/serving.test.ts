import fc from 'fast-check';
import { expect, test } from 'vitest';
import { agrees } from '../../src/economics/comparison.ts';
import { cacheBytes, countParameters, forwardFlop } from '../../src/economics/counts.ts';
import { decodePoint, largestBatch } from '../../src/economics/decode.ts';
import { type Deployment, DeploymentError } from '../../src/economics/deployment.ts';
import { fitImbalance, REAL_TRAFFIC_IMBALANCE } from '../../src/economics/expert-balance.ts';
import { exchangeBytes, touchedWeightBytes } from '../../src/economics/expert-traffic.ts';
import { fitAttentionAndExchange, fitProducts, KERNELS } from '../../src/economics/kernel-efficiency.ts';
import { machineById, parseMachine } from '../../src/economics/machine.ts';
import { modelById } from '../../src/economics/model-catalogue.ts';
import { prefillPoint } from '../../src/economics/prefill.ts';
import { costCurves, productionDay, servingRuns } from '../../src/economics/published-systems.ts';
import { bytes, bytesPerSecond, seconds, usdPerHour, usdPerMillion } from '../../src/economics/quantity.ts';
import { margin, serve, type Workload } from '../../src/economics/serving.ts';
import { suggestPlan } from '../../src/economics/suggested-plan.ts';

test('the efficiency factors are those that the kernel measurements give', () => {
  const { productCompute, productMemory, launchSeconds } = fitProducts();
  expect(KERNELS).toMatchObject({ productCompute, productMemory, launchSeconds });
  for (const [name, value] of Object.entries(fitAttentionAndExchange())) {
    expect(KERNELS[name as keyof typeof KERNELS]).toBeCloseTo(value, 2);
  }
  expect(fitImbalance()).toBeCloseTo(REAL_TRAFFIC_IMBALANCE, 1);
});

test('node throughputs of the production day are predicted within 25 per cent', () => {
  expect(productionDay().map((row) => [row.id, agrees(row)])).toEqual([
    ['d6.prefill', true],
    ['d6.decode', true],
  ]);
});

test('benchmarks on 96 devices are predicted within 30 per cent', () => {
  expect(servingRuns().filter((row) => !agrees(row))).toEqual([]);
});

test('cost against position is predicted within 30 per cent but for the first tokens of decode', () => {
  expect(
    costCurves()
      .filter((row) => !agrees(row))
      .map(({ id }) => id),
  ).toEqual(['v32.decode.v31.1k', 'v32.decode.v31.2k', 'v32.decode.v31.4k', 'v32.decode.v32.1k']);
});

const v3 = modelById('deepseek-v3').architecture;
const h800 = machineById('h800-sxm');
const wide: Deployment = {
  machine: h800,
  devices: 64,
  tensorParallel: 1,
  expertParallel: true,
  redundantExperts: 0,
  overlap: true,
  precision: 'fp8',
  cache: 'bf16',
  imbalance: 1,
  mtpAcceptance: null,
};
const models = fc.constantFrom('deepseek-v3', 'deepseek-v2', 'deepseek-v2-lite', 'mixtral-8x7b', 'deepseek-v3.2');
const machines = fc.constantFrom('h800-sxm', 'h100-sxm', 'h200-sxm', 'mi300x', 'b200-sxm', 'h20');
const deployments = fc.record({
  machine: machines.map((id) => machineById(id)),
  devices: fc.constantFrom(8, 16, 32, 64),
  tensorParallel: fc.constantFrom(1, 2, 8),
  overlap: fc.boolean(),
  precision: fc.constantFrom('fp8', 'bf16') as fc.Arbitrary<'fp8' | 'bf16'>,
  imbalance: fc.double({ min: 1, max: 2, noNaN: true }),
});
const batches = fc.double({ min: 1, max: 512, noNaN: true });
const contexts = fc.integer({ min: 16, max: 131072 });

test('decoding is never faster than any single resource allows', () => {
  fc.assert(
    fc.property(models, deployments, batches, contexts, (id, layout, batch, context) => {
      const a = modelById(id).architecture;
      const d = { ...wide, ...layout };
      const { perDevice } = decodePoint(a, d, batch, context);
      const { machine, devices, tensorParallel } = d;
      const within = (used: number, limit: number) => expect(used).toBeLessThanOrEqual(limit * (1 + 1e-9));
      within(perDevice * 2 * countParameters(a).inProducts, Math.max(machine.fp8 ?? 0, machine.bf16));
      // Weights but the tables, read at least once in a step by the devices of the unit together.
      const read = touchedWeightBytes(a, batch * devices, d.precision) - 2 * a.vocab * a.hidden;
      within((perDevice / batch) * (read / devices), machine.bandwidth);
      // The cache of every sequence, but for attention that chooses; split at most as tensors are.
      const isSparse = a.attention.kind === 'mla' && a.attention.indexer;
      const split = a.attention.kind === 'grouped' ? tensorParallel : 1;
      if (!isSparse) within((perDevice * cacheBytes(a, d.cache) * context) / split, machine.bandwidth);
      // What a token sends to other nodes at the least: one copy to each.
      const spread = { devices, devicesPerNode: machine.devicesPerNode };
      const { remote } = exchangeBytes({ ...a, experts: a.experts! }, spread, 'throughput', 'fp8');
      const sent = (remote.dispatch + remote.combine) * (a.layers - a.denseLayers);
      if (machine.remoteLink) within(perDevice * sent, machine.remoteLink);
    }),
    { numRuns: 200 },
  );
});

test('prefill is never faster than its operations at the peak', () => {
  fc.assert(
    fc.property(deployments, fc.integer({ min: 64, max: 65536 }), (layout, promptTokens) => {
      const d = { ...wide, ...layout, machine: { ...layout.machine, memory: bytes(1e13) } };
      const { missesPerDevice } = prefillPoint(v3, d, { promptTokens, hitShare: 0, tokensPerStep: 16384 });
      const peak = Math.max(d.machine.fp8 ?? 0, d.machine.bf16);
      // The head is asked for the last token of a prompt alone.
      const flop = forwardFlop(v3, promptTokens / 2) - 2 * v3.vocab * v3.hidden;
      expect(missesPerDevice * flop).toBeLessThanOrEqual(peak * (1 + 1e-9));
    }),
  );
});

test('a larger batch gives more tokens and lets each user wait no less', () => {
  fc.assert(
    fc.property(models, deployments, batches, batches, contexts, (id, layout, one, other, context) => {
      const a = modelById(id).architecture;
      const d = { ...wide, ...layout };
      const small = decodePoint(a, d, Math.min(one, other), context);
      const large = decodePoint(a, d, Math.max(one, other), context);
      expect(large.perDevice).toBeGreaterThanOrEqual(small.perDevice * (1 - 1e-9));
      expect(large.tpot).toBeGreaterThanOrEqual(small.tpot * (1 - 1e-9));
    }),
    { numRuns: 300 },
  );
});

test('a longer context never makes decoding faster, more bandwidth or faster links never slower', () => {
  fc.assert(
    fc.property(
      models,
      deployments,
      batches,
      contexts,
      fc.double({ min: 1, max: 8, noNaN: true }),
      (id, layout, batch, context, more) => {
        const a = modelById(id).architecture;
        const d = { ...wide, ...layout };
        const { tpot } = decodePoint(a, d, batch, context);
        expect(decodePoint(a, d, batch, Math.ceil(context * more)).tpot).toBeGreaterThanOrEqual(tpot * (1 - 1e-9));
        for (const field of ['bandwidth', 'localLink', 'remoteLink'] as const) {
          const faster = { ...d.machine, [field]: bytesPerSecond((d.machine[field] ?? 0) * more) };
          if (d.machine[field] === null) continue;
          expect(decodePoint(a, { ...d, machine: faster }, batch, context).tpot).toBeLessThanOrEqual(tpot * (1 + 1e-9));
        }
      },
    ),
    { numRuns: 300 },
  );
});

const usualWorkload: Workload = {
  promptTokens: 4000,
  outputTokens: 1000,
  hitShare: 0,
  tpotTarget: seconds(0.05),
  ttftTarget: seconds(5),
  load: 1,
};

const workloads: fc.Arbitrary<Workload> = fc.record({
  promptTokens: fc.integer({ min: 100, max: 20000 }),
  outputTokens: fc.integer({ min: 10, max: 4000 }),
  hitShare: fc.double({ min: 0, max: 0.9, noNaN: true }),
  tpotTarget: fc.constantFrom(seconds(0.05), seconds(0.2)),
  ttftTarget: fc.constantFrom(seconds(5), seconds(30)),
  load: fc.double({ min: 0.1, max: 1, noNaN: true }),
});

test('no cost falls when the rent rises, and a longer time between tokens never costs more', () => {
  fc.assert(
    fc.property(workloads, fc.double({ min: 1, max: 10, noNaN: true }), (workload, more) => {
      const cost = (rent: number, tpot = workload.tpotTarget) => {
        const asked = { ...workload, tpotTarget: tpot };
        return serve(v3, suggestPlan(v3, { ...h800, price: usdPerHour(rent) }, asked), asked).usd;
      };
      const cheap = cost(2);
      const dear = cost(2 * more);
      for (const kind of ['miss', 'hit', 'input', 'output', 'request'] as const) {
        expect(dear[kind]).toBeGreaterThanOrEqual(cheap[kind] * (1 - 1e-9));
      }
      expect(cost(2, seconds(workload.tpotTarget * more)).output).toBeLessThanOrEqual(cheap.output * (1 + 1e-3));
    }),
    { numRuns: 40 },
  );
});

test('costs of hits and misses add up to the cost of the input', () => {
  fc.assert(
    fc.property(workloads, (workload) => {
      const { usd } = serve(v3, suggestPlan(v3, h800, workload), workload);
      const mean = usd.hit * workload.hitShare + usd.miss * (1 - workload.hitShare);
      expect(Math.abs(mean / usd.input - 1)).toBeLessThan(1e-6);
      expect(usd.hit).toBeLessThanOrEqual(usd.miss * (1 + 1e-9));
    }),
    { numRuns: 40 },
  );
});

test('the largest batch fits memory and target, and one more would not', () => {
  const target = seconds(0.05);
  const { batch, tpot, memoryBatch } = largestBatch(v3, wide, 5000, target);
  expect(tpot).toBeLessThanOrEqual(target);
  expect(batch).toBeLessThanOrEqual(memoryBatch);
  expect(decodePoint(v3, wide, batch + 1, 5000).tpot > target || batch + 1 > memoryBatch).toBe(true);
  // Weights by the count of the checkpoint, cache by the printed 70,272 bytes a token.
  const weights = touchedWeightBytes(v3, 1e9, 'fp8');
  const held = batch * 5000 * 70272 + weights / wide.devices;
  expect(held).toBeLessThanOrEqual(h800.memory);
});

test('the margin of the production prices is profit over revenue and over cost', () => {
  const workload = {
    promptTokens: 608,
    outputTokens: 168,
    hitShare: 342 / 608,
    tpotTarget: seconds(1),
    ttftTarget: seconds(60),
    load: 1,
  };
  const serving = serve(v3, suggestPlan(v3, h800, workload), workload);
  const list = { hit: usdPerMillion(0.14), miss: usdPerMillion(0.55), output: usdPerMillion(2.19) };
  const { revenue, cost, ofRevenue, ofCost } = margin(serving, workload, list);
  expect(revenue).toBeCloseTo(562100 / 776e3, 6);
  expect(ofRevenue).toBeCloseTo(1 - cost / revenue, 9);
  expect(ofCost).toBeCloseTo(revenue / cost - 1, 9);
});

test.each([
  [{ hitShare: 1.2 }, 'hitShare is 1.2, expected a number from 0 to 0.999'],
  [{ promptTokens: Number.NaN }, 'promptTokens is NaN, expected a number from 1'],
  [{ tpotTarget: seconds(0.001) }, 'the time per token of one sequence alone is'],
  [{ ttftTarget: seconds(0.001) }, 'the time to the first token is'],
])('a workload with %j is refused with the field and what is allowed', (change, message) => {
  expect(() => suggestPlan(v3, h800, { ...usualWorkload, ...change })).toThrow(message);
});

test.each([
  [{ memoryBytesPerSecond: undefined }, '"memoryBytesPerSecond" is missing, expected a number from'],
  [{ usdPerHour: -1 }, '"usdPerHour" is -1, expected a number from 0 to'],
])('a machine with %j is refused with the field and its range', (change, message) => {
  const machine = {
    id: 'mine',
    bf16FlopsPerSecond: 1e15,
    memoryBytes: 8e10,
    memoryBytesPerSecond: 3e12,
    usdPerHour: 2,
  };
  expect(() => parseMachine({ ...machine, ...change }, 'machine.json')).toThrow(message);
});

test('no other unit of the same layout serves a token for less than the suggested one', () => {
  fc.assert(
    fc.property(workloads, fc.constantFrom(...[8, 16, 32, 64, 144]), (workload, devices) => {
      const plan = suggestPlan(v3, h800, workload);
      const { usd } = serve(v3, plan, workload);
      const other = (unit: Deployment): Deployment => ({ ...unit, devices, tensorParallel: 1 });
      try {
        const rest = serve(v3, { ...plan, prefill: other(plan.prefill), decode: other(plan.decode) }, workload).usd;
        expect(usd.input).toBeLessThanOrEqual(rest.input * (1 + 1e-9));
        expect(usd.output).toBeLessThanOrEqual(rest.output * (1 + 1e-9));
      } catch (error) {
        expect(error).toBeInstanceOf(DeploymentError);
      }
    }),
    { numRuns: 40 },
  );
});

test('a model that no number of devices holds is refused with what it needs', () => {
  expect(() => suggestPlan(v3, machineById('rtx4090'), usualWorkload)).toThrow(
    /GB, expected room for \d+ GB of weights/,
  );
});
