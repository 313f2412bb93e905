/**
 * Chat templates: a conversation as the one text a model was trained on. They are Jinja, rendered as the transformers
 * library does (`apply_chat_template`), from chat_template.jinja or tokenizer_config.json of the checkpoint folder.
 */
import path from 'node:path';
import { Template } from '@huggingface/jinja';
import { contentOf, readIfThere, readTokenizerConfig, TokenizerError } from './tokenizer-file.ts';

/** A message as the OpenAI API has it; a template may look at more fields than these. */
export interface ChatMessage {
  readonly role: string;
  readonly content?: unknown;
  readonly tool_calls?: unknown;
  readonly [field: string]: unknown;
}

export interface ChatTemplate {
  /** Where it was read, for messages. */
  readonly file: string;
  readonly jinja: Template;
  /** Empty where the folder names none. */
  readonly bosToken: string;
  readonly eosToken: string;
}

export interface RenderOptions {
  /** Function definitions as the OpenAI API has them. */
  readonly tools?: readonly unknown[] | null | undefined;
  /** Whether to open the assistant's turn at the end; default true. */
  readonly addGenerationPrompt?: boolean;
  /** Further variables the template knows, such as `enable_thinking`. */
  readonly variables?: Readonly<Record<string, unknown>>;
}

/** The template refuses the conversation, or cannot be rendered. */
export class ChatTemplateError extends Error {
  override name = 'ChatTemplateError';
}

/** @returns null when the folder has no chat template  @throws TokenizerError when it has one that is not valid */
export async function loadChatTemplate(folder: string): Promise<ChatTemplate | null> {
  const config = await readTokenizerConfig(folder);
  const own = path.join(folder, 'chat_template.jinja');
  const ownText = await readIfThere(own);
  const inConfig = config.chat_template;
  const named = Array.isArray(inConfig) ? inConfig.find(({ name }) => name === 'default')?.template : inConfig;
  const text = ownText ?? named ?? null;
  if (text === null) return null;
  const file = ownText === null ? path.join(folder, 'tokenizer_config.json') : own;
  const tokens = { bosToken: contentOf(config.bos_token) ?? '', eosToken: contentOf(config.eos_token) ?? '' };
  return parseChatTemplate(text, { file, ...tokens });
}

/** @throws TokenizerError when the text is no Jinja template */
export function parseChatTemplate(text: string, rest: Omit<ChatTemplate, 'jinja'>): ChatTemplate {
  try {
    return { ...rest, jinja: new Template(text) };
  } catch (cause) {
    throw new TokenizerError(`${rest.file}: chat template: ${(cause as Error).message}`, { cause });
  }
}

/**
 * The conversation as text, special tokens written out: encode it without adding any.
 * @throws ChatTemplateError with the template's own words when it refuses the conversation
 */
export function renderChat(
  template: ChatTemplate,
  messages: readonly ChatMessage[],
  { tools, addGenerationPrompt = true, variables = {} }: RenderOptions = {},
): string {
  try {
    return template.jinja.render({
      ...variables,
      messages,
      tools: tools?.length ? tools : null,
      add_generation_prompt: addGenerationPrompt,
      bos_token: template.bosToken,
      eos_token: template.eosToken,
    });
  } catch (cause) {
    throw new ChatTemplateError(`the chat template refuses this conversation: ${(cause as Error).message}`, { cause });
  }
}
