/** What a screen reader is told while an answer is being written: whole sentences, so that it does not stammer. */

/**
 * @param from how much of `text` has been told
 * @param ended whether no more text will come
 * @returns up to where it can be told now
 */
export function spokenUpTo(text: string, from: number, ended: boolean): number {
  if (ended) return text.length;
  let end = from;
  // A sentence is over once white space follows its mark (and the quotation marks that close with it).
  const sentenceEnd = /[.!?…:]["'”’»)]*\s+|\n+/g;
  sentenceEnd.lastIndex = from;
  while (sentenceEnd.exec(text)) end = sentenceEnd.lastIndex;
  return end;
}
