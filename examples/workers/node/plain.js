// A plain worker: it answers HTTP, checks signatures, and knows two headers. Its task writes a receipt into a file.
import { writeFile } from "node:fs/promises";
import { answer, serve } from "./signed.js";

const { RECEIPTS = "." } = process.env;
const written = new Map(); // what succeeded, by the run's id; if it must outlive a restart, a table with a unique key
const writing = new Set();

serve(async (message, response) => {
  const { run_id: id, input } = message?.data?.runs?.[0] ?? {}; // the id is the same on every attempt
  const { order, amount } = input ?? {};
  if (!/^[\w-]+$/.test(order ?? "") || !(amount > 0)) {
    return answer(response, 422, "order and amount are wanted", { "hurlbat-retry": "no" });
  }
  if (written.has(id)) return answer(response, 200, written.get(id));
  if (writing.has(id)) return answer(response, 503, "still at it", { "retry-after": 5 }); // it waits so long, uncharged
  writing.add(id);
  try {
    await writeFile(`${RECEIPTS}/${order}.txt`, `${amount}\n`);
    written.set(id, { receipt: `${order}.txt` }); // only after success: a failed one is to be tried again
    answer(response, 200, written.get(id));
  } catch (error) {
    answer(response, 500, String(error));
  } finally {
    writing.delete(id);
  }
});
