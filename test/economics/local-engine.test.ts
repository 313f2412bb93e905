import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parseArchitecture } from '../../src/economics/architecture.ts';
import { countParameters } from '../../src/economics/counts.ts';
import { type EngineRates, localDecode, localPrefill } from '../../src/economics/local-engine.ts';
import { modelById } from '../../src/economics/model-catalogue.ts';
import {
  fitProductRates,
  type ProductRates,
  type ProductRun,
  productSeconds,
} from '../../src/economics/product-rates.ts';
import { stepOperations } from '../../src/economics/step-operations.ts';
import { SHAPES } from '../../src/model/random-checkpoint.ts';

const small = parseArchitecture({ ...SHAPES.small }, 'small');

/** A machine of which everything is known: fixed costs, and a rate for each kind of work, wherever its bytes lie. */
const productRates = (secondsPerWeight: number): ProductRates => ({
  threads: 2,
  secondsPerCall: 1e-6,
  levels: [1, 512].map((rows) => ({
    rows,
    secondsPerItem: 1e-7,
    secondsPerInput: rows * 1e-10,
    secondsPerOutput: rows * 1e-10,
    // a weight is fetched once, and used for every row
    secondsPerWeight: [{ bytes: 2 ** 24, seconds: (1 + rows / 64) * secondsPerWeight }],
  })),
});
const rates = (secondsPerWeight = 1e-10): EngineRates => {
  const products = productRates(secondsPerWeight);
  const kernels = stepOperations(small, { sequences: 1, tokensEach: 1, start: 0 }, 'fp8').rows;
  return {
    stepTokens: 512,
    weights: 'fp8',
    secondsPerStep: 1e-4,
    products: { fp8: products, bf16: products, f32: products },
    attention: {
      farBytes: 2 ** 28,
      decode: [{ sequences: 1, coefficients: [1e-6, 1e-7, 1e-9, 1e-11, 1e-11, 0] }],
      prefill: [1e-6, 1e-12, 1e-10, 1e-12],
    },
    rows: Object.fromEntries(kernels.map(({ kernel }) => [kernel, { secondsPerCall: 1e-6, secondsPerValue: 1e-10 }])),
  };
};

test('a larger batch writes more tokens in all, a longer context fewer, and slower kernels fewer', () => {
  // from 33 rows on products are shared out among the threads in another way, at a cost of its own
  const batches = fc.integer({ min: 1, max: 63 }).filter((batch) => batch !== 32);
  fc.assert(
    fc.property(batches, fc.integer({ min: 1, max: 8192 }), (batch, context) => {
      const speed = localDecode(small, rates(), batch, context);
      expect(localDecode(small, rates(), batch + 1, context)).toBeGreaterThan(speed);
      expect(localDecode(small, rates(), batch, context + 1)).toBeLessThan(speed);
      expect(localDecode(small, rates(2e-10), batch, context)).toBeLessThan(speed);
    }),
  );
  expect(localPrefill(small, rates(), 8192)).toBeLessThan(localPrefill(small, rates(), 2048));
});

test.each(['small', 'medium', 'v2-lite'] as const)(
  'with all experts awake the products of a step of %s hold every parameter of its products once',
  (name) => {
    const a = parseArchitecture({ ...SHAPES[name] }, name);
    const { products } = stepOperations(a, { sequences: 1, tokensEach: 4096, start: 0 }, 'fp8');
    const weights = products.reduce((sum, { count, products, k, n }) => sum + count * products * k * n, 0);
    const { parts } = countParameters(a);
    const expected =
      parts.attention + parts.dense + parts.sharedExperts + parts.routedExperts + parts.routers + parts.head;
    expect(weights / expected).toBeCloseTo(1, 2);
  },
);

test('the fit gets back the machine that the runs were made on, and so the time of a shape that was not among them', () => {
  const shapes = [
    [1, 128, 128],
    [1, 512, 256],
    [1, 1024, 128],
    [1, 128, 1024],
    [8, 128, 256],
    [8, 64, 64],
    [1, 1024, 1024],
  ];
  const truth = productRates(1e-10);
  const runs = shapes.flatMap(([products, k, n]) =>
    [1, 16, 512].map((rows): ProductRun => {
      const shape = { format: 'fp8' as const, products: products!, k: k!, n: n! };
      const seconds = productSeconds(truth, shape, [{ rows, share: 1 }], 2 ** 24);
      return { ...shape, rows, poolBytes: 2 ** 24, seconds };
    }),
  );
  const fitted = fitProductRates(runs, 2);
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 40 }),
      fc.integer({ min: 16, max: 2048 }),
      fc.integer({ min: 16, max: 2048 }),
      fc.constantFrom(1, 16, 100, 512),
      (products, k, n, rows) => {
        const time = (each: ProductRates) =>
          productSeconds(each, { format: 'fp8', products, k, n }, [{ rows, share: 1 }], 2 ** 24);
        expect(time(fitted) / time(truth)).toBeCloseTo(1, 3);
      },
    ),
  );
});

test('a model without latent attention is refused by its type', () => {
  expect(() => localDecode(modelById('llama-3.1-8b').architecture, rates(), 1, 128)).toThrow(
    'the model is llama, expected one with latent attention',
  );
});
