/** The line icons of the pages, on a grid of 20, in the colour of the text around them. */
import type { ComponentChildren } from 'preact';

const icon = (drawing: ComponentChildren) =>
  function Icon() {
    return (
      <svg
        viewBox="0 0 20 20"
        width="20"
        height="20"
        fill="none"
        stroke="currentColor"
        stroke-width="1.5"
        stroke-linecap="round"
        stroke-linejoin="round"
        aria-hidden="true"
      >
        {drawing}
      </svg>
    );
  };

export const SunIcon = icon(
  <>
    <circle cx="10" cy="10" r="3.25" />
    <path d="M10 2.5v1.75M10 15.75v1.75M2.5 10h1.75M15.75 10h1.75M4.7 4.7l1.24 1.24M14.06 14.06l1.24 1.24M4.7 15.3l1.24-1.24M14.06 5.94l1.24-1.24" />
  </>,
);
export const MoonIcon = icon(<path d="M16.5 11.9A6.9 6.9 0 0 1 8.1 3.5a6.9 6.9 0 1 0 8.4 8.4Z" />);
export const SettingsIcon = icon(
  <>
    <path d="M3 6h7M15 6h2M3 14h2M10 14h7" />
    <circle cx="12.5" cy="6" r="2.25" />
    <circle cx="7.5" cy="14" r="2.25" />
  </>,
);
export const NewChatIcon = icon(
  <>
    <path d="M16.5 10.5v4.25a1.75 1.75 0 0 1-1.75 1.75h-9.5a1.75 1.75 0 0 1-1.75-1.75v-9.5A1.75 1.75 0 0 1 5.25 3.5H9.5" />
    <path d="M8 12l.5-2.4 6.3-6.3a1.27 1.27 0 0 1 1.9 1.9l-6.3 6.3Z" />
  </>,
);
export const SendIcon = icon(<path d="M10 15.5v-11M5.25 9.25 10 4.5l4.75 4.75" />);
export const StopIcon = icon(<rect x="6.25" y="6.25" width="7.5" height="7.5" rx="1" fill="currentColor" />);
export const CopyIcon = icon(
  <>
    <rect x="7" y="7" width="9.5" height="9.5" rx="1.75" />
    <path d="M4.5 13A1.5 1.5 0 0 1 3.5 11.5v-6.25A1.75 1.75 0 0 1 5.25 3.5h6.25A1.5 1.5 0 0 1 13 4.5" />
  </>,
);
export const DoneIcon = icon(<path d="M4.5 10.75 8.25 14.5l7.25-8.5" />);
export const AgainIcon = icon(
  <>
    <path d="M16.25 10a6.25 6.25 0 1 1-1.9-4.48L16.25 7.25" />
    <path d="M16.25 3.25v4h-4" />
  </>,
);
export const EditIcon = icon(
  <path d="M3.75 16.25l.75-3.5 8.6-8.6a1.56 1.56 0 0 1 2.2 0l.55.55a1.56 1.56 0 0 1 0 2.2l-8.6 8.6Z" />,
);
export const OpenIcon = icon(<path d="M7.5 5l5 5-5 5" />);
export const DownIcon = icon(<path d="M10 4.5v11M5.25 10.75 10 15.5l4.75-4.75" />);
export const CloseIcon = icon(<path d="M5 5l10 10M15 5 5 15" />);
