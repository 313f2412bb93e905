import { expect, test } from 'vitest';
import { threads } from '../../src/backend/native.ts';
import { byKernel, profileSteps, traceEvents } from '../../src/engine/profile.ts';
import { openModel } from '../../src/model/load.ts';
import { modelReport } from '../../src/model/model-report.ts';
import { weightCatalogue } from '../../src/model/weight-catalogue.ts';

const PRODUCTS = ['linear', 'expert_linear', 'head_linear'];

test.each(['v2lite-tiny', 'v3-tiny', 'qwen2-tiny'])(
  'the products of a decoded token of %s are two operations a parameter it uses',
  async (name) => {
    const model = await openModel(`test/fixtures/golden/${name}`);
    const workload = { prompt: 40, decode: 4, depth: 20, batch: 1, repeat: 1 };
    const [prefill, decode] = await profileSteps(model, workload);
    const flops = (step: typeof decode) =>
      byKernel(step!)
        .filter(({ kernel }) => PRODUCTS.includes(kernel))
        .reduce((sum, kernel) => sum + kernel.flops, 0);
    const vectors = weightCatalogue(model.config).reduce(
      (sum, { shape }) => sum + (shape.length === 1 ? shape[0]! : 0),
      0,
    );
    expect(flops(decode)).toBe(2 * (modelReport(model.config).activeParameters - vectors));
    const head = 2 * model.config.vocabSize * model.config.hiddenSize;
    // only the last token of a prompt asks for logits
    expect(flops(prefill)).toBe(40 * (flops(decode) - head) + head);
  },
);

test('the timeline has every operation on every thread, one after another within the step', async () => {
  const model = await openModel('test/fixtures/golden/v2lite-tiny');
  const steps = await profileSteps(model, { prompt: 8, decode: 2, depth: 3, batch: 2, repeat: 3 });
  const { traceEvents: events } = traceEvents(steps);
  steps.forEach(({ seconds, ops }, pid) => {
    for (let tid = 0; tid < threads(); tid++) {
      const spans = events.flatMap((event) =>
        event.ph === 'X' && event.pid === pid && event.tid === tid ? [event] : [],
      );
      expect(spans.map(({ name }) => name)).toEqual(ops.map(({ kernel }) => kernel));
      let last = 0;
      for (const { ts, dur } of spans) {
        expect(ts).toBeGreaterThanOrEqual(last);
        last = ts + dur - 0.002; // each is rounded to a nanosecond
      }
      expect(last).toBeLessThanOrEqual(seconds * 1e6);
    }
  });
});
