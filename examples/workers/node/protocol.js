// A protocol worker: it tells its tasks itself, takes several runs at once, streams what happens, and can be cancelled.
import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { answer, serve } from "./signed.js";
import { declared, perform, tasks } from "./tasks.js";

const version = createHash("sha256").update(JSON.stringify(declared)).digest("hex").slice(0, 16);
const manifest = { protocol: 1, version, sdk: "node-example", max_batch: 16, tasks: declared };
const attempts = new Map(); // those that run here and those of the last minute

async function handle({ type, data }, response) {
  if (type === "describe" || type === "probe") return answer(response, 200, manifest); // any 200 is good for it
  if (type === "cancel") return answer(response, 200, { runs: await Promise.all(data.runs.map(cancel)) });
  if (type === "deliver" && data?.runs) return deliver(data, response);
  answer(response, 400, "this is no message that is known here");
}

async function deliver({ runs, heartbeat }, response) {
  if (!server.listening) return answer(response, 503, "about to stop", { "retry-after": 1, connection: "close" });
  response.writeHead(200, { "content-type": "application/x-ndjson" });
  const write = (line) => response.write(`${JSON.stringify(line)}\n`);
  const beat = setInterval(write, heartbeat * 1000, { type: "heartbeat" });
  await Promise.all(runs.map((run) => execute(run, write)));
  clearInterval(beat);
  response.end();
}

async function execute({ run_id, attempt, task, input }, write) {
  const key = `${run_id} ${attempt}`;
  if (!attempts.has(key)) {
    // what was sent twice runs once
    const abort = new AbortController();
    attempts.set(key, { abort, result: perform(task, input, abort.signal) });
  }
  if (Object.hasOwn(tasks, task)) write({ type: "started", run_id, attempt });
  write({ type: "result", run_id, attempt, ...(await attempts.get(key).result) });
  setTimeout(() => attempts.delete(key), 60_000).unref();
}

async function cancel({ run_id, attempt }) {
  const found = attempts.get(`${run_id} ${attempt}`);
  found?.abort.abort();
  const stopped = await Promise.race([found?.result, sleep(3000)]); // only what has ended has stopped
  return { run_id, attempt, status: stopped ? "stopped" : "unknown" };
}

const server = serve(handle, { "hurlbat-worker": version });
