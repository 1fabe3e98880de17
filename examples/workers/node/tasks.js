// The tasks. Each gets its run's input, and a signal that aborts when the run is cancelled. It returns the output.
import { setTimeout as sleep } from "node:timers/promises";

export const tasks = {
  shout: async (input) => input.text.toUpperCase(),

  // what `hurlbat conform` tests with
  "conform.echo": async (input) => input,
  "conform.sleep": async ({ seconds }, signal) => {
    await sleep(seconds * 1000, null, { signal });
    return { slept: seconds };
  },
  "conform.fail": async ({ message, retryable, retry_after }) => {
    throw Object.assign(new Error(message), { retryable, retry_after });
  },
};

// What the server is told of them: their names and policies.
export const declared = Object.keys(tasks).map((name) => ({ name, retries: 3 }));
