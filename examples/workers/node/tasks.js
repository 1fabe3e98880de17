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

// Runs a task and returns its run's result as it is told.
export async function perform(task, input, signal) {
  if (!Object.hasOwn(tasks, task)) {
    return { state: "failed", error: { type: "unknown_task", message: `${task} is not served here` } };
  }
  try {
    const output = (await tasks[task](input, signal)) ?? null;
    if (JSON.stringify(output).length <= 1024 * 1024) return { state: "completed", output };
    return { state: "failed", error: { type: "Error", message: "an output of more than 1 MiB" }, retryable: false };
  } catch ({ name, message, stack, retryable, retry_after }) {
    return { state: "failed", error: { type: name, message, stack }, retryable, retry_after };
  }
}
