// The page's frame: session, header, routes by the address's fragment, help, language and colours.

import { api, onReachable } from "./api.js";
import { announce, byId, h, modal, remember, shortcuts, toast, typing } from "./dom.js";
import { language, setLanguage, t } from "./i18n.js";
import { notice, problemText } from "./chips.js";
import { DeliveriesView, PoliciesView } from "./admin.js";
import { JobView } from "./job.js";
import { QueueView } from "./queue.js";
import { loadWords } from "./words.js";

const main = byId("main");
let view = null;
let session = null;

/** Who is signed in: `tenant`, `scopes`, `authenticated` (false where the server asks for no keys). */
class Session {
  constructor(info) {
    Object.assign(this, info);
  }

  may(scope) {
    return this.scopes.includes(scope);
  }

  ended() {
    toast(t("error.401"), "bad");
    signIn();
  }
}

function route() {
  view?.stop();
  view = null;
  if (!session) return;
  const [path, query] = location.hash.replace(/^#/, "").split("?");
  const parts = (path || "/").split("/").filter(Boolean);
  if (!parts.length) view = new QueueView(main, new URLSearchParams(query ?? ""), session);
  else if (parts[0] === "job" && parts[1]) view = new JobView(main, decodeURIComponent(parts[1]), session);
  else if (parts[0] === "policies") view = new PoliciesView(main, session);
  else if (parts[0] === "webhooks") view = new DeliveriesView(main, session);
  else main.replaceChildren(notice(t("app.notFound"), null, { text: t("app.toQueue"), run: () => (location.hash = "#/") }));
  const title = { policies: t("policies.title"), webhooks: t("deliveries.title") }[parts[0]] ?? t("queue.title");
  document.title = `${title} – Veriscope`;
  for (const link of byId("top").querySelectorAll("nav a")) {
    const here = link.dataset.view === (parts[0] ?? "");
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

/** Where a link led: the new view's heading is what is read next. */
function routed() {
  route();
  window.scrollTo(0, 0);
  main.querySelector("h1")?.focus({ preventScroll: true });
}

function header() {
  byId("skip").textContent = t("app.skip");
  const dark = document.documentElement.dataset.theme === "dark";
  const link = (name, href, text) => h("a", { href, "data-view": name }, text);
  const languages = h("select", { "aria-label": t("app.language"), onchange: () => {
    setLanguage(languages.value);
    header();
    if (session) route();
    else signIn();
    byId("top").querySelector("select").focus();
  } }, [["en", "English"], ["zh", "简体中文"]].map(([value, text]) => h("option", { value, lang: value === "zh" ? "zh-CN" : "en", selected: language() === value }, text)));
  const signedIn = session?.authenticated;
  byId("top").replaceChildren(...[
    h("a", { class: "brand", href: "#/" }, h("img", { src: "/assets/icon.svg", alt: "", width: 24, height: 24 }), "Veriscope"),
    session && h("nav", { "aria-label": t("app.nav") }, link("", "#/", t("app.queue")), link("policies", "#/policies", t("app.policies")), session.may("admin") && link("webhooks", "#/webhooks", t("app.deliveries"))),
    h("div", { class: "top-tools" },
      signedIn && h("span", { class: "hint tenant" }, t("app.tenant", { tenant: session.tenant })),
      languages,
      h("button", { type: "button", class: "icon", "aria-label": dark ? t("app.light") : t("app.dark"), title: dark ? t("app.light") : t("app.dark"), onclick: theme }, dark ? "☀" : "☾"),
      h("button", { type: "button", class: "icon", "aria-label": t("app.help"), title: t("app.help"), "aria-keyshortcuts": "?", onclick: help }, "?"),
      signedIn && h("button", { type: "button", onclick: signOut }, t("app.signOut"))),
  ].filter(Boolean));
}

function theme() {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  remember("theme", root.dataset.theme);
  header();
  byId("top").querySelector(".icon").focus();
}

function help() {
  const keys = (title, list) => h("section", {}, h("h3", {}, title), h("dl", { class: "keys" }, list.map(([names, text]) => [h("dt", {}, names.split(" ").map((name) => [h("kbd", {}, name), " "])), h("dd", {}, text)])));
  const decisions = [["a", t("help.allow")], ["b", t("help.block")], ["e", t("help.escalate")]];
  modal(t("help.title"), (close) => h("div", {}, h("div", { class: "help" },
    keys(t("help.queue"), [["j", t("help.next")], ["k", t("help.previous")], ["Enter", t("help.open")], ["/", t("help.search")], ...decisions]),
    keys(t("help.job"), [["j", t("help.next")], ["k", t("help.previous")], ["q", t("help.back")], ["␣", t("help.play")], ["← →", t("help.seek")], ["[ ]", t("help.peak")], ...decisions]),
    keys(t("help.everywhere"), [["?", t("help.help")], ["Esc", t("help.escape")], ["d", t("help.theme")]])),
  h("p", { class: "hint" }, t("help.decision")),
  h("p", {}, h("label", {}, h("input", { type: "checkbox", checked: shortcuts.on, onchange: (event) => {
    shortcuts.on = event.target.checked;
    remember("shortcuts", shortcuts.on ? "on" : "off");
  } }), " ", t("help.single"))), h("div", { class: "buttons" }, h("button", { type: "button", autofocus: true, onclick: () => close(null) }, t("app.close")))));
}

function signIn() {
  view?.stop();
  view = null;
  session = null;
  header();
  document.title = `${t("signin.title")} – Veriscope`;
  const fault = h("p", { class: "field-error", id: "key-error", role: "alert" });
  const key = h("input", { id: "key", type: "password", autocomplete: "current-password", spellcheck: "false", "aria-describedby": "key-hint key-error", required: true });
  const form = h("form", { class: "panel sign-in", onsubmit: async (event) => {
    event.preventDefault();
    fault.textContent = "";
    try {
      await api.signIn(key.value.trim());
      await begin();
    } catch (problem) {
      fault.textContent = problem.status === 401 || problem.status === 403 ? t("signin.wrong") : problemText(problem);
      key.focus();
    }
  } }, h("h1", { tabindex: "-1" }, t("signin.title")), h("p", { id: "key-hint" }, t("signin.hint")), h("label", { for: "key" }, t("signin.key")), key, fault, h("div", { class: "buttons" }, h("button", { type: "submit", class: "primary" }, t("signin.go"))));
  main.replaceChildren(form);
  key.focus();
}

async function signOut() {
  try {
    await api.signOut();
  } catch (problem) {
    // A session that has ended is what was wanted.
    if (problem.status !== 401) {
      toast(problemText(problem), "bad");
      return;
    }
  }
  signIn();
}

async function begin() {
  session = new Session(await api.session());
  header();
  routed();
}

async function start() {
  header();
  main.replaceChildren(h("p", { class: "hint", role: "status" }, t("app.loading")));
  try {
    await loadWords();
    await begin();
  } catch (problem) {
    if (problem.status === 401) signIn();
    else main.replaceChildren(notice(t("error.title"), problem.status === undefined ? t("offline") : problemText(problem), { text: t("app.retry"), run: start }));
  }
}

onReachable((now) => {
  const banner = byId("banner");
  banner.hidden = now;
  banner.textContent = now ? "" : t("offline");
  if (now) announce(t("online"));
});
window.addEventListener("hashchange", routed);
document.addEventListener("keydown", (event) => {
  if (typing(event)) return;
  if (event.key === "?") help();
  else if (event.key === "d") theme();
  else return;
  event.preventDefault();
});
start();
