// A protocol worker: it tells its tasks itself, takes several runs at once, streams what happens, and can be cancelled.
import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { Webhook } from "standardwebhooks";

// A task gets its run's input, and a signal that aborts when the run is cancelled. It returns the output.
const tasks = {
  shout: async (input) => input.text.toUpperCase(),
  "conform.echo": async (input) => input,
  "conform.sleep": async ({ seconds }, signal) => {
    await sleep(seconds * 1000, null, { signal });
    return { slept: seconds };
  },
  "conform.fail": async ({ message, retryable, retry_after }) => {
    throw Object.assign(new Error(message), { retryable, retry_after });
  },
};

const { HURLBAT_SIGNING_SECRETS = "", HURLBAT_SIGNING_SECRET = "", HOST = "127.0.0.1", PORT = 9000 } = process.env;
const secrets = `${HURLBAT_SIGNING_SECRETS},${HURLBAT_SIGNING_SECRET}`.split(/[,\s]+/).filter(Boolean);
if (!secrets.length || !secrets.every((secret) => /^whsec_[A-Za-z0-9+/]{32,}={0,2}$/.test(secret))) {
  console.error("set HURLBAT_SIGNING_SECRET to the secret of this worker: whsec_ and the base64 of 24 to 64 bytes");
  process.exit(1);
}
const webhooks = secrets.map((secret) => new Webhook(secret)); // while a secret rotates, any of them may have signed
const declared = Object.keys(tasks).map((name) => ({ name, retries: 3 }));
const version = createHash("sha256").update(JSON.stringify(declared)).digest("hex").slice(0, 16);
const manifest = { protocol: 1, version, sdk: "node-example", max_batch: 16, tasks: declared };
const attempts = new Map(); // those that run here and those of the last minute
let stopping = false;

async function handle(request, response) {
  const answer = (status, body, headers = {}) => {
    response.writeHead(status, { "hurlbat-worker": version, "content-type": "application/json", ...headers });
    response.end(JSON.stringify(body));
  };
  if (request.method !== "POST") return answer(405, { detail: "POST is what is served here" });
  const fits = request.headers["content-length"] <= 16 * 1024 * 1024;
  if (!fits) return answer(413, { detail: "only bodies of up to 16 MiB are taken" }, { connection: "close" });
  const body = await text(request); // as it came: parsed and written again it would have another signature
  if (!isSigned(body, request.headers)) return answer(401, { detail: "the signature is missing, wrong or old" });
  const { type, data } = JSON.parse(body);
  if (type === "describe") return answer(200, manifest);
  if (type === "probe") return answer(200, {});
  if (type === "cancel") return answer(200, { runs: await Promise.all(data.runs.map(cancel)) });
  if (type !== "deliver" || !data?.runs) return answer(400, { detail: "this is no message that is known here" });
  if (stopping) return answer(503, { detail: "about to stop" }, { "retry-after": 1, connection: "close" });
  response.writeHead(200, { "hurlbat-worker": version, "content-type": "application/x-ndjson" });
  const write = (line) => response.write(`${JSON.stringify(line)}\n`);
  const beat = setInterval(write, data.heartbeat * 1000, { type: "heartbeat" });
  await Promise.all(data.runs.map((run) => execute(run, write)));
  clearInterval(beat);
  response.end();
}

function isSigned(body, headers) {
  return webhooks.some((webhook) => {
    try {
      webhook.verify(body, headers, { jsonParse: false });
      return true;
    } catch {
      return false;
    }
  });
}

async function execute({ run_id, attempt, task, input }, write) {
  const key = `${run_id} ${attempt}`;
  if (!Object.hasOwn(tasks, task)) {
    const error = { type: "unknown_task", message: `${task} is not served here` };
    return write({ type: "result", run_id, attempt, state: "failed", error });
  }
  if (!attempts.has(key)) {
    // what was sent twice runs once
    const abort = new AbortController();
    attempts.set(key, { abort, result: tasks[task](input, abort.signal).then(completed).catch(failed) });
  }
  write({ type: "started", run_id, attempt });
  write({ type: "result", run_id, attempt, ...(await attempts.get(key).result) });
  setTimeout(() => attempts.delete(key), 60_000).unref();
}

function completed(output = null) {
  if (JSON.stringify(output).length <= 1024 * 1024) return { state: "completed", output };
  throw Object.assign(new Error("an output of more than 1 MiB"), { retryable: false });
}

function failed({ name, message, stack, retryable, retry_after }) {
  return { state: "failed", error: { type: name, message, stack }, retryable, retry_after };
}

async function cancel({ run_id, attempt }) {
  const found = attempts.get(`${run_id} ${attempt}`);
  found?.abort.abort();
  const stopped = await Promise.race([found?.result, sleep(3000)]); // only what has ended has stopped
  return { run_id, attempt, status: stopped ? "stopped" : "unknown" };
}

const server = createServer((request, response) =>
  handle(request, response).catch((error) => {
    if (response.headersSent) return response.destroy();
    response.writeHead(400, { "hurlbat-worker": version }).end(String(error)); // signed, but no message
  }),
);
server.listen(PORT, HOST);
process.once("SIGTERM", () => {
  stopping = true; // what runs may end; what comes goes to another instance, or waits for one
  server.close();
  setTimeout(() => process.exit(1), 10_000).unref();
});
