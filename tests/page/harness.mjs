// What the page's tests share: a real Chromium, and the rule that nothing may go wrong unseen.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const here = fileURLToPath(new URL(".", import.meta.url));
export const root = join(here, "../..");

const tools = process.env.VERISCOPE_PAGE_TOOLS;
assert.ok(tools, "VERISCOPE_PAGE_TOOLS names the folder with playwright-core and axe-core: run scripts/serve/page-test");
const require = createRequire(join(tools, "package.json"));
const { chromium } = require("playwright-core");
const axe = require.resolve("axe-core/axe.min.js");

let browser;

export async function start() {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
}

export const stop = () => browser.close();

/** A page of its own session. What goes wrong in it is gathered in `faults`, which `close` wants empty. */
export async function open(base, { lang = "en", width = 1280, dark = false, hash = "#/" } = {}) {
  const context = await browser.newContext({
    viewport: { width, height: width < 500 ? 844 : 900 }, locale: lang === "zh" ? "zh-CN" : "en-GB", colorScheme: dark ? "dark" : "light",
    reducedMotion: "reduce", hasTouch: width < 500,
  });
  await context.addInitScript(() => {
    globalThis.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => globalThis.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
  });
  const page = await context.newPage();
  const faults = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && faults.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => faults.push(String(error.stack)));
  page.on("request", (request) => request.url().startsWith(base) || faults.push(`asked for ${request.url()}`));
  await page.goto(base + hash);
  return {
    page, faults,
    /** Ends the session; `allow`: faults that the test brought about. */
    async close(allow = /^$/) {
      const violations = await page.evaluate(() => globalThis.violations);
      await context.close();
      assert.deepEqual([...faults.filter((fault) => !allow.test(fault)), ...violations], []);
    },
  };
}

/** Rules of WCAG 2.2 A and AA and good practice; every violation with its places. */
export async function accessible(page) {
  // Injected by the debugger's protocol, which the page's policy does not bind.
  const source = (await import("node:fs")).readFileSync(axe, "utf8");
  await page.evaluate(source);
  const found = await page.evaluate(async () => {
    const { violations } = await globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] });
    return violations.map((one) => `${one.id}: ${one.nodes.map((node) => `${node.target} (${node.failureSummary.replace(/\s+/g, " ")})`).join("; ")}`);
  });
  assert.deepEqual(found, []);
}

/** Nothing sticks out to the right. */
export async function fits(page) {
  const [scroll, width] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  assert.ok(scroll <= width, `the page is ${scroll} wide in a window of ${width}`);
}

/** No key of a string stands where its words should. */
export async function worded(page) {
  const keys = await page.evaluate(async () => {
    const said = document.body.innerText;
    return (said.match(/\b[a-z]+\.[a-zA-Z.]+\b/g) ?? []).filter((word) => /^(app|queue|signin|state|priority|source|decide|job|player|lanes|legend|segment|likelihood|fake|bonafide|heat|labels|evidence|reasons|time|policies|deliveries|event|admin|help|error)\./.test(word));
  });
  assert.deepEqual(keys, []);
}

/** Keeps a screenshot where VERISCOPE_SHOTS names a folder. */
export async function shot(page, name) {
  if (process.env.VERISCOPE_SHOTS) await page.screenshot({ path: join(process.env.VERISCOPE_SHOTS, `${name}.png`), fullPage: true });
}

/** A process that says its address on stdout; resolves with `{ base, end }`. */
export function serve(command, args, line = /(http:\/\/\S+?)\/?\s/) {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
  const ended = new Promise((resolve) => child.on("exit", resolve));
  return new Promise((resolve, reject) => {
    let said = "";
    const hear = (chunk) => {
      said += chunk;
      const found = line.exec(said);
      if (found) resolve({ base: `${found[1]}/`, end: () => (child.kill("SIGTERM"), ended) });
    };
    child.stdout.on("data", hear);
    child.stderr.on("data", hear);
    ended.then((code) => reject(new Error(`${command} ended with ${code}: ${said}`)));
  });
}
