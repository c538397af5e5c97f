// The page against the real server with the demo's media: from the upload to the decision.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { accessible, fits, open, root, serve, shot, start, stop, worded } from "./harness.mjs";

const veriscope = process.env.VERISCOPE_BIN;
assert.ok(veriscope, "VERISCOPE_BIN names the program");
const data = mkdtempSync(join(tmpdir(), "veriscope-page-"));
const ids = {};
let server;

async function submit(name, bytes = readFileSync(join(root, "demo", name))) {
  const form = new FormData();
  form.append("priority", "normal");
  form.append("reference", `ref-${name}`);
  form.append("file", new Blob([bytes]), name);
  const response = await fetch(`${server.base}v1/jobs`, { method: "POST", body: form });
  assert.ok(response.status === 202 || response.status === 200, `${response.status} ${await response.clone().text()}`);
  ids[name] = (await response.json()).id;
}

async function finished(name) {
  for (;;) {
    const job = await (await fetch(`${server.base}v1/jobs/${ids[name]}`)).json();
    if (["done", "failed", "cancelled"].includes(job.state)) return job;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

/** For how many seconds media that is judged from now on is kept. */
async function keepMedia(seconds) {
  execFileSync(veriscope, ["tenants", "--data", data, "set", "default", "--keep-media", String(seconds)]);
  // The server takes it up within two seconds.
  await new Promise((resolve) => setTimeout(resolve, 2500));
}

before(async () => {
  server = await serve(veriscope, ["serve", "--listen", "127.0.0.1:0", "--data", data, "--no-auth", "--weights", join(root, "weights"), ...(process.env.VERISCOPE_SERVE_ARGS?.split(" ") ?? [])]);
  await start();
});
after(async () => {
  await stop();
  await server?.end();
  rmSync(data, { recursive: true, force: true });
});

test("the page is served with a strict policy and is asked for anew", async () => {
  const response = await fetch(server.base);
  const policy = response.headers.get("content-security-policy");
  assert.match(policy, /default-src 'self'/);
  assert.doesNotMatch(policy, /unsafe/);
  assert.equal(response.headers.get("x-content-type-options"), "nosniff");
  const again = await fetch(server.base, { headers: { "If-None-Match": response.headers.get("etag") } });
  assert.equal(again.status, 304);
});

test("an empty queue says how to fill it; a new job appears by itself and is followed to its end", { timeout: 600000 }, async () => {
  const { page, close } = await open(server.base);
  await page.getByText("No jobs yet").waitFor();
  await accessible(page);
  await submit("label-stripped.mp4");
  await page.getByRole("link", { name: "label-stripped.mp4" }).click({ timeout: 15000 });
  await page.locator(".outcome .badge").waitFor({ timeout: 500000 });
  await close();
});

test("all media of the demo is judged", { timeout: 600000 }, async () => {
  // What was judged before was not kept.
  await keepMedia(86400);
  await submit("talking-head.mp4");
  await submit("label-intact.png");
  await submit("cut.png", readFileSync(join(root, "demo/label-intact.png")).subarray(0, 200));
  for (const name of Object.keys(ids)) assert.equal((await finished(name)).state, name === "cut.png" ? "failed" : "done", name);
});

const TEXT = {
  en: { face: /^Face 1/, voice: /^Voice 1/, stripped: "AI label" },
  zh: { face: /^人脸 1/, voice: /^声音 1/, stripped: "AI 标识" },
};
for (const lang of ["en", "zh"]) {
  for (const width of [1280, 390]) {
    test(`queue and jobs: ${lang}, ${width} px`, { timeout: 120000 }, async () => {
      const { page, close } = await open(server.base, { lang, width });
      const look = async (name) => {
        await page.waitForFunction(() => [...document.images].every((image) => image.complete));
        await accessible(page);
        await fits(page);
      await worded(page);
        await shot(page, `server-${name}-${lang}-${width}`);
      };
      await page.locator(".jobs tbody tr").nth(3).waitFor();
      await look("queue");

      await page.getByRole("link", { name: "talking-head.mp4" }).click();
      await page.getByRole("group", { name: TEXT[lang].face }).waitFor();
      await page.getByRole("group", { name: TEXT[lang].voice }).waitFor();
      assert.ok(await page.locator(".segment.fake").count() >= 1);
      const strip = page.locator(".filmstrip img").first();
      await page.waitForFunction(() => document.querySelector(".filmstrip img")?.naturalWidth > 0);
      assert.ok(await strip.evaluate((image) => image.naturalWidth) > 0);
      await page.waitForFunction(() => document.querySelector(".spectrogram img")?.naturalWidth > 0);
      await page.locator(".heat canvas").waitFor();
      assert.equal(await page.locator(".heat .hint").count(), 1, "there is a crop under the heat map");
      await look("talking-head");

      await page.goto(`${server.base}#/job/${ids["label-stripped.mp4"]}`);
      await page.locator(".strength-strong").waitFor();
      assert.match(await page.locator("section[aria-labelledby=evidence-title]").textContent(), new RegExp(TEXT[lang].stripped));
      await look("label-stripped");
      await page.goto(`${server.base}#/job/${ids["label-intact.png"]}`);
      await page.locator(".says-ai").waitFor();
      await look("label-intact");
      await page.goto(`${server.base}#/job/${ids["cut.png"]}`);
      await page.locator(".fault").waitFor();
      await look("cut");
      await page.goto(`${server.base}#/policies`);
      await page.locator(".rules").waitFor();
      await look("policies");

      // The outcome's lines are said in the reader's language.
      await page.goto(`${server.base}#/job/${ids["talking-head.mp4"]}`);
      await page.locator(".outcome li").first().waitFor();
      if (lang === "zh") assert.equal(await page.locator(".outcome li [lang=en]").count(), 0, await page.locator(".outcome").textContent());
      await close();
    });
  }
}

test("keyboard only: from the queue to a decision, its change, and back", { timeout: 120000 }, async () => {
  const { page, close } = await open(server.base);
  await page.locator(".jobs tbody tr").nth(3).waitFor();
  const press = (key) => page.keyboard.press(key);
  const focus = () => page.evaluate(() => document.activeElement.textContent);
  await press("?");
  await page.getByRole("dialog").waitFor();
  await accessible(page);
  await press("Escape");
  await press("/");
  await page.keyboard.type("talking");
  await page.waitForFunction(() => document.querySelectorAll(".jobs tbody tr").length === 1);
  await press("Escape");
  assert.equal(await focus(), "talking-head.mp4");
  await press("Enter");
  await page.locator(".outcome .badge").waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.tagName), "H1");
  await page.waitForFunction(() => document.querySelector("video")?.readyState > 0);
  await press("ArrowRight");
  const before = await page.locator("#position").inputValue();
  await press("Shift+ArrowLeft");
  assert.ok(Number(await page.locator("#position").inputValue()) <= Number(before) - 4900);
  await press("]");
  await page.locator(".segment[aria-pressed=true]").waitFor();
  await press("b");
  await page.getByRole("dialog", { name: "Block this?" }).waitFor();
  await accessible(page);
  await press("Escape");
  assert.equal((await finished("talking-head.mp4")).decision, null, "Escape decides nothing");
  // A dialog that opens before the last one's event of closing has come.
  await press("b");
  await page.getByRole("dialog").waitFor();
  await page.evaluate(() => {
    document.getElementById("dialog").close();
    document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: "b", bubbles: true, cancelable: true }));
  });
  await page.getByRole("dialog").waitFor();
  await page.getByRole("dialog").getByLabel("yes").focus();
  await press("Space");
  await page.getByRole("dialog").getByLabel("Note (kept for the audit)").focus();
  await page.keyboard.type("The edge of the face flickers.");
  await press("Tab");
  await press("Enter");
  await page.locator(".history li").first().waitFor();
  let job = await finished("talking-head.mp4");
  assert.deepEqual([job.decision.verdict, job.decision.fake, job.decision.note], ["block", true, "The edge of the face flickers."]);
  await press("e");
  await page.getByRole("dialog").waitFor();
  await press("Enter");
  await page.locator(".history li").nth(1).waitFor();
  job = await finished("talking-head.mp4");
  assert.equal(job.decision.verdict, "escalate");
  await press("q");
  await page.locator(".jobs tbody tr").first().waitFor();
  assert.match(page.url(), /q=talking/);
  await page.waitForFunction(() => document.activeElement.textContent === "talking-head.mp4");
  await press("a");
  await page.getByRole("dialog", { name: "Allow this?" }).waitFor();
  await press("Enter");
  await page.locator(".jobs .verdict-allow").waitFor();
  await close();
});

test("a policy is tried over the stored reports", { timeout: 60000 }, async () => {
  const { page, close } = await open(server.base, { hash: "#/policies" });
  await page.locator("#toml").fill("not TOML");
  await page.locator("form button[type=submit]").click();
  await page.locator(".fault pre").waitFor();
  await page.locator("#toml").fill('version = "strict"\n[default]\nblock = { face-swap = 0.01, voice-clone = 0.01, label-strip = 0.01 }\n');
  await page.locator("form button[type=submit]").click();
  await page.getByRole("heading", { name: "What would change" }).waitFor();
  assert.ok(await page.locator(".notes li").count() >= 1);
  await accessible(page);
  await close(/status of 4\d\d/);
});

test("the report to print and as JSON, and deleting a job", { timeout: 60000 }, async () => {
  const { page, close } = await open(server.base, { hash: `#/job/${ids["label-intact.png"]}` });
  const [report] = await Promise.all([page.waitForEvent("popup"), page.getByRole("link", { name: "Report to print" }).click()]);
  await report.waitForLoadState();
  assert.match(await report.content(), /label-intact\.png/);
  await report.close();
  const json = await page.getByRole("link", { name: "Report as JSON" }).getAttribute("href");
  assert.equal((await (await fetch(new URL(json, server.base))).json()).schema_version, 1);
  await page.getByRole("button", { name: "Delete this job" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete this job" }).click();
  await page.locator(".jobs tbody tr").first().waitFor();
  assert.equal((await fetch(`${server.base}v1/jobs/${ids["label-intact.png"]}`)).status, 404);
  await close();
});

test("stills stand in for media that was deleted", { timeout: 60000 }, async () => {
  assert.equal((await finished("label-stripped.mp4")).has_media, false);
  const { page, close } = await open(server.base, { hash: `#/job/${ids["label-stripped.mp4"]}` });
  await page.waitForFunction(() => document.querySelector(".frame.stills img")?.naturalWidth > 0);
  await page.locator("#position").fill("4000");
  assert.match(await page.locator(".frame.stills img").getAttribute("alt"), /Still at 0:0[345]/);
  await close();
});
