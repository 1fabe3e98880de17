// Every operation with openapi-fetch and the types that openapi-typescript generates. Prints a line of JSON for each.

import createClient from "openapi-fetch";
import type { components, paths } from "./hurlbat.js";

type Schemas = components["schemas"];
type Problem = Schemas["Problem"];

const name = process.env["CLIENT_NAME"]!;

class Refused extends Error {
  constructor(readonly problem: Problem) {
    super(problem.detail);
  }
}

/** Return what came, or throw the problem that came in its place. */
function good<T>(answer: { data?: T; error?: Problem }): T {
  if (answer.error !== undefined) throw new Refused(answer.error);
  return answer.data as T;
}

function tell(operation: string, result: Record<string, unknown>): void {
  console.log(JSON.stringify({ operation, ...result }));
}

function connect(token: string) {
  return createClient<paths>({
    baseUrl: process.env["HURLBAT_URL"]!,
    headers: { Authorization: `Bearer ${token}` },
  });
}

const client = connect(process.env["HURLBAT_TOKEN"]!);

const spec: Schemas["WorkerSpec"] = {
  name: "greeter",
  url: process.env["WORKER_URL"]!,
  secret: process.env["WORKER_SECRET"]!,
  slots: 10,
  window: "auto",
  labels: { language: name },
};
const worker = good(await client.POST("/workers", { body: spec }));
tell("register", { name: worker.name, state: worker.state, language: worker.labels["language"] });

const run = good(
  await client.POST("/runs", { body: { task: "greet", input: { name: "Ada" }, idempotency_key: name } }),
);
tell("submit", { id: run.id, task: run.task, input: run.input });

const ended = good(
  await client.GET("/runs/{run_id}", { params: { path: { run_id: run.id }, query: { wait: 30 } } }),
);
const completed: Schemas["RunState"] = "completed";
if (ended.state !== completed) throw new Error(`the run is ${ended.state}`);
tell("wait", { id: ended.id, state: ended.state, output: ended.output });

const runs: Schemas["Submission"][] = ["Grace", "Edsger", "Barbara", "Tony"].map((name) => ({
  task: "greet",
  input: { name },
}));
const bulk = good(
  await client.POST("/runs/bulk", { body: { runs: [...runs, { task: "greet", idempotency_ttl: 60 }] } }),
);
const ids: string[] = [];
const codes: string[] = [];
for (const outcome of bulk.results) {
  if ("code" in outcome) codes.push(outcome.code);
  else ids.push(outcome.id);
}
tell("bulk", { ids, codes });

const event = good(await client.POST("/events", { body: { key: "user.joined", payload: { name: "Alan" } } }));
tell("publish", { key: event.key, starts: event.starts.map((start) => [start.task, start.outcome]) });

const daily: Schemas["ScheduleSpec"] = {
  task: "greet",
  name,
  expression: "0 6 * * *",
  timezone: "UTC",
  overlap: "skip",
};
const schedule = good(await client.POST("/schedules", { body: daily }));
const hour = schedule.next_at === null ? null : new Date(schedule.next_at).getUTCHours();
tell("schedule", { name: schedule.name, overlap: schedule.overlap, hour });

let pages = 0;
const found: string[] = [];
let cursor: string | undefined;
do {
  const page: Schemas["RunPage"] = good(
    await client.GET("/runs", { params: { query: { task: "greet", limit: 2, cursor } } }),
  );
  found.push(...page.items.map((one) => one.id));
  pages += 1;
  cursor = page.next_cursor ?? undefined;
} while (cursor);
tell("list", { pages, ids: found });

const later = good(await client.POST("/runs", { body: { task: "greet", delay: 3600 } }));
const cancelled = good(
  await client.POST("/runs/{run_id}/cancel", {
    params: { path: { run_id: later.id } },
    body: { reason: "not needed" },
  }),
);
tell("cancel", { state: cancelled.state, by: cancelled.cancelled_by, reason: cancelled.reason });

for (const [operation, used, wanted] of [
  ["problem", client, crypto.randomUUID()],
  ["unauthorized", connect("wrong"), run.id],
] as const) {
  try {
    good(await used.GET("/runs/{run_id}", { params: { path: { run_id: wanted } } }));
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    const { status, code, detail } = error.problem;
    tell(operation, { status, code, detail });
  }
}
