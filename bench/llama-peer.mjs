// The peer, in a process of its own: llama.cpp through node-llama-cpp, measured as `farthing bench` measures us.
// node bench/llama-peer.mjs MODEL.gguf '{"prompt":512,"decode":64,"depth":0,"batch":1,"threads":2,"repeat":3}'
import { getLlama, LlamaLogLevel } from 'node-llama-cpp';

const [, , modelPath, workload] = process.argv;
const { prompt, decode, depth, batch, threads, repeat } = JSON.parse(workload);

const llama = await getLlama({ gpu: false, build: 'never', progressLogs: false, logLevel: LlamaLogLevel.error });
const model = await llama.loadModel({ modelPath, gpuLayers: 0 });
const longest = Math.max(prompt, depth + (repeat + 1) * (decode + 1)) + 8;
const context = await model.createContext({
  contextSize: longest,
  sequences: batch,
  flashAttention: true,
  threads,
  batchSize: 512,
});
const sequences = Array.from({ length: batch }, () => context.getSequence());
const vocabulary = Number(process.env.PEER_VOCABULARY);
// Every sequence has tokens of its own, lest all wake the same experts.
const ids = (count, sequence = 0) =>
  Array.from({ length: count }, (_, i) => ((i * 7919 + sequence * 104729 + 13) % (vocabulary - 8)) + 4);

async function timed(work) {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

/** `decode` tokens after the tokens given, greedily; end-of-text does not stop it. */
async function write(sequence, start, count) {
  let written = 0;
  for await (const _ of sequence.evaluate(start, { temperature: 0, yieldEogToken: true }))
    if (++written === count) break;
}

const prefills = [];
const decodes = [];
for (let round = 0; round <= repeat; round++) {
  if (prompt > 0) {
    await sequences[0].clearHistory();
    prefills.push(prompt / (await timed(() => sequences[0].evaluateWithoutGeneratingNewTokens(ids(prompt)))));
  }
  if (decode === 0) continue;
  if (round === 0 && depth > 0)
    for (const [i, sequence] of sequences.entries()) await sequence.evaluateWithoutGeneratingNewTokens(ids(depth, i));
  const seconds = await timed(() => Promise.all(sequences.map((sequence, i) => write(sequence, ids(1, i), decode))));
  decodes.push((decode * batch) / seconds);
}
const rate = (values) => {
  const sorted = values.slice(1).sort((a, b) => a - b);
  return { median: sorted[Math.floor(sorted.length / 2)], min: sorted[0], max: sorted.at(-1) };
};
console.log(
  JSON.stringify({
    prefill: prompt > 0 ? { tokens: prompt, tokensPerSecond: rate(prefills) } : null,
    decode: decode > 0 ? { tokens: decode, depth, batch, tokensPerSecond: rate(decodes) } : null,
  }),
);
await llama.dispose();
