/** Copies text, also where a page served over plain HTTP to another machine gets no clipboard interface. */

/** @returns whether the browser took it */
export async function copyText(text: string): Promise<boolean> {
  if (window.isSecureContext) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return false;
    }
  }
  const area = document.createElement('textarea');
  area.value = text;
  area.style.position = 'fixed';
  area.style.opacity = '0';
  const focused = document.activeElement;
  document.body.append(area);
  area.select();
  const taken = document.execCommand('copy');
  area.remove();
  if (focused instanceof HTMLElement) focused.focus();
  return taken;
}
