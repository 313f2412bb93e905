/** What the server tells of runs, checked, and gathered into what the page shows. */
import * as z from 'zod/mini';

const stepSchema = z.object({
  step: z.number(),
  loss: z.number(),
  learningRate: z.number(),
  gradientNorm: z.number(),
  imbalance: z.nullable(z.number()),
  expertLoads: z.optional(z.record(z.string(), z.array(z.number()))),
  tokens: z.number(),
  seconds: z.number(),
  validation: z.optional(z.number()),
  bitsPerByte: z.optional(z.number()),
});
const summarySchema = z.object({
  name: z.string(),
  state: z.enum(['running', 'finished', 'stopped']),
  plan: z.nullable(z.object({ steps: z.number(), parameters: z.number() })),
  lastStep: z.number(),
});
const sampleSchema = z.object({ step: z.number(), prompt: z.string(), text: z.string() });

export const newsSchema = z.union([
  z.object({ runs: z.array(summarySchema) }),
  z.object({ run: z.string(), metrics: z.array(stepSchema) }),
  z.object({ run: z.string(), samples: z.array(sampleSchema) }),
]);

export type Step = z.infer<typeof stepSchema>;
export type RunSummary = z.infer<typeof summarySchema>;
type Sample = z.infer<typeof sampleSchema>;

/** What is known of one run: steps in order, each once, and the texts of a step by their prompts. */
export interface RunData {
  readonly steps: readonly Step[];
  readonly samples: ReadonlyMap<number, ReadonlyMap<string, string>>;
}

export const NOTHING: RunData = { steps: [], samples: new Map() };

/** Adds steps. A run that went back to a checkpoint tells its steps again: then the new ones count. */
export function withSteps({ steps, samples }: RunData, added: readonly Step[]): RunData {
  const first = added[0]?.step ?? Number.POSITIVE_INFINITY;
  const back = (steps.at(-1)?.step ?? 0) >= first;
  return { steps: [...(back ? steps.filter(({ step }) => step < first) : steps), ...added], samples };
}

export function withSamples({ steps, samples }: RunData, added: readonly Sample[]): RunData {
  const all = new Map(samples);
  for (const { step, prompt, text } of added) all.set(step, new Map(all.get(step)).set(prompt, text));
  return { steps, samples: all };
}

/** Mean of the values at most `reach` away from each, so that a falling curve is not drawn late. */
export function smoothed(values: readonly number[], reach: number): number[] {
  const sums = [0];
  for (const value of values) sums.push(sums.at(-1)! + value);
  return values.map((_, i) => {
    // as far on one side as on the other
    const near = Math.min(reach, i, values.length - 1 - i);
    return (sums[i + near + 1]! - sums[i - near]!) / (2 * near + 1);
  });
}
