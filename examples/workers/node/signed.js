// What both workers need: a server that lets in what is signed, and nothing else.
import { createServer } from "node:http";
import { text } from "node:stream/consumers";
import { Webhook } from "standardwebhooks";

const { HURLBAT_SIGNING_SECRETS = "", HURLBAT_SIGNING_SECRET = "", HOST = "127.0.0.1", PORT = 9000 } = process.env;
const secrets = `${HURLBAT_SIGNING_SECRETS},${HURLBAT_SIGNING_SECRET}`.split(/[,\s]+/).filter(Boolean);
if (!secrets.length || !secrets.every((secret) => /^whsec_[A-Za-z0-9+/]{32,}={0,2}$/.test(secret))) {
  console.error("set HURLBAT_SIGNING_SECRET to the secret of this worker: whsec_ and the base64 of 24 to 64 bytes");
  process.exit(1);
}
const webhooks = secrets.map((secret) => new Webhook(secret)); // while a secret rotates, any of them may have signed

// Starts a server that gives each message to `handle`, until it is told to stop. All answers have the headers.
export function serve(handle, headers = {}) {
  const server = createServer((request, response) => {
    for (const name in headers) response.setHeader(name, headers[name]);
    receive(request, response, handle).catch((error) => {
      if (response.headersSent) return response.destroy();
      answer(response, 400, String(error)); // signed, but no message
    });
  });
  process.once("SIGTERM", () => {
    server.close(); // what runs may end; what comes goes to another instance, or waits for one
    setTimeout(() => process.exit(1), 10_000).unref();
  });
  return server.listen(PORT, HOST);
}

export function answer(response, status, body, headers = {}) {
  response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(body));
}

async function receive(request, response, handle) {
  if (request.method !== "POST") return answer(response, 405, "POST is what is served here");
  const fits = request.headers["content-length"] <= 16 * 1024 * 1024;
  if (!fits) return answer(response, 413, "only bodies of up to 16 MiB are taken", { connection: "close" });
  const body = await text(request); // as it came: parsed and written again it would have another signature
  if (!isSigned(body, request.headers)) return answer(response, 401, "the signature is missing, wrong or old");
  await handle(JSON.parse(body), response);
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
