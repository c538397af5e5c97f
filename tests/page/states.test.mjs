// The page against mock.mjs: states that a real server is hard to bring into.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { join } from "node:path";
import { accessible, fits, here, open, serve, shot, start, stop, worded } from "./harness.mjs";

let mock;
let locked;
let jobs;

before(async () => {
  mock = await serve("node", [join(here, "mock.mjs"), "0"]);
  locked = await serve("node", [join(here, "mock.mjs"), "0", "--auth"]);
  jobs = (await (await fetch(`${mock.base}v1/jobs?limit=20`)).json()).jobs;
  await start();
});
after(async () => {
  await stop();
  await Promise.all([mock.end(), locked.end()]);
});

const id = (name) => jobs.find((job) => (job.source.name ?? job.source.url).includes(name)).id;
const job = (name) => `#/job/${id(name)}`;

test("both languages have every string", async () => {
  const { page, close } = await open(mock.base);
  assert.deepEqual(await page.evaluate(async () => (await import("/assets/i18n.js")).missing()), []);
  await close();
});

for (const [lang, width, dark] of [["en", 1280, false], ["zh", 1280, true], ["en", 390, true], ["zh", 390, false]]) {
  test(`queue, job, policies and webhooks: ${lang}, ${width} px, ${dark ? "dark" : "light"}`, async () => {
    const { page, close } = await open(mock.base, { lang, width, dark });
    const look = async (name) => {
      await accessible(page);
      await fits(page);
      await worded(page);
      await shot(page, `${name}-${lang}-${width}-${dark ? "dark" : "light"}`);
    };
    await page.locator(".jobs tbody tr").nth(24).waitFor();
    assert.equal(await page.locator("html").getAttribute("lang"), lang === "zh" ? "zh-CN" : "en");
    assert.equal(await page.locator("html").getAttribute("data-theme"), dark ? "dark" : "light");
    assert.equal(await page.getByRole("row").count(), 26, "rows of the table, its head included");
    await look("queue");

    await page.goto(mock.base + job("crowd"));
    await page.locator(".lane").first().waitFor();
    assert.equal(await page.locator(".lane").count(), 12);
    await page.getByRole("button", { name: lang === "zh" ? "显示全部 18 条轨道" : "Show all 18 lanes" }).click();
    assert.equal(await page.locator(".lane").count(), 18);
    // Every verdict is told by its pattern, its word and its label for screen readers.
    for (const kind of ["fake", "undetermined", "bonafide", "unjudged"]) assert.ok(await page.locator(`.segment.${kind}`).count() > 0, kind);
    const said = await page.locator(".segment.unjudged").first().getAttribute("aria-label");
    assert.match(said, lang === "zh" ? /未检测.*人脸太小/ : /not judged.*too small/i);
    // The picture of the moment is there, the region of the erased mark lies on it.
    await page.locator(".region-picture img").first().waitFor();
    assert.ok(await page.locator(".region-picture rect.region").count() >= 2);
    await page.locator("summary h2").click();
    await page.locator(".wide tbody tr").nth(21).waitFor();
    await page.waitForFunction(() => [...document.images].every((image) => image.complete));
    await look("crowd");

    await page.goto(mock.base + job("unknown origin"));
    await page.locator(".fault").waitFor();
    assert.match(await page.locator(".fault").textContent(), lang === "zh" ? /无法检测/ : /could not be judged/);
    await look("failed");
    await page.goto(mock.base + job("half.mp4"));
    await page.locator(".frame.stills img").waitFor();
    assert.match(await page.locator(".fault").textContent(), lang === "zh" ? /只检测了一部分/ : /Only a part/);
    // The most suspicious stretch is told in detail from the start, here the report's first.
    assert.match(await page.locator("#detail").textContent(), /92 %/);
    await look("partial");
    await page.goto(mock.base + job("label-intact.png"));
    await page.locator(".says-ai").waitFor();
    await look("picture");

    await page.goto(mock.base + job("given up"));
    await page.getByRole("heading", { name: "given up.mp4" }).waitFor();
    await look("cancelled");

    await page.goto(`${mock.base}#/policies`);
    await page.locator(".rules").waitFor();
    await page.locator("#toml").fill("nothing");
    await page.locator("form button[type=submit]").click();
    await page.locator(".fault").waitFor();
    await page.locator("#toml").fill('version = "2026-12"');
    await page.locator("form button[type=submit]").click();
    await page.locator(".notes").waitFor();
    await look("policies");
    await page.goto(`${mock.base}#/webhooks`);
    await page.locator("tbody tr").first().waitFor();
    await look("webhooks");
    await close(/status of 400/);
  });
}

test("a lane's stretches are gone through by arrow keys, and Enter goes to the strongest moment", async () => {
  const { page, close } = await open(mock.base, { hash: job("talking-head") });
  const lane = page.getByRole("group", { name: /^Face 1/ });
  await lane.locator(".segment").first().focus();
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("Enter");
  assert.match(await page.evaluate(() => document.activeElement.getAttribute("aria-label")), /8\.0 .*swapped, 99 % swapped/);
  await page.waitForFunction(() => Math.abs(document.querySelector("video").currentTime - 8.75) < 0.1);
  assert.equal(await page.locator("#position").inputValue(), "8800");
  assert.match(await page.locator("#detail").textContent(), /Altered mostly/);
  // The heat map is drawn over the face: redder than the crop alone.
  const mean = await page.locator(".heat canvas").evaluate((canvas) => {
    const { data } = canvas.getContext("2d").getImageData(canvas.width / 3, canvas.height / 2, canvas.width / 3, canvas.height / 5);
    const sums = [0, 0, 0];
    for (let i = 0; i < data.length; i += 1) if (i % 4 < 3) sums[i % 4] += data[i];
    return sums.map((sum) => sum / (data.length / 4));
  });
  assert.ok(mean[0] > mean[1] + 60, `mean colour ${mean}`);
  await close();
});

test("a click seeks to its moment; the media's time moves the playhead", async () => {
  const { page, close } = await open(mock.base, { hash: job("talking-head") });
  const row = page.locator(".lane-row").first();
  await row.waitFor();
  await page.waitForFunction(() => document.querySelector("video")?.readyState > 0);
  await row.scrollIntoViewIfNeeded();
  const box = await row.boundingBox();
  await page.mouse.click(box.x + box.width / 4, box.y + 40);
  await page.waitForFunction(() => Math.abs(document.querySelector("video").currentTime - 6) < 0.3);
  await page.evaluate(() => (document.querySelector("video").currentTime = 18));
  await page.waitForFunction(() => {
    const head = document.querySelector(".playhead").getBoundingClientRect();
    const body = document.querySelector(".tl-body").getBoundingClientRect();
    return Math.abs((head.left + 1 - body.left) / body.width - 18 / 24) < 0.02;
  });
  await page.getByRole("button", { name: "Zoom in" }).click();
  assert.ok(await page.evaluate(() => document.querySelector(".tl-body").offsetWidth > document.querySelector(".tl-scroll").clientWidth * 1.9));
  await close();
});

test("a running job shows what is found as it is found, then its report", async () => {
  const { page, close } = await open(mock.base, { hash: job("live upload") });
  await page.getByRole("group", { name: /^Face 1/ }).waitFor();
  assert.match(await page.locator(".lanes .hint").first().textContent(), /can still change/);
  await accessible(page);
  await page.locator("video").waitFor({ timeout: 30000 });
  await page.locator(".outcome .badge").waitFor();
  assert.match(await page.locator("#announce").textContent(), /finished: Block/);
  await close();
});

test("filters, search and paging", async () => {
  const { page, close } = await open(mock.base);
  const rows = page.locator(".jobs tbody tr");
  await rows.nth(24).waitFor();
  await page.getByRole("button", { name: "Show more" }).click();
  await rows.nth(49).waitFor();
  assert.ok(await page.evaluate(() => document.activeElement.closest("tr") === document.querySelectorAll(".jobs tbody tr")[25]), "the focus is on the first new row");
  await page.getByLabel("State").selectOption("failed");
  await page.waitForFunction(() => document.querySelectorAll(".jobs tbody tr").length === 1);
  assert.match(page.url(), /state=failed/);
  await page.getByLabel(/^Search/).fill("nothing like this");
  await page.getByText("No job fits these filters.").waitFor();
  await page.getByRole("button", { name: "Clear the filters" }).first().click();
  await rows.nth(24).waitFor();
  // The address alone brings the filters back.
  await page.goto(`${mock.base}#/?priority=live`);
  await page.waitForFunction(() => document.querySelectorAll(".jobs tbody tr").length === 1);
  assert.equal(await page.getByLabel("Priority").inputValue(), "live");
  await close();
});

test("a dead webhook is sent again", async () => {
  const { page, close } = await open(mock.base, { hash: "#/webhooks" });
  await page.getByRole("button", { name: "Send again" }).first().click();
  await page.getByText("It will be sent again.").first().waitFor();
  await page.waitForFunction(() => document.querySelectorAll("tbody tr").length === 2);
  await close();
});

test("a job shows its webhook's calls; one that was given up is sent again by keyboard", async (test) => {
  for (const lang of ["en", "zh"]) {
    // Each time on a stand-in that nobody sent anything to.
    const own = await serve("node", [join(here, "mock.mjs"), "0"]);
    test.after(() => own.end());
    const { page, close } = await open(own.base, { lang, width: 390 });
    const listed = (await (await fetch(`${own.base}v1/jobs?limit=20`)).json()).jobs;
    await page.goto(`${own.base}#/job/${listed.find((one) => one.source.name === "talking-head.mp4").id}`);
    const panel = page.getByRole("region", { name: lang === "zh" ? "关于此任务的回调" : "Webhook calls about this job" });
    await panel.waitFor();
    const items = panel.locator("li.item");
    const has = async (n, ...texts) => {
      const said = (await items.nth(n).innerText()).replace(/\s+/g, " ");
      for (const text of texts) assert.ok(said.includes(text), `${text} in ${said}`);
    };
    assert.equal(await items.count(), 4);
    if (lang === "zh") {
      await has(0, "已作决定 待发送", "尝试次数 3", "下次尝试", "最近的错误 status: the receiver answered 503");
      await has(1, "已作决定 已放弃", "尝试次数 32", "最近的错误 connect_failed");
      await has(2, "已作决定 已送达", "尝试次数 1");
      await has(3, "任务完成 已放弃", "重新发送");
    } else {
      await has(0, "decision made pending", "Tries 3", "Next try", "Last fault status: the receiver answered 503");
      await has(1, "decision made given up", "Tries 32", "Last fault connect_failed");
      await has(2, "decision made delivered", "Tries 1");
      await has(3, "job done given up", "Send again");
    }
    assert.doesNotMatch(await items.nth(2).innerText(), /Last fault|Next try|Send again|最近的错误|下次尝试|重新发送/);
    await page.waitForFunction(() => [...document.images].every((image) => image.complete));
    await accessible(page);
    await fits(page);
    await worded(page);
    await panel.scrollIntoViewIfNeeded();
    await shot(page, `job-deliveries-${lang}-390`);
    // From the last link before it, key by key.
    const again = panel.getByRole("button");
    assert.equal(await again.count(), 2);
    await page.locator(".links a").last().focus();
    const press = async (key, until) => {
      for (let i = 0; i < 5; i += 1) {
        await page.keyboard.press(key);
        if (await until()) return;
      }
      assert.fail(`${key} does not lead there`);
    };
    const onButton = (n) => () => again.nth(n).evaluate((button) => button === document.activeElement);
    await press("Tab", onButton(0));
    await press("Tab", onButton(1));
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelectorAll(".delivery-pending").length === 2);
    assert.equal(await again.count(), 1);
    assert.equal(await page.evaluate(() => document.activeElement.id), "deliveries-title", "the focus is not lost");
    await page.locator("#announce", { hasText: lang === "zh" ? "将重新发送" : "It will be sent again" }).waitFor({ state: "attached" });
    const kept = (await (await fetch(`${own.base}v1/webhooks/deliveries?state=dead`)).json()).deliveries;
    assert.deepEqual(kept.map((one) => one.id), ["d-3", "d-0"]);
    await close();
  }
});

test("who may only read sees the calls and sends none; a job without calls says nothing of them", async () => {
  const { page, close } = await open(locked.base);
  await page.getByLabel("API key").fill("vs_reader");
  await page.keyboard.press("Enter");
  await page.getByRole("link", { name: "talking-head.mp4" }).first().click();
  const panel = page.getByRole("region", { name: "Webhook calls about this job" });
  await panel.waitFor();
  assert.equal(await panel.locator(".delivery-dead").count(), 2);
  assert.equal(await panel.getByRole("button").count(), 0);
  await page.waitForFunction(() => [...document.images].every((image) => image.complete));
  await page.goto(locked.base + job("label-stripped"));
  await page.getByRole("heading", { name: "label-stripped.mp4" }).waitFor();
  await page.locator("#facts-title").waitFor();
  // Until its calls, of which there are none, were asked for.
  await page.waitForLoadState("networkidle");
  assert.equal(await panel.count(), 0);
  await close(/status of 401/);
});

test("the server goes away and comes back", async () => {
  const { page, close } = await open(mock.base);
  await page.locator(".jobs tbody tr").first().waitFor();
  await page.context().setOffline(true);
  await page.locator("#banner").waitFor({ timeout: 12000 });
  assert.ok(await page.locator(".jobs tbody tr").count() > 0, "what was there is kept");
  await accessible(page);
  await page.context().setOffline(false);
  await page.locator("#banner").waitFor({ state: "hidden", timeout: 12000 });
  await close(/ERR_INTERNET_DISCONNECTED/);
});

test("sign in and out, with a wrong key first", async () => {
  const { page, close } = await open(locked.base, { width: 390 });
  await page.getByLabel("API key").fill("wrong");
  await accessible(page);
  await page.keyboard.press("Enter");
  await page.getByText("This key is not known").waitFor();
  await page.getByLabel("API key").fill("vs_test");
  await page.keyboard.press("Enter");
  await page.locator(".jobs tbody tr").first().waitFor();
  await fits(page);
  await worded(page);
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("API key").waitFor();
  await page.reload();
  await page.getByLabel("API key").waitFor();
  await close(/status of 401/);
});

test("language and colours are remembered", async () => {
  const { page, close } = await open(mock.base);
  await page.locator(".jobs tbody tr").first().waitFor();
  await page.getByLabel("Language").selectOption("zh");
  await page.getByRole("heading", { name: "队列" }).waitFor();
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.reload();
  await page.getByRole("heading", { name: "队列" }).waitFor();
  assert.equal(await page.locator("html").getAttribute("lang"), "zh-CN");
  assert.equal(await page.locator("html").getAttribute("data-theme"), "dark");
  await close();
});

test("single characters can be kept from being commands", async () => {
  const { page, close } = await open(mock.base);
  await page.locator(".jobs tbody tr").first().waitFor();
  await page.keyboard.press("?");
  await page.getByLabel("Single characters are commands").uncheck();
  await page.keyboard.press("Escape");
  await page.reload();
  await page.locator(".jobs tbody tr").first().waitFor();
  await page.keyboard.press("?");
  assert.equal(await page.getByRole("dialog").count(), 0);
  await page.getByRole("button", { name: "Keyboard help" }).click();
  await page.getByLabel("Single characters are commands").check();
  await page.keyboard.press("Escape");
  await page.keyboard.press("j");
  assert.equal(await page.evaluate(() => document.activeElement.closest("tr") !== null), true);
  await close();
});

test("what is not there", async () => {
  const { page, close } = await open(mock.base, { hash: "#/job/01936f2e-ffff-7000-8000-000000000000" });
  await page.getByText("There is no such job").waitFor();
  await page.goto(`${mock.base}#/nowhere`);
  await page.getByText("There is no such page.").waitFor();
  await close(/status of 404/);
});
