/** `farthing run`: one answer to one prompt, or a conversation in the terminal. */
import { text as readAll } from 'node:stream/consumers';
import { Command } from 'commander';
import type { CacheDType, Compute } from '../backend/graph.ts';
import type { LanguageModel } from '../engine/language-model.ts';
import type { TextOptions } from '../engine/text-generation.ts';
import {
  cacheDtypeOption,
  computeOption,
  examples,
  modelOption,
  number,
  packedOption,
  showPacking,
  threadsOption,
  whole,
} from './arguments.ts';

interface Options {
  readonly model: string;
  readonly system?: string;
  readonly raw?: boolean;
  readonly maxTokens?: number;
  readonly temperature?: number;
  readonly topP?: number;
  readonly topK?: number;
  readonly seed?: number;
  readonly stop?: string[];
  readonly compute: Compute;
  readonly cacheDtype?: CacheDType;
  readonly packed?: string;
  readonly threads?: number;
  readonly json?: boolean;
}

export function runCommand(): Command {
  return new Command('run')
    .description('Answer a prompt, or chat when there is none (a prompt may also come through a pipe).')
    .argument('[prompt...]', 'what to say to the model')
    .addOption(modelOption())
    .option('--system <text>', 'system message')
    .option('--raw', 'continue the prompt as text, without the chat template')
    .option('--max-tokens <n>', 'most tokens of an answer', whole(1, 2 ** 31))
    .option('--temperature <t>', '0 takes the most probable token (default: what the model recommends)', number(0, 2))
    .option('--top-p <p>', 'sample from the most probable tokens of this mass', number(0, 1))
    .option('--top-k <k>', 'sample from this many most probable tokens; 0: all', whole(0, 2 ** 31))
    .option('--seed <n>', 'the same seed gives the same answer', whole(0, Number.MAX_SAFE_INTEGER))
    .option('--stop <text...>', 'strings that end the answer')
    .addOption(computeOption())
    .addOption(cacheDtypeOption())
    .addOption(packedOption())
    .addOption(threadsOption())
    .option('--json', 'print the answer, its reasoning and token counts as JSON')
    .addHelpText(
      'after',
      examples(
        'farthing run "Tell me a story about a brave mouse"',
        'farthing run --temperature 0 "Tom has 17 apples and gives 5 away. How many are left?"',
        'farthing run --model ./stories --raw "Once upon a time" --max-tokens 200',
        'farthing run',
      ),
    )
    .action(run);
}

async function run(words: string[], options: Options): Promise<void> {
  const { loadModel } = await import('../engine/language-model.ts');
  if (options.threads !== undefined) (await import('../backend/native.ts')).setThreads(options.threads);
  const model = await loadModel(options.model, {
    compute: options.compute,
    cacheDtype: options.cacheDtype,
    packedFile: options.packed,
    onPacking: showPacking(),
    sequences: 1,
  });
  const given = words.length > 0 ? words.join(' ') : process.stdin.isTTY ? null : await readAll(process.stdin);
  const system = options.system === undefined ? [] : [{ role: 'system' as const, content: options.system }];
  const { maxTokens, temperature, topP, topK, seed, stop } = options;
  const sampling = { maxTokens, temperature, topP, topK, seed, stop };
  if (given === null) {
    const { chat } = await import('./chat.ts');
    await chat(model, system, sampling);
  } else {
    const raw = options.raw || !model.chatTemplate;
    const tokens = model.encode(raw ? { prompt: given } : { messages: [...system, { role: 'user', content: given }] });
    await (options.json ? printJson : print)(model, tokens, sampling);
  }
  await model.close();
}

async function print(model: LanguageModel, tokens: readonly number[], options: TextOptions): Promise<void> {
  const { opensReasoning } = await import('../engine/answer.ts');
  const { writeAnswer } = await import('./write-answer.ts');
  await writeAnswer(model.generate({ tokens, ...options }), opensReasoning(model, tokens));
}

async function printJson(model: LanguageModel, tokens: readonly number[], options: TextOptions): Promise<void> {
  const { answerPieces, opensReasoning } = await import('../engine/answer.ts');
  const generation = model.generate({ tokens, ...options });
  const answer = { content: '', reasoning: '', finish: '' };
  for await (const piece of answerPieces(generation, opensReasoning(model, tokens))) {
    answer.content += piece.content;
    answer.reasoning += piece.reasoning;
    answer.finish = piece.finish ?? '';
  }
  console.log(JSON.stringify({ ...answer, usage: generation.usage }));
}
