// The form that asks: a text or an image, which models, how many pages, which of them.

import { models } from "./client.js";
import { $, failed, h, skeletons, svg } from "./dom.js";

const MOST_BYTES = 20_000_000;
const KINDS = ["image/png", "image/jpeg", "image/webp"];

// The models that search. Until they are there `main` says that it waits, and where they do not come, why: then, and
// where the view was left meanwhile, there is nothing.
export async function modelsInto(main, again, signal) {
  main.replaceChildren(skeletons(1, "lines"));
  try {
    const found = await models();
    return signal.aborted ? null : found;
  } catch (error) {
    if (!signal.aborted) main.replaceChildren(failed(error, again));
    return null;
  }
}

// The image of the question. An address cannot hold it, so it lasts as long as the page.
let picked = null;
export const pickedImage = () => picked;
export async function pick(blob, name) {
  if (!KINDS.includes(blob.type)) throw new Error("Expected a PNG, JPEG or WebP image.");
  if (blob.size > MOST_BYTES) throw new Error(`The image has ${(blob.size / 1e6).toFixed(0)} MB; at most ${MOST_BYTES / 1e6} MB can be sent.`);
  const data = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error("The file cannot be read."));
    reader.readAsDataURL(blob);
  });
  picked = { data, name, id: String(Date.now()) };
  return picked;
}

// "year >= 2020, language = en|fr" → {year: {gte: 2020}, language: ["en", "fr"]}
export function filtersOf(text) {
  const found = {};
  for (const part of (text ?? "").split(",").map((one) => one.trim()).filter(Boolean)) {
    const match = part.match(/^([^<>=]+?)\s*(>=|<=|=)\s*(.+)$/);
    if (!match) throw new Error(`“${part}” is no filter; expected for example: language = en, year >= 2020`);
    const [, name, sign, value] = match;
    if (sign === "=") found[name] = value.includes("|") ? value.split("|").map((one) => valueOf(one.trim())) : valueOf(value);
    else found[name] = { ...found[name], [sign === ">=" ? "gte" : "lte"]: valueOf(value) };
  }
  return Object.keys(found).length ? found : undefined;
}

function valueOf(text) {
  if (text === "true" || text === "false") return text === "true";
  return text !== "" && Number.isFinite(Number(text)) ? Number(text) : text.replace(/^"(.*)"$/, "$1");
}

// What /v1/search is sent; null where nothing is asked yet.
export function asked(params, model) {
  const common = { model, top_k: Number(params.k) || 12, filters: filtersOf(params.filters) };
  if (params.image) return picked && picked.id === params.image ? { image: picked.data, ...common } : null;
  return params.q ? { query: params.q, ...common } : null;
}

const option = (value, text, chosen) => h("option", { value, selected: value === chosen }, text);
export const select = (name, label, options, chosen) =>
  h("label", { class: "field" }, h("span", {}, label), h("select", { name }, options.map(([value, text]) => option(value, text, chosen))));

// selects: names and labels of the choices of a model. submit is given the new settings.
export function questionForm(params, models, selects, submit) {
  const names = models.map((model) => [model.name, model.name]);
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const image = params.image ? picked : null;
  const send = (change) => {
    const data = Object.fromEntries([...new FormData(form)].filter(([, value]) => typeof value === "string"));
    const { q = "", ...rest } = { ...data, ...change };
    try {
      filtersOf(rest.filters);
      submit(rest.image ? { ...rest, q: undefined } : { ...rest, q: q.trim() });
    } catch (error) {
      say(error.message);
    }
  };
  const say = (text) => { problem.textContent = text; problem.hidden = false; };
  const take = (blob, name) => pick(blob, name).then(({ id }) => send({ image: id }), (error) => say(error.message));
  const file = h("input", { type: "file", accept: KINDS.join(","), class: "unseen", tabindex: -1, "aria-hidden": "true", onchange: () => file.files[0] && take(file.files[0], file.files[0].name) });
  const box = h("div", { class: "box" },
    glass(),
    image && h("span", { class: "chip" }, h("img", { src: image.data, alt: "" }), h("span", {}, image.name), h("button", { type: "button", "aria-label": "Ask without the image", onclick: () => send({ image: undefined }) }, "×")),
    h("input", { id: "question", name: "q", type: "search", value: params.q ?? "", placeholder: image ? "Asked with an image" : "Ask for a page …", "aria-label": "Question", autocomplete: "off", enterkeyhint: "search", maxlength: 20000 }),
    h("button", { type: "button", class: "icon", "aria-label": "Ask with an image", title: "Ask with an image (or paste one)", onclick: () => file.click() }, icon()),
    h("button", { class: "primary" }, "Search"));
  const filters = h("label", { class: "field wide" }, h("span", {}, "Only pages with"), h("input", { name: "filters", value: params.filters ?? "", placeholder: "year >= 2020, language = en|fr", autocomplete: "off", spellcheck: "false" }));
  const form = h("form", { class: "ask", role: "search", onsubmit: (event) => { event.preventDefault(); send({}); }, onpaste: (event) => {
    const blob = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (blob) { event.preventDefault(); take(blob, "pasted image"); }
  } },
    box, file,
    h("div", { class: "options" },
      selects.map(([name, label]) => select(name, label, names, params[name])),
      select("k", "Pages", [5, 12, 24, 50].map((n) => [String(n), String(n)]), params.k ?? "12"),
      filters),
    problem);
  form.addEventListener("change", (event) => {
    if (event.target.matches("select") && ($("#question", form).value.trim() || image)) send(image ? { image: image && params.image } : {});
  });
  return form;
}

const drawn = (...paths) => svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, paths.map((d) => svg("path", { d })));
const glass = () => drawn("M10.5 4a6.5 6.5 0 1 0 0 13a6.5 6.5 0 1 0 0-13", "M15.5 15.5 20.5 20.5");
const icon = () => drawn("M4 5.5h16v13H4z", "M4.5 16l5-5 4 4 2.5-2.5 3.5 3.5", "M15.5 8.5v1");
