// Where the page is: a view and its settings, in the address after "#", so that a link opens the same again.

import { browseView } from "./browse.js";
import { compareView } from "./compare.js";
import { $, $$ } from "./dom.js";
import { searchView } from "./search.js";
import { Viewer } from "./viewer.js";
import { worstView } from "./worst.js";

const VIEWS = { search: searchView, compare: compareView, worst: worstView, browse: browseView };
const TITLES = { search: "Search", compare: "Compare", worst: "Worst queries", browse: "Corpus" };
const LOOKING = ["doc", "with", "word", "opacity"];

function read() {
  const [path, rest = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const params = Object.fromEntries(new URLSearchParams(rest));
  return { view: Object.hasOwn(VIEWS, path) ? path : "search", params };
}

function address(view, params) {
  const rest = new URLSearchParams(Object.entries(params).filter(([, value]) => value !== undefined && value !== null && value !== ""));
  return `#/${view}${rest.size ? `?${rest}` : ""}`;
}

// The same settings can be written in two ways: a space is %20 or +.
const same = (hash) => hash === address(read().view, read().params);

const without = (params) => Object.fromEntries(Object.entries(params).filter(([name]) => !LOOKING.includes(name)));

let shown = null;
let ending = null;

const app = {
  address,
  params: () => read().params,
  // Another view, or the same with other settings.
  go(view, params, { replace = false, again = false } = {}) {
    const hash = address(view, params);
    if (again) shown = null;
    if (hash !== location.hash) history[replace || again && same(hash) ? "replaceState" : "pushState"](null, "", hash);
    else if (!again) return;
    apply();
  },
  // Settings of the large view only.
  look(change, { replace = true } = {}) {
    const { view, params } = read();
    app.go(view, { ...params, ...change }, { replace });
  },
  viewer: null,
};
app.viewer = new Viewer($("#viewer"), app);

function apply() {
  const { view, params } = read();
  const base = address(view, without(params));
  if (base !== shown) {
    shown = base;
    ending?.abort();
    ending = new AbortController();
    app.viewer.forget();
    for (const link of $$("nav a")) link.toggleAttribute("aria-current", link.dataset.view === view);
    for (const link of $$("nav a[aria-current]")) link.setAttribute("aria-current", "page");
    document.title = `${params.q ? `${params.q} · ` : ""}${TITLES[view]} · raylib explorer`;
    VIEWS[view](app, $("#main"), without(params), ending.signal);
  }
  app.viewer.follow(params);
}

addEventListener("hashchange", apply);
addEventListener("popstate", apply);

$("#skip").addEventListener("click", () => $("#main").focus());
$("#keys").addEventListener("click", () => $("#help").showModal());

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select") || $("dialog[open]")) return;
  if (event.key === "?") $("#help").showModal();
  if (event.key !== "/") return;
  event.preventDefault();
  const field = $("#question");
  if (field) field.select();
  else app.go("search", {});
});

apply();
