// The peer up to where it could load a model: node bench/llama-start.mjs prints a line when it is initialised.
import { getLlama, LlamaLogLevel } from 'node-llama-cpp';

const llama = await getLlama({ gpu: false, build: 'never', progressLogs: false, logLevel: LlamaLogLevel.error });
console.log('ready');
await llama.dispose();
