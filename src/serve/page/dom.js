// Elements without a framework. Text is always set as text, never as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "css") for (const [key, v] of Object.entries(value)) element.style.setProperty(key, v);
    else if (name === "value" || name === "checked" || name === "disabled" || name === "hidden" || name === "muted") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An HTML element: `h("p", { class: "hint", onclick: f }, "text", child)`. */
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** An SVG element. */
export function s(tag, props, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

export const byId = (id) => document.getElementById(id);

/** Says something to screen readers without moving the focus. */
export function announce(text) {
  const place = byId("announce");
  // The same text twice is read out only where the element was empty in between.
  place.textContent = "";
  setTimeout(() => (place.textContent = text), 50);
}

/** A short note at the edge of the window, also read out. */
export function toast(text, kind = "info", action = null) {
  const note = h("div", { class: `toast ${kind}` }, h("span", {}, text), action && h("button", { type: "button", class: "link", onclick: () => { note.remove(); action.run(); } }, action.text));
  byId("toasts").append(note);
  announce(text);
  setTimeout(() => note.remove(), action ? 12000 : 7000);
}

function recall(name) {
  try {
    return localStorage.getItem(`veriscope.${name}`);
  } catch (_) {
    return null;
  }
}

/** Whether single characters are commands: who speaks to the computer may want them off. */
export const shortcuts = { on: recall("shortcuts") !== "off" };

/** Whether keys belong to what has the focus rather than to the page. */
export function typing(event) {
  if (event.key.length === 1 && !shortcuts.on) return true;
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.defaultPrevented) return true;
  if (byId("dialog").open) return true;
  const at = event.target;
  return at instanceof HTMLElement && (at.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName) && !/^(radio|checkbox|range|button)$/.test(at.type));
}

export function remember(name, value) {
  try {
    localStorage.setItem(`veriscope.${name}`, value);
  } catch (_) {
    // Storage is forbidden here; the choice holds until the page is closed.
  }
}

/** The page's one modal dialog; the browser gives the focus back when it closes. `build(close)` gives its content; resolves with what `close` was given. */
export function modal(title, build) {
  const dialog = byId("dialog");
  if (dialog.open) return Promise.resolve(null);
  return new Promise((resolve) => {
    let result = null;
    const close = (value) => {
      result = value;
      dialog.close();
    };
    const heading = h("h2", { id: "dialog-title" }, title);
    dialog.replaceChildren(heading, build(close));
    // The event comes after the closing: by then the next dialog may be open, whose content and listener it must leave alone.
    const closed = () => {
      if (heading.isConnected && dialog.open) return;
      dialog.removeEventListener("close", closed);
      if (heading.isConnected) dialog.replaceChildren();
      resolve(result);
    };
    dialog.addEventListener("close", closed);
    dialog.showModal();
  });
}
