/**
 * A model folder ready to answer: weights, tokenizer, chat template, and an engine that batches what is asked of it.
 * The server, the command line and programs all come through here.
 */
import path from 'node:path';
import type { ModelConfig } from '../model/config.ts';
import { type OpenOptions, openModel } from '../model/load.ts';
import { createRunner } from '../model/runner.ts';
import { type ChatMessage, type ChatTemplate, loadChatTemplate, renderChat } from '../tokenizer/chat-template.ts';
import { createTextStream, loadTokenizer, type Tokenizer } from '../tokenizer/tokenizer.ts';
import { type CacheOptions, runnerLimits } from './cache-size.ts';
import { type DiskTierOptions, openDiskCache } from './disk-tier.ts';
import { Engine } from './engine.ts';
import { readGenerationConfig } from './generation-config.ts';
import { promptLogits } from './prompt-logits.ts';
import { RequestTooLargeError } from './scheduler.ts';
import { startText, type TextGeneration, type TextOptions } from './text-generation.ts';

export interface LoadOptions extends CacheOptions, OpenOptions {
  /** Most requests that wait for a place in the batch before more are refused. */
  readonly waiting?: number;
  /** Keep the prefix cache on disk too. Default: in memory alone. */
  readonly diskCache?: DiskTierOptions;
}

/** What to continue: text as it stands, a conversation through the chat template, or token ids. */
export type Prompt =
  | { readonly prompt: string }
  | { readonly messages: readonly ChatMessage[] }
  | { readonly tokens: ArrayLike<number> };

export interface LanguageModel {
  readonly folder: string;
  /** The folder's name: what clients call the model. */
  readonly name: string;
  readonly config: ModelConfig;
  /** null when the folder has none: then only token ids can be given and text stays empty. */
  readonly tokenizer: Tokenizer | null;
  readonly chatTemplate: ChatTemplate | null;
  readonly engine: Engine;
  /** Token ids of a prompt. @throws PromptError, ChatTemplateError when the model cannot take this prompt */
  encode(prompt: Prompt): number[];
  /** Starts an answer. @throws PromptError, ChatTemplateError, RequestTooLargeError, QueueFullError */
  generate(request: Prompt & TextOptions): TextGeneration;
  /** f32 [tokens, vocab]: the logits after each token of a prompt. */
  logits(tokens: ArrayLike<number>): Promise<Float32Array>;
  close(): Promise<void>;
}

/** Characters of the longest token there may be; the published vocabularies stay at half of it. */
const LONGEST_TOKEN = 256;

/** The model cannot take this prompt. */
export class PromptError extends Error {
  override name = 'PromptError';
}

/**
 * Opens a Hugging Face checkpoint folder.
 * @throws CheckpointError, ConfigError and the like naming file, tensor or field, expected and found
 */
export async function loadModel(folder: string, options: LoadOptions = {}): Promise<LanguageModel> {
  const model = await openModel(folder, options);
  const { config } = model;
  const [tokenizer, chatTemplate, generationConfig] = await Promise.all([
    loadTokenizer(folder),
    loadChatTemplate(folder),
    readGenerationConfig(folder),
  ]);
  const runner = await createRunner(model, runnerLimits(config, model.cacheDtype, options));
  const engine = new Engine(runner, {
    waiting: options.waiting ?? 256,
    contextTokens: config.maxPositionEmbeddings,
    ...(options.diskCache && { diskCache: await openDiskCache(model, runner, options.diskCache) }),
  });
  const source = {
    engine,
    stopTokens: new Set([
      ...config.eosTokenIds,
      ...generationConfig.eosTokenIds,
      ...(tokenizer ? tokenizer.eosTokenIds : []),
    ]),
    samplingDefaults: generationConfig.sampling,
    textStream: () => tokenizer && createTextStream(tokenizer),
  };

  function encode(prompt: Prompt): number[] {
    const tokens = tokensOf(prompt);
    if (tokens.length === 0) throw new PromptError('the prompt is empty: at least one token is needed');
    for (const token of tokens) {
      if (!Number.isInteger(token) || token < 0 || token >= config.vocabSize) {
        throw new PromptError(`token id ${token} in the prompt, expected 0 to ${config.vocabSize - 1}`);
      }
    }
    return tokens;
  }

  function tokensOf(prompt: Prompt): number[] {
    if ('tokens' in prompt) return Array.from(prompt.tokens);
    if (!tokenizer) throw new PromptError(`${folder} has no tokenizer.json: give token ids instead of text`);
    if ('prompt' in prompt) return tokenizer.encode(checkLength(prompt.prompt));
    if (!chatTemplate) throw new PromptError(`${folder} has no chat template: give a prompt instead of messages`);
    return tokenizer.encode(checkLength(renderChat(chatTemplate, prompt.messages)), { addSpecialTokens: false });
  }

  /** Spares the work of tokenizing what cannot fit. */
  function checkLength(text: string): string {
    const most = engine.mostTokens * LONGEST_TOKEN;
    if (text.length <= most) return text;
    throw new RequestTooLargeError(
      `the prompt has ${text.length} characters; ${engine.mostTokens} tokens hold at most ${most}`,
    );
  }

  return {
    folder,
    name: path.basename(path.resolve(folder)),
    config,
    tokenizer,
    chatTemplate,
    engine,
    encode,
    generate: (request) => startText(source, encode(request), request),
    logits: (tokens) => promptLogits(model, encode({ tokens })),
    close: () => engine.close(),
  };
}
