/** Failures as the OpenAI API words them: `{"error": {message, type, param, code}}` with a fitting status. */
import type { z } from 'zod';
import { PromptError } from '../engine/language-model.ts';
import { QueueFullError, RequestTooLargeError } from '../engine/scheduler.ts';
import { ChatTemplateError } from '../tokenizer/chat-template.ts';

type ErrorType = 'invalid_request_error' | 'authentication_error' | 'rate_limit_error' | 'server_error';
type Status = 400 | 401 | 404 | 405 | 408 | 413 | 415 | 429 | 431 | 500 | 503;

/** A failure to report to the client. `param` names the field of the body that is at fault, as a path. */
export class ApiError extends Error {
  override name = 'ApiError';
  readonly status: Status;
  readonly type: ErrorType;
  readonly param: string | null;
  readonly code: string | null;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    status: Status,
    message: string,
    {
      type = 'invalid_request_error',
      param = null,
      code = null,
      headers = {},
    }: {
      type?: ErrorType;
      param?: string | null;
      code?: string | null;
      headers?: Readonly<Record<string, string>>;
    } = {},
  ) {
    super(message);
    this.status = status;
    this.type = type;
    this.param = param;
    this.code = code;
    this.headers = headers;
  }
}

/** The body of an error response or of an error event in a stream. */
export function errorBody({ message, type, param, code }: ApiError) {
  return { error: { message, type, param, code } };
}

/** Bounds of the seconds after which a client that found the queue full may try again: when it should be empty. */
const SOONEST_RETRY = 1;
const LATEST_RETRY = 60;

/**
 * What the client is told about `error`. Of failures that are not the client's it learns nothing but that.
 * @param promptField the field that held the prompt
 */
export function toApiError(error: unknown, promptField: string): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof PromptError || error instanceof ChatTemplateError) {
    return new ApiError(400, error.message, { param: promptField });
  }
  if (error instanceof RequestTooLargeError) {
    return new ApiError(400, error.message, { param: promptField, code: 'context_length_exceeded' });
  }
  if (error instanceof QueueFullError) {
    const seconds = Math.ceil((error.emptyInMs ?? 0) / 1000);
    return new ApiError(429, error.message, {
      type: 'rate_limit_error',
      code: 'queue_full',
      headers: { 'Retry-After': String(Math.min(LATEST_RETRY, Math.max(SOONEST_RETRY, seconds))) },
    });
  }
  return new ApiError(500, 'the server failed to process the request', { type: 'server_error' });
}

/** The first problem of a body that does not fit its schema, with the path of the field. */
export function invalidBody(error: z.ZodError): ApiError {
  const { path, message } = mostSpecific(error.issues[0]!);
  const param = path.map(String).join('.');
  return new ApiError(400, param === '' ? `the body: ${message}` : `${param}: ${message}`, { param: param || null });
}

/** Of a value that fits no alternative, the problem with the alternative that it came closest to. */
function mostSpecific(issue: z.core.$ZodIssue): { path: PropertyKey[]; message: string } {
  if (issue.code !== 'invalid_union') return issue;
  const closest = issue.errors
    .flatMap((issues) => (issues[0]?.path.some((step) => typeof step === 'string') ? [mostSpecific(issues[0])] : []))
    .sort((a, b) => b.path.length - a.path.length)[0];
  if (!closest || closest.path.length === 0) return issue;
  return { path: [...issue.path, ...closest.path], message: closest.message };
}
