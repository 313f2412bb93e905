import { expect, test } from 'vitest';
import {
  type ChatMessage,
  loadChatTemplate,
  parseChatTemplate,
  renderChat,
} from '../../src/tokenizer/chat-template.ts';
import { fixtureLines, fixtureText, folderOf } from './fixtures.ts';

interface Rendering {
  readonly template: string;
  readonly messages: readonly ChatMessage[];
  readonly tools: readonly unknown[] | null;
  readonly add_generation_prompt: boolean;
  readonly bos_token: string;
  readonly eos_token: string;
  readonly expected: string;
}

test.each([
  ['deepseek-r1-distill-qwen.jinja', 20],
  ['deepseek-v3.jinja', 18],
  ['llama-cpp-deepseek-r1.jinja', 14],
  ['qwen2-instruct.jinja', 18],
  ['qwen2.5-instruct.jinja', 20],
])('%s renders as Jinja2 does', (name, count) => {
  const renderings = fixtureLines<Rendering>('chat-templates/renders.jsonl.gz').filter(
    ({ template }) => template === name,
  );
  expect(renderings.length).toBe(count);
  for (const { messages, tools, add_generation_prompt, bos_token, eos_token, expected } of renderings) {
    const text = fixtureText(`chat-templates/${name}`);
    const template = parseChatTemplate(text, { file: name, bosToken: bos_token, eosToken: eos_token });
    const rendered = renderChat(template, messages, { tools, addGenerationPrompt: add_generation_prompt });
    expect([messages, rendered]).toEqual([messages, expected]);
  }
});

const HI: ChatMessage[] = [{ role: 'user', content: 'hi' }];

test('the template of the published DeepSeek config is found, with its bos', async () => {
  const folder = folderOf({ 'tokenizer_config.json': fixtureText('deepseek-r1/tokenizer_config.json') });
  const template = (await loadChatTemplate(folder))!;
  expect(renderChat(template, HI)).toBe('<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜>');
  expect(renderChat(template, HI, { addGenerationPrompt: false })).toBe('<｜begin▁of▁sentence｜><｜User｜>hi');
});

test('chat_template.jinja goes before tokenizer_config.json', async () => {
  const folder = folderOf({ 'tokenizer_config.json': '{"chat_template":"old"}', 'chat_template.jinja': 'new' });
  expect(renderChat((await loadChatTemplate(folder))!, HI)).toBe('new');
});

test('of several named templates the default is taken', async () => {
  const named = [
    { name: 'tool_use', template: 'tools' },
    { name: 'default', template: '{{ messages[0].content }}' },
  ];
  const folder = folderOf({ 'tokenizer_config.json': JSON.stringify({ chat_template: named }) });
  expect(renderChat((await loadChatTemplate(folder))!, HI)).toBe('hi');
});

test('a folder without a template has none', async () => {
  expect(await loadChatTemplate(folderOf({}))).toBeNull();
  expect(await loadChatTemplate(folderOf({ 'tokenizer_config.json': '{}' }))).toBeNull();
});

test('a template that is no Jinja is refused by name', async () => {
  await expect(loadChatTemplate(folderOf({ 'chat_template.jinja': '{% if %}' }))).rejects.toThrow(
    /chat_template\.jinja: chat template: /,
  );
});

test('a template that refuses a conversation says why', () => {
  const text = "{{ raise_exception('roles must alternate') }}";
  const template = parseChatTemplate(text, { file: 'x', bosToken: '', eosToken: '' });
  expect(() => renderChat(template, HI)).toThrow(/refuses this conversation: .*roles must alternate/);
});
