// The service's HTTP API, as docs/serve.md describes it.

/** What went wrong with a request: `status` 0 where the server could not be reached. */
export class Problem extends Error {
  constructor(status, code, detail, retryAfter = null) {
    super(detail || code);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

const listeners = new Set();
let reachable = true;

/** Calls `f(true | false)` when the server becomes reachable or ceases to be. */
export function onReachable(f) {
  listeners.add(f);
}

function reached(now) {
  if (now === reachable) return;
  reachable = now;
  for (const f of listeners) f(now);
}

async function request(method, path, { body, type, signal } = {}) {
  const headers = { Accept: "application/json, application/problem+json" };
  if (method !== "GET") headers["X-Requested-With"] = "veriscope";
  if (type) headers["Content-Type"] = type;
  let response;
  try {
    response = await fetch(path, { method, headers, body, signal, credentials: "same-origin", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    reached(false);
    throw new Problem(0, "offline", String(error.message));
  }
  reached(true);
  const json = /json/.test(response.headers.get("Content-Type") ?? "");
  let value = null;
  if (json) {
    try {
      value = await response.json();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem(response.status, "bad_answer", String(error.message));
    }
  }
  if (!response.ok) {
    const detail = value?.detail ?? value?.title ?? response.statusText;
    throw new Problem(response.status, value?.code ?? `http_${response.status}`, detail, Number(response.headers.get("Retry-After")) || null);
  }
  return value;
}

const query = (values) => {
  const entries = Object.entries(values).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return entries.length ? `?${new URLSearchParams(entries)}` : "";
};
const job = (id) => `/v1/jobs/${encodeURIComponent(id)}`;

export const api = {
  session: () => request("GET", "/v1/session"),
  signIn: (key) => request("POST", "/v1/session", { body: JSON.stringify({ key }), type: "application/json" }),
  signOut: () => request("DELETE", "/v1/session"),
  jobs: (filter, signal) => request("GET", `/v1/jobs${query(filter)}`, { signal }),
  job: (id, signal) => request("GET", job(id), { signal }),
  remove: (id) => request("DELETE", job(id)),
  decide: (id, decision) => request("POST", `${job(id)}/decision`, { body: JSON.stringify(decision), type: "application/json" }),
  jobDeliveries: (id) => request("GET", `${job(id)}/deliveries`),
  decisions: (id, signal) => request("GET", `${job(id)}/decisions`, { signal }),
  previews: (id, signal) => request("GET", `${job(id)}/previews`, { signal }),
  report: (id, signal) => request("GET", `/v1/report/${encodeURIComponent(id)}?format=json`, { signal }),
  policies: () => request("GET", "/v1/policies"),
  dryRun: (toml) => request("POST", "/v1/policies/dry-run", { body: toml, type: "application/toml" }),
  deliveries: (filter) => request("GET", `/v1/webhooks/deliveries${query(filter)}`),
  replay: (id) => request("POST", `/v1/webhooks/deliveries/${encodeURIComponent(id)}/replay`),
};

export const urls = {
  media: (id) => `${job(id)}/media`,
  preview: (id, file) => `${job(id)}/previews/${encodeURIComponent(file)}`,
  events: (id) => `${job(id)}/events`,
  reportJson: (id) => `/v1/report/${encodeURIComponent(id)}?format=json`,
  reportHtml: (id, lang) => `/v1/report/${encodeURIComponent(id)}?format=html&lang=${lang}`,
};
