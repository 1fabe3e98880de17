// A plain worker: it answers HTTP, checks signatures, and knows two headers. Its task writes a receipt into a file.
import { writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { text } from "node:stream/consumers";
import { Webhook } from "standardwebhooks";

const { HURLBAT_SIGNING_SECRET = "", RECEIPTS = ".", HOST = "127.0.0.1", PORT = 9000 } = process.env;
if (!/^whsec_[A-Za-z0-9+/]{32,}={0,2}$/.test(HURLBAT_SIGNING_SECRET)) {
  console.error("set HURLBAT_SIGNING_SECRET to the secret of this worker: whsec_ and the base64 of 24 to 64 bytes");
  process.exit(1);
}
const webhook = new Webhook(HURLBAT_SIGNING_SECRET);
const written = new Map(); // what succeeded, by the run's id; if it must outlive a restart, a table with a unique key
const writing = new Set();

async function answer(request) {
  const fits = request.headers["content-length"] <= 16 * 1024 * 1024;
  if (!fits) return [413, "only bodies of up to 16 MiB are taken", { connection: "close" }];
  const body = await text(request);
  let run;
  try {
    [run] = webhook.verify(body, request.headers).data.runs;
  } catch {
    return [401, "the signature is missing, wrong or old"];
  }
  const { order, amount } = run.input ?? {};
  if (!/^[\w-]+$/.test(order) || !(amount > 0)) return [422, "order and amount are wanted", { "hurlbat-retry": "no" }];
  const id = request.headers["webhook-id"]; // the same on every attempt
  if (written.has(id)) return [200, written.get(id)];
  if (writing.has(id)) return [503, "still at it", { "retry-after": 5 }]; // it waits so long, uncharged
  writing.add(id);
  try {
    await writeFile(`${RECEIPTS}/${order}.txt`, `${amount}\n`);
    written.set(id, { receipt: `${order}.txt` }); // only after success: a failed one is to be tried again
    return [200, written.get(id)];
  } catch (error) {
    return [500, String(error)];
  } finally {
    writing.delete(id);
  }
}

createServer((request, response) =>
  answer(request)
    .then(([status, body, headers]) =>
      response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(body)),
    )
    .catch(() => response.destroy()),
).listen(PORT, HOST);
