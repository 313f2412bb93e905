/** Makes a text area as high as its text; CSS bounds it (`max-block-size`). */
export function fitToText(area: HTMLTextAreaElement): void {
  area.style.blockSize = 'auto';
  const borders = area.offsetHeight - area.clientHeight;
  area.style.blockSize = `${area.scrollHeight + borders}px`;
}
