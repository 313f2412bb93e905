// What llama.cpp writes greedily and what it thinks of each token, in a process of its own.
// node bench/llama-greedy.mjs MODEL.gguf '{"ids":[1,2,3],"count":48,"cache":"F32"}' prints the token ids that follow,
// and after every token of the prompt the log-probability of each token of the vocabulary.
import { getLlama, LlamaLogLevel } from 'node-llama-cpp';

const [, , modelPath, request] = process.argv;
const { ids, count, cache } = JSON.parse(request);
const llama = await getLlama({
  gpu: false,
  maxThreads: 1,
  build: 'never',
  progressLogs: false,
  logLevel: LlamaLogLevel.error,
});
const model = await llama.loadModel({ modelPath, gpuLayers: 0 });
const context = await model.createContext({
  contextSize: ids.length + count + 8,
  batchSize: 512,
  threads: 1,
  flashAttention: false, // it rounds queries and sums to F16
  experimentalKvCacheKeyType: cache,
  experimentalKvCacheValueType: cache,
});
const sequence = context.getSequence();
const written = [];
for await (const id of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })) {
  written.push(id);
  if (written.length === count) break;
}
await sequence.clearHistory();
const whole = { probabilities: true, options: { temperature: 1, topK: 0, topP: 1, minP: 0 } };
const each = await sequence.controlledEvaluate(ids.map((id) => [id, { generateNext: whole }]));
const logProbabilities = each.map(({ next }) =>
  [...next.probabilities].sort(([a], [b]) => a - b).map(([, probability]) => Math.log(probability)),
);
console.log(JSON.stringify({ written, logProbabilities }));
await llama.dispose();
