// A stand-in for the server with jobs in every state, for looking at the page while working on it:
//   node tests/page/mock.mjs [PORT]      then open http://127.0.0.1:PORT/
// With --auth it asks for a key; any that begins with `vs_` signs in, and `vs_reader` may only read.
// Port 0 takes a free one.
// Reports are the demo's (fixtures/demo.jsonl); others are made out of them. Previews are made of the
// demo by the ffmpeg command.

import { execFileSync } from "node:child_process";
import { createReadStream, existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const root = join(here, "../..");
const page = join(root, "src/serve/page");
const port = Number(process.argv[2] ?? 8123);
const auth = process.argv.includes("--auth");
const scratch = mkdtempSync(join(tmpdir(), "veriscope-mock-"));
process.on("exit", () => rmSync(scratch, { recursive: true, force: true }));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(0));

const demo = Object.fromEntries(readFileSync(join(here, "fixtures/demo.jsonl"), "utf8").trim().split("\n").map((line) => {
  const report = JSON.parse(line);
  return [report.media.path.split("/").pop(), report];
}));
const copy = (value) => JSON.parse(JSON.stringify(value));

// Made reports: a crowd with an erased mark and everything that can be said of a segment, and failures.
function crowd() {
  const report = copy(demo["talking-head.mp4"]);
  const face = report.tracks.find((one) => one.id === "face-1");
  for (let i = 2; i <= 15; i += 1) {
    const start = (i * 1300) % 14000;
    report.tracks.push({ ...copy(face), id: `face-${i}`, start_ms: start, end_ms: start + 9000, boxes: [{ time_ms: start, x: 40 * i, y: 60, w: 60, h: 80 }], windows: face.windows.filter((w) => w.start_ms >= start && w.end_ms <= start + 9000), reasons: i === 4 ? [{ code: "extreme_pose", detail: "the face is turned by more than 60 degrees in 12 of 18 windows" }] : [] });
    const p = i === 3 ? null : ((i * 37) % 100) / 100;
    report.segments.push({ track: `face-${i}`, detector: "face-swap", start_ms: start, end_ms: start + 9000, probability: p, uncertainty: p === null ? null : 0.2, peak_ms: p === null ? null : start + 4000, peak_probability: p === null ? null : Math.min(1, p + 0.1), verdict: p === null ? "undetermined" : p > 0.8 ? "fake" : p < 0.4 ? "bonafide" : "undetermined", reasons: p === null ? [{ code: "face_too_small", detail: "the face is 28 pixels high, 64 are needed" }] : p > 0.4 && p < 0.8 ? [{ code: "out_of_domain", detail: "11 of 18 windows look unlike anything that the network was trained on (median 1.7 limits)" }] : [] });
  }
  report.segments.push({ track: "labels", detector: "label-strip", start_ms: 4000, end_ms: 19000, probability: 0.84, uncertainty: 0.14, peak_ms: null, peak_probability: null, verdict: "fake", reasons: [] });
  report.strip_evidence.push({ kind: "erased_mark", place: "picture, lower right", weight: 1.7, detail: "something was erased from the picture, lower right, from 4.0 to 19.0 s (score 5.1)", region: { x: 520, y: 490, w: 170, h: 60 }, start_ms: 4000, end_ms: 19000 });
  report.strip_evidence.push({ kind: "broken_hard_binding", place: "uuid[C2PA]@81", weight: 1.5, detail: "assertion.bmffHash.mismatch" });
  report.labels.push({ system: "c2pa", place: "uuid[C2PA]@81", content: JSON.stringify({ state: "invalid", says: "the content was changed after it was signed", generator: "Example Studio 2.1", issuer: "Example Inc" }), verdict: "noncompliant", deviations: ["assertion.bmffHash.mismatch"], ai: true });
  report.labels.push({ system: "explicit-text", place: "picture, upper left", content: "AI生成", verdict: "noncompliant", deviations: ["text_too_small", "shown_too_short"], ai: true, region: { x: 30, y: 24, w: 120, h: 26 }, start_ms: 0, end_ms: 1500 });
  report.reasons.push({ code: "watermark_not_read", detail: "the watermark PerTh was not looked for in the sound, because its detector is not installed" });
  report.disposition = { state: "suspected", evidence: ["text in the picture says AI: AI生成", "face-swap found face-1 from 8.0 to 16.5 s with probability 0.99"] };
  return report;
}

const failed = { ...copy(demo["label-intact.png"]), status: "failed", error: { code: "damaged", message: "clip of unknown origin.mp4: the container is cut short at byte 48211", time_ms: null }, tracks: [], segments: [], labels: [], strip_evidence: [], disposition: { state: "undetermined", evidence: [] } };
const partial = copy(demo["label-stripped.mp4"]);
Object.assign(partial, { status: "partial", error: { code: "decode_error", message: "half.mp4: stream 0: decoding broke off at 3.4 s", time_ms: 3400 }, reasons: [{ code: "decode_error", detail: "stream 0 cannot be decoded beyond 3.4 s" }] });

let counter = 0;
const id = () => `01936f2e-${String(++counter).padStart(4, "0")}-7000-8000-${String(1e11 + counter * 7919).padStart(12, "0")}`;
const minutesAgo = (m) => new Date(Date.now() - m * 60000).toISOString();
const reports = new Map();
const decisions = new Map();
const jobs = [];

function job(name, report, extra = {}) {
  const best = new Map();
  for (const one of report?.segments ?? []) {
    if (one.verdict !== "bonafide" && one.probability !== null && (best.get(one.detector)?.probability ?? 0) < one.probability) best.set(one.detector, { detector: one.detector, start_ms: one.start_ms, end_ms: one.end_ms, probability: one.probability });
  }
  const age = extra.age ?? 3 + jobs.length * 2;
  const action = extra.action ?? (best.has("face-swap") ? "block" : best.size ? "review" : "allow");
  const one = {
    id: id(), tenant: "default", state: "done", priority: "normal", source: { kind: "upload", name }, reference: null, declared_ai: false, sha256: report?.media.sha256 ?? null, bytes: report?.media.bytes ?? 120000,
    submitted_at: minutesAgo(age), started_at: minutesAgo(age - 0.5), finished_at: minutesAgo(age - 1), attempts: 1, reused: false, progress: null,
    outcome: report ? { action, disposition: report.disposition.state, because: extra.state === "failed" ? [`not_judged = review: ${report.error.code}: ${report.error.message}`] : action === "allow" ? [] : [`${action}.${[...best.keys()][0]} >= 0.5: 0.99 at face-1, 8.0 s to 16.5 s`, `dispositions.${report.disposition.state} = review: ${report.disposition.evidence[0]}`], policy_version: "built-in-1+3f9ac01be442" } : null,
    error: null, summary: report ? { duration_ms: report.media.duration_ms, kind: report.media.kind, peaks: [...best.values()], labels: [...new Set(report.labels.filter((l) => l.verdict !== "not_found").map((l) => l.system))], strip_evidence: report.strip_evidence.map((e) => e.kind) } : null,
    decision: null, has_media: true, ...extra,
  };
  delete one.age;
  delete one.action;
  delete one.demo;
  jobs.push(one);
  if (report) reports.set(one.id, { report, demo: extra.demo ?? name });
  return one;
}

const audio = copy(demo["talking-head.mp4"]);
audio.media.kind = "audio";
audio.tracks = audio.tracks.filter((one) => one.kind !== "face");
audio.segments = audio.segments.filter((one) => one.detector !== "face-swap");
const none = { state: "running", outcome: null, summary: null, started_at: minutesAgo(0.2), finished_at: null, has_media: true };
const running = job("live upload from the phone.mp4", null, { ...none, priority: "live", progress: { media_ms: 6000, duration_ms: 24000 }, age: 0.3, demo: "talking-head.mp4" });
job("next in line.webm", null, { ...none, state: "queued", started_at: null, age: 0.4 });
job("", null, { ...none, state: "fetching", source: { kind: "url", url: "https://media.example.org/2026/11/clip-0042.mp4?sig=abc" }, priority: "batch", started_at: null, age: 0.6 });
job("talking-head.mp4", demo["talking-head.mp4"], { reference: "post-88231" });
job("label-stripped.mp4", demo["label-stripped.mp4"]);
job("label-intact.png", demo["label-intact.png"], { declared_ai: true });
job("a crowd with a rather long name, uploaded twice, 2026-11-24 final (2).mp4", crowd(), { demo: "talking-head.mp4", reused: true });
job("voice message.m4a", audio, { demo: "talking-head.mp4" });
job("clip of unknown origin.mp4", failed, { state: "failed", error: { code: "damaged", message: failed.error.message }, action: "review", has_media: false, demo: "none" });
job("half.mp4", partial, { demo: "label-stripped.mp4", has_media: false, priority: "batch" });
job("given up.mp4", null, { ...none, state: "cancelled", finished_at: minutesAgo(9) });
for (let i = 0; i < 90; i += 1) job(`archive/reel-${String(i + 1).padStart(3, "0")}.mp4`, demo[i % 3 ? "label-stripped.mp4" : "talking-head.mp4"], { priority: "batch", age: 30 + i * 17, demo: i % 3 ? "label-stripped.mp4" : "talking-head.mp4", has_media: i % 2 === 0, source: { kind: "path", path: `/srv/archive/reel-${i + 1}.mp4` } });
jobs[4].decision = { verdict: "block", fake: true, note: "The edge of the face flickers at 0:09.", by: "review-desk", at: minutesAgo(2) };
decisions.set(jobs[4].id, [{ verdict: "escalate", fake: null, note: "", by: "night shift", at: minutesAgo(40) }, jobs[4].decision]);

const ffmpeg = (...args) => execFileSync("ffmpeg", ["-v", "error", "-y", ...args]);

function previews(entry, base) {
  const { report, demo: file } = entry;
  const source = join(root, "demo", file);
  const folder = join(scratch, file.replace(/\W/g, "_"));
  if (!existsSync(source)) return null;
  if (!existsSync(folder)) {
    execFileSync("mkdir", ["-p", folder]);
    if (report.media.kind === "image") ffmpeg("-i", source, "-vf", "scale=160:-2", join(folder, "thumb-000.jpg"));
    else {
      ffmpeg("-i", source, "-vf", "fps=2,scale=160:-2", "-start_number", "0", join(folder, "thumb-%03d.jpg"));
      ffmpeg("-i", source, "-lavfi", "showspectrumpic=s=1024x96:legend=0:color=intensity,format=gray", join(folder, "spectrogram-0.jpg"));
    }
  }
  const still = report.media.kind === "image";
  const stream = report.media.streams[0];
  const height = Math.round((160 * stream.height) / stream.width / 2) * 2;
  const thumbnails = report.media.kind === "audio" ? [] : Array.from({ length: still ? 1 : Math.round(report.media.duration_ms / 500) }, (_, i) => ({ time_ms: i * 500, file: `thumb-${String(i).padStart(3, "0")}.jpg`, width: 160, height }));
  const crops = report.segments.map((segment, i) => ({ segment, i })).filter(({ segment }) => segment.heat_map).map(({ segment, i }) => {
    const track = report.tracks.find((one) => one.id === segment.track);
    const box = track.boxes.reduce((a, b) => (Math.abs(b.time_ms - segment.peak_ms) < Math.abs(a.time_ms - segment.peak_ms) ? b : a));
    const side = Math.round(Math.max(box.w, box.h) * 1.1);
    const name = `crop-${i}.jpg`;
    if (!existsSync(join(folder, name))) ffmpeg(...(still ? [] : ["-ss", String(segment.peak_ms / 1000)]), "-i", source, "-frames:v", "1", "-vf", `crop=${side}:${side}:${Math.round(box.x + box.w / 2 - side / 2)}:${Math.round(box.y + box.h / 2 - side / 2)},scale=224:224`, join(folder, name));
    return { segment: i, file: name, time_ms: segment.peak_ms, width: 224, height: 224 };
  });
  const spectrograms = still ? [] : [{ stream: 1, file: "spectrogram-0.jpg", width: 1024, height: 96, start_ms: 0, ms_per_column: report.media.duration_ms / 1024 }];
  return base === "index" ? { thumbnails, spectrograms, crops } : join(folder, base);
}

const TYPES = { html: "text/html; charset=utf-8", css: "text/css; charset=utf-8", js: "text/javascript; charset=utf-8", json: "application/json", svg: "image/svg+xml", jpg: "image/jpeg", mp4: "video/mp4", png: "image/png" };
const CSP = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";

function send(res, status, value, headers = {}) {
  res.writeHead(status, { "Content-Type": "application/json", ...headers });
  res.end(JSON.stringify(value));
}
const problem = (res, status, code, detail) => send(res, status, { type: `urn:veriscope:problem:${code}`, title: code, status, detail, code }, { "Content-Type": "application/problem+json" });

function file(req, res, path) {
  if (!existsSync(path)) return problem(res, 404, "not_found", "no such file");
  const type = TYPES[path.split(".").pop()] ?? "application/octet-stream";
  const { size } = statSync(path);
  const range = /^bytes=(\d+)-(\d*)/.exec(req.headers.range ?? "");
  const [start, end] = range ? [Number(range[1]), range[2] ? Number(range[2]) : size - 1] : [0, size - 1];
  res.writeHead(range ? 206 : 200, { "Content-Type": type, "Content-Length": end - start + 1, "Accept-Ranges": "bytes", "Content-Security-Policy": CSP, "Cache-Control": "no-cache", ...(range ? { "Content-Range": `bytes ${start}-${end}/${size}` } : {}) });
  createReadStream(path, { start, end }).pipe(res);
}

const delivery = (n, event, state, extra) => ({ id: `d-${n}`, tenant: "default", job: jobs[3].id, event, body: "{}", attempts: 32, state, created: minutesAgo(1500), next_at: minutesAgo(60), last_error: "connect_failed: the connection to hooks.example.org could not be made", ...extra });
const deliveries = [
  delivery(4, "job.decided", "pending", { attempts: 3, created: minutesAgo(1), next_at: minutesAgo(-1), last_error: "status: the receiver answered 503" }),
  delivery(3, "job.decided", "dead"), delivery(2, "job.decided", "delivered", { attempts: 0, last_error: null }), delivery(1, "job.done", "dead"),
  delivery(0, "job.failed", "dead", { job: jobs[8].id }),
];

const server = createServer(async (req, res) => {
  const url = new URL(req.url, "http://localhost");
  const parts = url.pathname.split("/").filter(Boolean);
  let body = "";
  for await (const chunk of req) body += chunk;
  if (url.pathname === "/") return file(req, res, join(page, "index.html"));
  if (parts[0] === "assets") return file(req, res, join(page, parts[1]));
  const reader = /veriscope_session=vs_reader/.test(req.headers.cookie ?? "");
  const signedIn = !auth || /veriscope_session=vs_/.test(req.headers.cookie ?? "");
  if (url.pathname === "/v1/session") {
    if (req.method === "POST") {
      const { key } = JSON.parse(body);
      return key.startsWith("vs_") ? send(res, 200, { tenant: "default" }, { "Set-Cookie": `veriscope_session=${key}; Path=/; HttpOnly; SameSite=Strict` }) : problem(res, 401, "unauthorised", "the key is not known");
    }
    if (req.method === "DELETE") return send(res, 200, {}, { "Set-Cookie": "veriscope_session=; Path=/; Max-Age=0" });
    return signedIn ? send(res, 200, { tenant: "default", key: "desk", scopes: reader ? ["read"] : ["submit", "read", "review", "admin"], authenticated: auth }) : problem(res, 401, "unauthorised", "no key");
  }
  if (!signedIn) return problem(res, 401, "unauthorised", "no key");
  if (url.pathname === "/v1/jobs") {
    const q = url.searchParams;
    const found = jobs.filter((one) => (!q.get("state") || one.state === q.get("state")) && (!q.get("action") || one.outcome?.action === q.get("action")) && (!q.get("priority") || one.priority === q.get("priority"))
      && (!q.get("disposition") || one.outcome?.disposition === q.get("disposition")) && (!q.get("decided") || String(Boolean(one.decision)) === q.get("decided")) && (!q.get("detector") || one.summary?.peaks.some((p) => p.detector === q.get("detector")))
      && (!q.get("q") || JSON.stringify([one.source, one.reference, one.sha256]).toLowerCase().includes(q.get("q").toLowerCase())));
    const from = Number(q.get("cursor") ?? 0);
    const to = from + Number(q.get("limit") ?? 50);
    return send(res, 200, { jobs: found.slice(from, to), next: to < found.length ? String(to) : null });
  }
  if (url.pathname === "/v1/policies" && req.method === "GET") return send(res, 200, { policy_version: "built-in-1+3f9ac01be442", loaded_at: minutesAgo(600), error: null, tenant: "default", rules: { block: { "face-swap": 0.98, "voice-clone": 0.98, "label-strip": 0.98 }, review: { "face-swap": 0.5, "voice-clone": 0.5, "label-strip": 0.5 }, least_ms: 1000, dispositions: { confirmed: "review", possible: "review", suspected: "review", undetermined: "allow", none: "allow" }, strip_evidence: { erased_mark: "review" }, not_judged: "review" } });
  if (url.pathname === "/v1/policies/dry-run") {
    if (!body.includes("version")) return problem(res, 400, "bad_policy", "line 1, column 1: missing field `version`");
    return send(res, 200, { before: "built-in-1+3f9ac01be442", after: "2026-12+ab12cd34ef56", reports: 96, actions: [{ before: "allow", after: "allow", count: 40 }, { before: "review", after: "allow", count: 48 }, { before: "review", after: "block", count: 8 }], changes: jobs.slice(3, 8).map((one) => ({ job: one.id, tenant: "default", before: "review", after: "allow", because: ["nothing applies"] })), more_changes: 51 });
  }
  if (parts[1] === "webhooks") {
    if (req.method === "POST") {
      Object.assign(deliveries.find((one) => one.id === parts[3]), { state: "pending", attempts: 0, next_at: new Date().toISOString() });
      return send(res, 202, {});
    }
    return send(res, 200, { deliveries: deliveries.filter((one) => one.state === url.searchParams.get("state")), next: null });
  }
  const one = jobs.find((candidate) => candidate.id === parts[2]);
  if (!one) return problem(res, 404, "not_found", "there is no such job");
  const entry = reports.get(one.id);
  if (parts[1] === "report") {
    if (!entry) return problem(res, 404, "not_found", "there is no report");
    return send(res, 200, entry.report);
  }
  switch (parts[3]) {
    case undefined:
      if (req.method === "DELETE") {
        jobs.splice(jobs.indexOf(one), 1);
        res.writeHead(204);
        return res.end();
      }
      return send(res, 200, one);
    case "decisions":
      return send(res, 200, { decisions: decisions.get(one.id) ?? [] });
    case "deliveries":
      return send(res, 200, { deliveries: deliveries.filter((candidate) => candidate.job === one.id) });
    case "decision": {
      one.decision = { fake: null, note: "", ...JSON.parse(body), by: "desk", at: new Date().toISOString() };
      decisions.set(one.id, [...(decisions.get(one.id) ?? []), one.decision]);
      return send(res, 200, one);
    }
    case "media":
      return entry && one.has_media ? file(req, res, join(root, "demo", entry.demo)) : problem(res, 404, "not_found", "no media");
    case "previews": {
      const found = entry && previews(entry, parts[4] ?? "index");
      if (!found) return problem(res, 404, "not_found", "no previews");
      return parts[4] ? file(req, res, found) : send(res, 200, found);
    }
    case "events": {
      res.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-cache" });
      const event = (name, data) => res.write(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`);
      event("state", { state: one.state });
      if (one !== running) return undefined;
      const { segments } = demo["talking-head.mp4"];
      const timer = setInterval(() => {
        one.progress.media_ms = Math.min(24000, one.progress.media_ms + 1000);
        event("progress", one.progress);
        event("segments", { provisional: true, segments: segments.filter((x) => x.track !== "labels" && x.start_ms < one.progress.media_ms).map((x) => ({ ...x, end_ms: Math.min(x.end_ms, one.progress.media_ms), heat_map: undefined })) });
        if (one.progress.media_ms < 24000) return;
        clearInterval(timer);
        const like = jobs[3];
        Object.assign(one, { state: "done", outcome: like.outcome, summary: like.summary, finished_at: new Date().toISOString() });
        reports.set(one.id, { report: demo["talking-head.mp4"], demo: "talking-head.mp4" });
        event("done", {});
        res.end();
      }, 700);
      req.on("close", () => clearInterval(timer));
      return undefined;
    }
    default:
      return problem(res, 404, "not_found", "no such thing");
  }
});
server.listen(port, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/`));
