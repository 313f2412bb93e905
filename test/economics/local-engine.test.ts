import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parseArchitecture } from '../../src/economics/architecture.ts';
import { type EngineRates, localDecode, localPrefill } from '../../src/economics/local-engine.ts';
import { modelById } from '../../src/economics/model-catalogue.ts';
import { SHAPES } from '../../src/model/random-checkpoint.ts';

const small = parseArchitecture({ ...SHAPES.small }, 'small');

/** A machine of which everything is known: a fixed cost of a call, and a rate for each kind of work. */
const flat = (seconds: number) => [{ rows: 1, seconds }];
const rates = (linear = 1e-10): EngineRates => {
  const attention = [{ depth: 1024, curve: flat(1e-11) }];
  return {
    stepTokens: 512,
    widths: [
      {
        hidden: 512,
        secondsPerCall: 1e-5,
        secondsPerByte: 1e-10,
        linear: flat(linear),
        head_linear: flat(1e-10),
        expert_linear: flat(1e-10),
        attention: { prefill: attention, decode: attention },
      },
    ],
  };
};

test('a larger batch writes more tokens in all, a longer context fewer, and slower kernels fewer', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 63 }), fc.integer({ min: 1, max: 8192 }), (batch, context) => {
      const speed = localDecode(small, rates(), batch, context);
      expect(localDecode(small, rates(), batch + 1, context)).toBeGreaterThan(speed);
      expect(localDecode(small, rates(), batch, context + 1)).toBeLessThan(speed);
      expect(localDecode(small, rates(2e-10), batch, context)).toBeLessThan(speed);
    }),
  );
  expect(localPrefill(small, rates(), 8192)).toBeLessThan(localPrefill(small, rates(), 2048));
});

test('between two probed widths the answer lies between theirs, on the line of their logarithms', () => {
  const [slow, fast] = [rates().widths[0]!, { ...rates(2e-10).widths[0]!, hidden: 128 }];
  const at = (widths: EngineRates['widths']) => localDecode(small, { stepTokens: 512, widths }, 1, 100);
  const share = Math.log(384 / 128) / Math.log(512 / 128);
  expect(at([fast, slow])).toBeCloseTo(at([fast]) ** (1 - share) * at([slow]) ** share, 6);
});

test('a model without latent attention is refused by its type', () => {
  expect(() => localDecode(modelById('llama-3.1-8b').architecture, rates(), 1, 128)).toThrow(
    'the model is llama, expected one with latent attention',
  );
});
