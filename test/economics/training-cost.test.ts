import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { modelById } from '../../src/economics/model-catalogue.ts';
import { bubble, bubbleShare, pipelineFootprint, SCHEDULES } from '../../src/economics/pipeline-schedule.ts';
import { flopPerSecond, seconds, tokens, usdPerHour } from '../../src/economics/quantity.ts';
import { trainingCost, underSchedules } from '../../src/economics/training-cost.ts';

const { checks } = JSON.parse(readFileSync('test/fixtures/economics/derived_checks.json', 'utf8'));
const { computed } = checks.find(({ id }: { id: string }) => id === 'bubble.example');

test.each([8, 16])('bubbles of %d stages are those of the published table', (stages) => {
  const times = { forward: seconds(1), backward: seconds(2), weightGradient: seconds(1), overlapped: seconds(3) };
  const idle = (schedule: (typeof SCHEDULES)[number]) => bubble(schedule, stages, times);
  expect({ '1F1B': idle('1f1b'), ZB1P: idle('zb1p'), DualPipe: idle('dualpipe') }).toEqual(computed[`PP=${stages}`]);
  expect(idle('dualpipev')).toBe(idle('dualpipe'));
});

test('DualPipeV serves the same stages with half the devices', () => {
  expect(pipelineFootprint('dualpipev', 16)).toEqual({ devices: 8, parameterCopies: 2, activationsOfStages: 17 });
  expect(pipelineFootprint('1f1b', 16)).toEqual({ devices: 16, parameterCopies: 1, activationsOfStages: 16 });
});

test('more microbatches idle less, more stages idle more, and the newer schedules never idle more than 1F1B', () => {
  const stages = fc.integer({ min: 1, max: 64 }).map((half) => 2 * half);
  fc.assert(
    fc.property(fc.constantFrom(...SCHEDULES), stages, fc.integer({ min: 1, max: 500 }), (schedule, p, m) => {
      const share = bubbleShare(schedule, p, m);
      expect(share).toBeLessThan(1);
      expect(bubbleShare(schedule, p, m + 1)).toBeLessThanOrEqual(share);
      expect(bubbleShare(schedule, p + 2, m)).toBeGreaterThanOrEqual(share);
      expect(share).toBeLessThanOrEqual(bubbleShare('1f1b', p, m));
    }),
  );
});

const { architecture } = modelById('deepseek-v3');
const plan = (price: number, utilisation = 0.4) => ({
  phases: [{ name: 'all', tokens: tokens(1e12), sequenceLength: 4096 }],
  utilisation,
  convention: 'causal' as const,
  peak: flopPerSecond(1e15),
  devices: 1000,
  price: usdPerHour(price),
});

test('training cost follows the rent and the utilisation, and the schedule it was reached under changes nothing', () => {
  fc.assert(
    fc.property(
      fc.double({ min: 0, max: 100, noNaN: true }),
      fc.double({ min: 1, max: 10, noNaN: true }),
      (rent, more) => {
        const cost = trainingCost(architecture, plan(rent));
        expect(trainingCost(architecture, plan(rent * more)).usd).toBeGreaterThanOrEqual(cost.usd * (1 - 1e-12));
        expect(trainingCost(architecture, plan(rent, 0.4 / more)).usd).toBeGreaterThanOrEqual(cost.usd * (1 - 1e-12));
        const under = underSchedules(cost, { schedule: 'zb1p', stages: 16, microbatches: 32 });
        expect(under.find(({ schedule }) => schedule === 'zb1p')!.usd).toBeCloseTo(cost.usd, 6);
      },
    ),
  );
});

test('a utilisation above the peak is refused with its range', () => {
  expect(() => trainingCost(architecture, plan(2, 1.2))).toThrow(
    'utilisation is 1.2, expected a share above 0 and up to 1',
  );
});
