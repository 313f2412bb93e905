// Greedy continuation by llama.cpp, in a process of its own.
// node bench/llama-greedy.mjs MODEL.gguf '{"ids":[1,2,3],"count":48}' prints the token ids that follow.
import { getLlama, LlamaLogLevel } from 'node-llama-cpp';

const [, , modelPath, request] = process.argv;
const { ids, count } = JSON.parse(request);
const llama = await getLlama({
  gpu: false,
  maxThreads: 1,
  build: 'never',
  progressLogs: false,
  logLevel: LlamaLogLevel.error,
});
const model = await llama.loadModel({ modelPath, gpuLayers: 0 });
const context = await model.createContext({ contextSize: ids.length + count + 8, batchSize: 512, threads: 1 });
const written = [];
for await (const id of context.getSequence().evaluate(ids, { temperature: 0, yieldEogToken: true })) {
  written.push(id);
  if (written.length === count) break;
}
console.log(JSON.stringify(written));
await llama.dispose();
