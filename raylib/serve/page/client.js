// What the server is asked, with a token where it wants one, again where it is busy.

import { $, h } from "./dom.js";

const KEY = "raylib-token";
const TRIES = 5;
const IMAGES = 400;
let asking = null;

export class ServerError extends Error {
  constructor(text, status) {
    super(text);
    this.status = status;
  }
}

export async function request(path, { method = "GET", body, signal, blob = false } = {}) {
  for (let tries = 1; ; tries++) {
    const token = sessionStorage.getItem(KEY);
    const headers = { ...(token && { Authorization: `Bearer ${token}` }), ...(body && { "Content-Type": "application/json" }) };
    let response;
    try {
      response = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServerError("The server cannot be reached. Is it still running?", 0);
    }
    if (response.ok) return blob ? response.blob() : response.json();
    if (response.status === 401) {
      // Another request may have been given a new token meanwhile.
      if (sessionStorage.getItem(KEY) === token) await askToken(Boolean(token));
      continue;
    }
    if (response.status === 429 && tries < TRIES) {
      await wait(Math.min(Math.max(Number(response.headers.get("Retry-After")) || 1, 0.2), 30), signal);
      continue;
    }
    throw new ServerError(await reason(response), response.status);
  }
}

async function reason(response) {
  const found = await response.json().catch(() => null);
  const said = found?.error?.message ?? found?.detail;
  if (typeof said === "string") return said;
  if (response.status === 429) return "The server is busy. Ask again a little later.";
  return `The server answered ${response.status}.`;
}

async function wait(seconds, signal) {
  const toast = $("#toast");
  toast.textContent = `The server is busy. Asking again in ${Math.ceil(seconds)} s …`;
  toast.hidden = false;
  try {
    await new Promise((resolve, reject) => {
      setTimeout(resolve, 1000 * seconds);
      signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
    });
  } finally {
    toast.hidden = true;
  }
}

function askToken(wrong) {
  asking ??= new Promise((resolve, reject) => {
    const dialog = $("#token");
    const field = $("#token-field");
    if (wrong) $("#token-why").textContent = "The server did not accept that token. Check it, and try again.";
    field.value = "";
    $("#token-cancel").onclick = () => dialog.close("");
    dialog.onclose = () => {
      asking = null;
      const given = field.value.trim();
      field.value = "";
      if (dialog.returnValue !== "given" || !given) return reject(new ServerError("Nothing can be shown without a token.", 401));
      sessionStorage.setItem(KEY, given);
      resolve();
    };
    dialog.returnValue = "";
    dialog.querySelector(".primary").value = "given";
    dialog.showModal();
    field.focus();
  });
  return asking;
}

const query = (params) => {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(params))
    for (const one of Array.isArray(value) ? value : [value]) if (one !== undefined && one !== null && one !== "") found.append(name, one);
  return found;
};

let info = null;
export function models() {
  info ??= request("info").then((found) => found.models.filter((model) => model.documents !== null));
  info.catch(() => (info = null));
  return info;
}

export async function search(asked, signal) {
  const found = await request("v1/search", { method: "POST", body: asked, signal });
  return found.data.map((hit, index) => ({ ...hit, rank: index + 1 }));
}

// Documents of these ids, as a Map; a few at a time, for ids make addresses long.
export async function documents(model, ids, signal) {
  const parts = [];
  for (let start = 0; start < ids.length; start += 20) parts.push(request(`v1/documents?${query({ model, id: ids.slice(start, start + 20) })}`, { signal }));
  return new Map((await Promise.all(parts)).flatMap((part) => part.data).map((one) => [one.id, one]));
}

export const browse = (model, start, count, signal) => request(`v1/documents?${query({ model, start, count })}`, { signal });
export const explain = (body) => request("v1/explain", { method: "POST", body });
export const runs = (signal) => request("v1/runs", { signal });
export const worst = (params, signal) => request(`v1/runs/worst?${query(params)}`, { signal });

const images = new Map();
export const imageBlob = (model, id, width) => request(`v1/documents/image?${query({ model, id, width })}`, { blob: true });

// An address of the image within this page: an <img> could not send a token.
function imageUrl(model, id, width) {
  const key = JSON.stringify([model, id, width]);
  if (!images.has(key)) {
    const found = imageBlob(model, id, width).then((blob) => URL.createObjectURL(blob));
    found.catch(() => images.delete(key));
    images.set(key, found);
    if (images.size > IMAGES) {
      const [oldest, gone] = images.entries().next().value;
      images.delete(oldest);
      gone.then((url) => URL.revokeObjectURL(url), () => {});
    }
  }
  return images.get(key);
}

const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) if (isIntersecting) { near.unobserve(target); target.load(); }
}, { rootMargin: "300px" });

// A page that is fetched when it comes near. document: as the server shows it, or null where it is gone.
export function pageImage(model, document, width, { eager = false, alt = "" } = {}) {
  const ratio = document.width / document.height;
  const image = h("img", { alt, width: document.width, height: document.height, vars: { ratio } });
  image.load = async () => {
    image.classList.add("waiting");
    try {
      image.src = await imageUrl(model, document.id, width);
      await image.decode();
      image.classList.remove("waiting");
    } catch (error) {
      image.replaceWith(h("p", { class: "problem" }, error.message || "The image cannot be shown."));
    }
  };
  if (eager) image.load();
  else near.observe(image);
  return image;
}
