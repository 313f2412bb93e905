/** Answers as server-sent events, in OpenAI's form: one JSON object an event, `[DONE]` at the end. */
import { type ApiError, errorBody } from './api-error.ts';

/**
 * A response that sends each item as it comes, at the pace of the reader.
 * @param describe what to tell the client of a failure, now that the status line is gone
 */
export function eventStream(items: AsyncIterator<object>, describe: (error: unknown) => ApiError): Response {
  const encoder = new TextEncoder();
  const event = (data: string) => encoder.encode(`data: ${data}\n\n`);
  let gone = false;
  const next = async (): Promise<{ data: string; last: boolean }> => {
    try {
      const { value, done } = await items.next();
      return { data: done ? '[DONE]' : JSON.stringify(value), last: done === true };
    } catch (error) {
      return { data: JSON.stringify(errorBody(describe(error))), last: true };
    }
  };
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { data, last } = await next();
      if (gone) return;
      controller.enqueue(event(data));
      if (last) controller.close();
    },
    cancel() {
      gone = true;
    },
  });
  return new Response(body, {
    headers: {
      'Content-Type': 'text/event-stream; charset=utf-8',
      'Cache-Control': 'no-cache',
      'X-Accel-Buffering': 'no',
    },
  });
}
