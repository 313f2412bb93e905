// The peer, in a process of its own: many requests at once through node-llama-cpp, one sequence each, batched by it.
// node bench/llama-concurrent.mjs MODEL.gguf '{"requests":32,"prompt":512,"decode":128,"vocabulary":32768,"round":1,"threads":2,"batchSize":512}'
import { getLlama, LlamaLogLevel } from 'node-llama-cpp';

const [, , modelPath, workload] = process.argv;
const { requests, prompt, decode, vocabulary, round, threads, batchSize } = JSON.parse(workload);

const llama = await getLlama({ gpu: false, build: 'never', progressLogs: false, logLevel: LlamaLogLevel.error });
const model = await llama.loadModel({ modelPath, gpuLayers: 0 });
const context = await model.createContext({
  contextSize: prompt + decode + 8,
  sequences: requests,
  flashAttention: true,
  threads,
  batchSize,
});
const sequences = Array.from({ length: requests }, () => context.getSequence());

/** @returns milliseconds until the first token */
async function answer(sequence, ids, count) {
  const start = performance.now();
  let first = 0;
  let written = 0;
  for await (const _ of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })) {
    if (written++ === 0) first = performance.now() - start;
    if (written === count) break;
  }
  return first;
}

/** As bench/concurrent.ts makes them for us. */
const promptOf = (request) =>
  Array.from(
    { length: prompt },
    (_, i) => (((i + 1) * (request + 1 + 1000 * round) * 7919 + 13) % (vocabulary - 8)) + 4,
  );

// weights are read and threads started before anything is timed
await answer(sequences[0], promptOf(-1).slice(0, 32), 2);
await sequences[0].clearHistory();
const start = performance.now();
const firsts = await Promise.all(sequences.map((sequence, i) => answer(sequence, promptOf(i), decode)));
const seconds = (performance.now() - start) / 1000;
console.log(JSON.stringify({ seconds, lastFirstTokenSeconds: Math.max(...firsts) / 1000 }));
await llama.dispose();
