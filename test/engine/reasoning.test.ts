import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createReasoningSplitter } from '../../src/engine/reasoning.ts';

function split(text: string, inside: boolean, cuts: number[] = []) {
  const splitter = createReasoningSplitter(inside);
  const bounds = [0, ...cuts.map((cut) => cut % (text.length + 1)).sort((a, b) => a - b), text.length];
  const parts = bounds.slice(1).map((end, i) => splitter.push(text.slice(bounds[i], end)));
  parts.push(splitter.flush());
  return {
    reasoning: parts.map((part) => part.reasoning).join(''),
    content: parts.map((part) => part.content).join(''),
  };
}

const cases: [text: string, inside: boolean, reasoning: string, content: string][] = [
  ['<think>\n2 + 2 = 4\n</think>\n\nIt is 4.', false, '2 + 2 = 4', 'It is 4.'],
  ['\n<think>a < b</think>c', false, 'a < b', 'c'],
  ['so it is\n</think>\n\nyes </think> no', true, 'so it is', 'yes </think> no'],
  ['no reasoning <think>here</think>', false, '', 'no reasoning <think>here</think>'],
  ['<think></think>\n\nplain', false, '', 'plain'],
  ['<think>cut sho', false, 'cut sho', ''],
  ['<thi', false, '', '<thi'],
  ['  two spaces first', false, '', '  two spaces first'],
  ['', true, '', ''],
];

test.each(cases)(
  '%j splits into reasoning and content wherever the pieces break',
  (text, inside, reasoning, content) => {
    fc.assert(
      fc.property(fc.array(fc.nat(100)), (cuts) => {
        expect(split(text, inside, cuts)).toEqual({ reasoning, content });
      }),
    );
  },
);

test('content that cannot be a tag is passed on at once', () => {
  const splitter = createReasoningSplitter(false);
  expect(splitter.push('Once')).toEqual({ reasoning: '', content: 'Once' });
  expect(splitter.push(' upon')).toEqual({ reasoning: '', content: ' upon' });
});
