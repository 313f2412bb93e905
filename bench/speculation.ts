/**
 * What drafting with the MTP module brings: `npx tsx bench/speculation.ts [model folder]`. Answers tales and sums in
 * batches of 1, 4 and 16, without drafts and with at most 1, 2 and 3 of them, in turn, greedily and with the model's own
 * sampling; the engine goes less deep by itself where that pays more. Every token must be the same. Before that, what a
 * step of one sequence takes in the native call: with one row and with drafts to check, drafting none and more. Writes
 * bench/results/speculation.json.
 */
import { runnerLimits } from '../src/engine/cache-size.ts';
import { type LanguageModel, loadModel } from '../src/index.ts';
import { openModel } from '../src/model/load.ts';
import { createRunner } from '../src/model/runner.ts';
import { origin, writeResult } from './result-file.ts';

const folder = process.argv[2] ?? 'models/farthing-tiny';
const ROUNDS = 3;
const ANSWER_TOKENS = 128;
const DEPTHS = [0, 1, 2, 3];
const PROMPTS = [
  'Tell me a story about a fox and a crow.',
  'Tell me a story about a brave mouse.',
  'Tom has 17 apples. He buys 5 more and gives 3 to Anna. How many apples does Tom have now?',
  'Write a story about a girl and a bird.',
];

/** Median microseconds of a step that computes 1 + `checked` rows and drafts `depth` tokens; depth null: no drafter. */
interface StepTime {
  readonly checked: number;
  readonly depth: number | null;
  readonly us: number;
}

async function stepTimes(): Promise<StepTime[]> {
  const model = await openModel(folder);
  const times: StepTime[] = [];
  for (const drafts of [0, 3]) {
    const runner = await createRunner(model, runnerLimits(model.config, model.cacheDtype, { sequences: 1, drafts }));
    const blocks = Array.from({ length: Math.ceil(256 / runner.limits.blockTokens) }, (_, i) => i);
    const draw = { temperature: 0, topP: 1, topK: 0, uniforms: [] };
    for (const [checked, depth] of drafts === 0
      ? ([[0, null]] as const)
      : ([0, 1, 2, 3] as const)
          .map((d) => [d, d] as const)
          .concat([
            [0, 1],
            [1, 0],
          ])) {
      const runs: number[] = [];
      for (let i = 0; i < 200; i++) {
        const ids = Array.from({ length: 1 + checked }, (_, j) => 5 + ((7 * i + j) % 250));
        const began = performance.now();
        await runner.step([{ ids, start: 20 + i, blocks, logits: 1 + checked, draw }], depth ?? 0);
        runs.push((performance.now() - began) * 1000);
      }
      times.push({ checked, depth, us: summary(runs).median });
    }
  }
  return times;
}

const steps = await stepTimes();
for (const { checked, depth, us } of steps) {
  const what = depth === null ? 'no module' : `then drafting ${depth}`;
  console.log(`a step of ${1 + checked} rows, ${what}: ${us.toFixed(0)} µs`);
}

const models: LanguageModel[] = [];
for (const drafts of DEPTHS) models.push(await loadModel(folder, { drafts, sequences: 16 }));

/** Answers of a batch, each client asking for a few in turn. @returns tokens, and tokens a second */
async function answers(model: LanguageModel, batch: number, greedy: boolean) {
  const each = Math.max(1, Math.ceil(4 / batch));
  const start = performance.now();
  const ids = await Promise.all(
    Array.from({ length: batch }, async (_, client) => {
      const written: number[] = [];
      for (let i = 0; i < each; i++) {
        const content = PROMPTS[(client + i) % PROMPTS.length]!;
        const sampling = greedy ? { temperature: 0 } : {};
        const request = { messages: [{ role: 'user', content }], seed: client * each + i, maxTokens: ANSWER_TOKENS };
        for await (const { token } of model.generate({ ...request, ...sampling })) written.push(token);
      }
      return written;
    }),
  );
  const tokens = ids.flat();
  return { tokens, perSecond: tokens.length / ((performance.now() - start) / 1000) };
}

interface Row {
  readonly sampling: string;
  readonly batch: number;
  readonly mostDrafts: number;
  readonly tokensPerSecond: ReturnType<typeof summary>;
  /** Against no drafts in the same round. */
  readonly speedUp: ReturnType<typeof summary>;
  readonly acceptance: number | null;
  readonly tokensPerStep: number;
  /** All of a step, JavaScript included. */
  readonly usPerStep: number;
  readonly acceptedByPlace: readonly number[];
}
const rows: Row[] = [];
for (const greedy of [true, false]) {
  for (const batch of [1, 4, 16]) {
    const runs = DEPTHS.map(() => [] as number[]);
    const before = models.map((model) => structuredClone(model.engine.status().counts.drafts));
    let expected: readonly number[] | null = null;
    let written = 0;
    for (let round = 0; round <= ROUNDS; round++) {
      for (const [depth, model] of models.entries()) {
        const { tokens, perSecond } = await answers(model, batch, greedy);
        expected ??= tokens;
        if (tokens.join() !== expected.join())
          throw new Error(`drafts of ${depth} changed a token in a batch of ${batch}`);
        // The first round finds out which depth pays.
        if (round > 0) runs[depth]!.push(perSecond);
        written = tokens.length * (round + 1);
      }
    }
    for (const [depth, model] of models.entries()) {
      const { counts } = model.engine.status();
      const drafted = counts.drafts.drafted - before[depth]!.drafted;
      const accepted = counts.drafts.accepted - before[depth]!.accepted;
      const byPlace = counts.drafts.acceptedByPlace.map((all, i) => all - before[depth]!.acceptedByPlace[i]!);
      const plain = runs[0]!;
      const ratios = runs[depth]!.map((rate, i) => rate / plain[i]!);
      rows.push({
        sampling: greedy ? 'greedy' : 'sampled',
        batch,
        mostDrafts: depth,
        tokensPerSecond: summary(runs[depth]!),
        speedUp: summary(ratios),
        acceptance: drafted === 0 ? null : accepted / drafted,
        tokensPerStep: written / (written - accepted),
        usPerStep: (1e6 * batch * (written / (written - accepted))) / summary(runs[depth]!).median,
        acceptedByPlace: byPlace,
      });
    }
    for (const row of rows.slice(-DEPTHS.length)) console.log(describe(row));
  }
}

function describe({
  sampling,
  batch,
  mostDrafts,
  tokensPerSecond,
  speedUp,
  acceptance,
  tokensPerStep,
  usPerStep,
}: Row) {
  const { median, min, max } = speedUp;
  return (
    `${sampling}, batch ${String(batch).padStart(2)}, at most ${mostDrafts} drafts: ` +
    `${tokensPerSecond.median.toFixed(0).padStart(5)} tokens/s, speed-up ${median.toFixed(2)} (${min.toFixed(2)}–${max.toFixed(2)}), ` +
    `${acceptance === null ? 'nothing drafted' : `${(acceptance * 100).toFixed(0)} % accepted, ${tokensPerStep.toFixed(2)} tokens a step`}, ${usPerStep.toFixed(0)} µs a step`
  );
}

function summary(values: readonly number[]) {
  const sorted = [...values].sort((a, b) => a - b);
  return { median: sorted[sorted.length >> 1]!, min: sorted[0]!, max: sorted.at(-1)! };
}

await writeResult('speculation', origin(), { folder, steps, rows });
for (const model of models) await model.close();
