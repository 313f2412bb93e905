/**
 * Moments, hours of the day and days off, of a zone that keeps one distance from UTC. What is not known, the moment
 * within a day, whether a day is a holiday, stays unknown.
 */

const MINUTE = 60_000;
const DAY = 1440 * MINUTE;

/** A moment known to lie from `earliest` to `latest`, in milliseconds since 1970; equal when it is known exactly. */
export interface Moment {
  readonly earliest: number;
  readonly latest: number;
  readonly text: string;
}

/** As in 2026, 2026-04, 2026-04-24 or 2026-04-24T12:15Z, always UTC. */
const MOMENT_PATTERN = /^\d{4}(-\d{2}(-\d{2}(T\d{2}:\d{2}Z)?)?)?$/;

/** @returns null where there is no such day */
export function parseMoment(text: string): Moment | null {
  if (!MOMENT_PATTERN.test(text)) return null;
  const [year, month, day] = text.split(/[-T]/).map(Number);
  const earliest = text.length === 17 ? Date.parse(text) : Date.UTC(year!, (month ?? 1) - 1, day ?? 1);
  // A day that a month does not have turns up in the next one.
  if (Number.isNaN(earliest) || !new Date(earliest).toISOString().startsWith(text.replace('Z', ''))) return null;
  const after = { 4: () => Date.UTC(year! + 1, 0), 7: () => Date.UTC(year!, month!), 10: () => earliest + DAY }[
    text.length
  ];
  return { earliest, latest: after ? after() : earliest, text };
}

export type Known = 'yes' | 'no' | 'unknown';

/** Days off of a country, as published; days outside of what is covered are unknown. */
export interface Calendar {
  readonly id: string;
  /** Numbers of days since 1970, the last among them. */
  readonly covers: DayRange;
  readonly daysOff: readonly DayRange[];
}

interface DayRange {
  readonly first: number;
  readonly last: number;
}

/** Hours with prices of their own, on some days of the week. */
export interface Hours {
  readonly offsetMinutes: number;
  /** 1 is Monday, 7 is Sunday. A span that runs past midnight belongs to the day on which it begins. */
  readonly days: readonly number[];
  /** Minutes of the day, the end not among them. */
  readonly spans: readonly { readonly start: number; readonly end: number }[];
  /** Days off are as if the hours did not exist. */
  readonly calendar: Calendar | null;
}

/** Whether a moment, in milliseconds since 1970, falls into the hours. */
export function within({ offsetMinutes, days, spans, calendar }: Hours, at: number): Known {
  const local = at + offsetMinutes * MINUTE;
  const today = Math.floor(local / DAY);
  const minute = (local - today * DAY) / MINUTE;
  for (const { start, end } of spans) {
    const late = start < end ? minute >= start && minute < end : minute >= start;
    const early = start >= end && minute < end;
    if (!late && !early) continue;
    const began = early ? today - 1 : today;
    if (!days.includes(weekday(began))) continue;
    const off = calendar ? isOff(calendar, began) : 'no';
    if (off !== 'yes') return off === 'no' ? 'yes' : 'unknown';
  }
  return 'no';
}

function isOff({ covers, daysOff }: Calendar, day: number): Known {
  if (day < covers.first || day > covers.last) return 'unknown';
  return daysOff.some(({ first, last }) => day >= first && day <= last) ? 'yes' : 'no';
}

/** 1970 began on a Thursday. */
function weekday(day: number): number {
  return ((((day + 3) % 7) + 7) % 7) + 1;
}

/** @param text a day such as 2026-10-01, known to exist */
export function dayNumber(text: string): number {
  return Date.parse(`${text}T00:00Z`) / DAY;
}

export function dayText(day: number): string {
  return new Date(day * DAY).toISOString().slice(0, 10);
}

/** @param text as in 09:30 */
export function minuteOfDay(text: string): number {
  const [hour, minute] = text.split(':').map(Number) as [number, number];
  return hour * 60 + minute;
}

/** @param text as in +08:00 */
export function offsetMinutes(text: string): number {
  return minuteOfDay(text.slice(1)) * (text.startsWith('-') ? -1 : 1);
}
