import { expect, test } from 'vitest';
import { arithmeticProblem } from '../../models/arithmetic.ts';

const some = (count: number, seed: number, split: 'train' | 'test') =>
  Array.from({ length: count }, (_, index) => arithmeticProblem(seed, index, split));

const OPERATIONS: Record<string, (a: number, b: number) => number> = {
  '+': (a, b) => a + b,
  '-': (a, b) => a - b,
  '*': (a, b) => a * b,
  '/': (a, b) => a / b,
};

test('each step is right, uses numbers at hand, and the last is the answer', () => {
  for (const { question, think, answer, value, steps } of [...some(3000, 1, 'train'), ...some(1000, 2, 'test')]) {
    const known = (question.match(/\d+/g) ?? []).map(Number);
    const worked = [...think.matchAll(/(\d+) ([-+*/]) (\d+) = (\d+)\./g)];
    expect([question, worked.length]).toEqual([question, steps]);
    expect(worked.map(([step]) => step).join(' ')).toBe(think);
    for (const [, a, sign, b, result] of worked) {
      expect(known).toContain(Number(a));
      expect(known).toContain(Number(b));
      expect([question, OPERATIONS[sign!]!(Number(a), Number(b))]).toEqual([question, Number(result)]);
      known.push(Number(result));
    }
    expect(known.at(-1)).toBe(value);
    expect(answer.match(/\d+/g)?.map(Number)).toEqual([value]);
    expect(value).toBeGreaterThanOrEqual(0);
    expect(value).toBeLessThanOrEqual(200);
  }
});

test('there are at least twelve kinds of problem of one step and twelve of two', () => {
  const kinds = (steps: 1 | 2) =>
    new Set(
      some(4000, 3, 'train')
        .filter((problem) => problem.steps === steps)
        .map(
          ({ think, answer }) =>
            think.replace(/\d+/g, '#') +
            answer
              .replace(/[A-Z][a-z]+ (?=has|had|read|pays|finds)/g, 'N ')
              .split(' ')
              .map((word) =>
                /^(?:N|has|had|read|pays|finds|left\.|now\.|They|There|Each|each|all\.|together\.|first\.|taken\.)$/.test(
                  word,
                )
                  ? word
                  : '_',
              )
              .join(' '),
        ),
    );
  expect(kinds(1).size).toBeGreaterThanOrEqual(12);
  expect(kinds(2).size).toBeGreaterThanOrEqual(12);
});

test('a problem is a function of seed, index and split', () => {
  expect(some(50, 9, 'test')).toEqual(some(50, 9, 'test'));
  expect(some(50, 9, 'test')).not.toEqual(some(50, 10, 'test'));
});

test('no test problem can be met in training, whatever the seeds', () => {
  const trained = new Set(some(20_000, 1, 'train').map(({ question }) => question));
  for (const { question } of some(2000, 77, 'test')) expect(trained.has(question)).toBe(false);
});
