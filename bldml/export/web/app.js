"use strict";
// The page: photographs in, verdicts out. Nothing leaves the device: the policy in the page's head allows no connection.

const byId = (id) => document.getElementById(id);
const rows = []; // of the table: { name, file, probability, distance, map, problem }
let session = null; // the classifier; null until it is ready
let work = Promise.resolve(); // photographs are classified one after another
let cleared = 0; // how often the table was cleared: photographs that were still waiting then are dropped

function say(text, isProblem = false) {
  byId("state").textContent = text;
  byId("state").classList.toggle("missing", isProblem);
}

function fromBase64(text) {
  return Uint8Array.fromBase64?.(text) ?? Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

// The format has a checksum, so what was damaged is refused.
async function unpacked(text) {
  try {
    const stream = new Blob([fromBase64(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  } catch (error) {
    // Of gzip and of the text that it is written in; memory, say, may be short instead.
    if (!(error instanceof TypeError || error.name === "SyntaxError" || error.name === "InvalidCharacterError")) throw error;
    throw new Error("Files of this page are damaged. Copy or export them again.");
  }
}

async function start() {
  const needed = ["settings", "model", "library", "wasm", "notices"];
  const functions = ["readPhotograph", "readTimeAndPlace", "keepsRawColours"]; // one of each of the other scripts
  const hasAll = needed.every((name) => globalThis.ASSETS?.[name] !== undefined);
  if (!hasAll || !functions.every((name) => name in globalThis)) throw new Error("Files of this page are missing. Keep all files of its folder together.");
  for (const name of ["DecompressionStream", "WebAssembly", "createImageBitmap"]) {
    if (!(name in globalThis)) throw new Error(`This browser is too old: it has no ${name}. Update it.`);
  }
  ASSETS.settings = JSON.parse(new TextDecoder().decode(await unpacked(ASSETS.settings)));
  const address = URL.createObjectURL(new Blob([await unpacked(ASSETS.library)], { type: "text/javascript" }));
  const ort = await import(address);
  URL.revokeObjectURL(address);
  ort.env.wasm.numThreads = 1; // a page from a file may not share memory among threads
  ort.env.wasm.wasmBinary = await unpacked(ASSETS.wasm);
  const found = await ort.InferenceSession.create(await unpacked(ASSETS.model), { executionProviders: ["wasm"] });
  session = { found, Tensor: ort.Tensor, isRaw: await keepsRawColours(fromBase64(ASSETS.settings.check.jpeg)) };
  ASSETS.model = ASSETS.wasm = ASSETS.library = ""; // tens of megabytes
  const { check, side } = ASSETS.settings;
  const difference = Math.abs((await classify(checkImage(check, side))).probability - check.probability);
  if (!(difference <= check.tolerance)) {
    session = null;
    throw new Error(`This browser computes other probabilities than Python (${difference} apart). Use another browser.`);
  }
}

// The calibrated probability of the positive class for an image, uint8 (side, side, 3), its distance from the training
// photographs in multiples of the limit (null for a classifier without), and its map: { values in [0, 1], height, width }.
async function classify(image) {
  const side = ASSETS.settings.side;
  const outputs = await session.found.run({ image: new session.Tensor("uint8", image, [1, side, side, 3]) });
  // Not every classifier has a map.
  const map = outputs.map ? { values: outputs.map.data, height: outputs.map.dims[1], width: outputs.map.dims[2] } : null;
  return { probability: outputs.probability.data[0], distance: outputs.distance ? outputs.distance.data[0] : null, map };
}

const isPositive = (row) => row.probability >= ASSETS.settings.threshold;
const isStrange = (row) => row.distance !== null && row.distance > 1;
const labelOf = (row) => (isPositive(row) ? ASSETS.settings.positive : ASSETS.settings.negative);

// As `Bands.band` in Python; null for a classifier without limits.
function bandOf(row) {
  const { bands } = ASSETS.settings;
  if (bands === null || row.problem) return null;
  return row.probability < bands.low ? "negative" : row.probability >= bands.high ? "positive" : "uncertain";
}

function add(files) {
  for (const file of files) {
    const row = { name: file.name || "pasted image", file, probability: null, distance: null, map: null, problem: "" };
    const before = cleared;
    work = work.then(() => (before === cleared ? take(row, before) : null));
  }
}

async function take(row, before) {
  say(`Classifying ${row.name} …`);
  let picture = null;
  try {
    const read = await readPhotograph(row.file, ASSETS.settings.side, session.isRaw);
    picture = read.picture;
    Object.assign(row, await classify(read.image));
    if (!Number.isFinite(row.probability)) throw new Error("no finite probability");
  } catch (error) {
    row.probability = row.distance = row.map = null;
    row.problem = picture ? `could not be classified (${error.message})` : "cannot be read by this browser";
  }
  if (before !== cleared) return;
  rows.push(row);
  show(row, picture);
  summarise();
}

function show(row, picture) {
  const line = byId("rows").insertRow();
  const head = document.createElement("th");
  head.scope = "row";
  if (picture) {
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", row.name);
    head.append(picture);
    if (row.map) head.append(overlay(picture, row.map));
  }
  const name = document.createElement("bdi");
  name.textContent = row.name;
  head.append(name);
  line.append(head);
  const verdict = line.insertCell();
  const number = line.insertCell();
  if (row.problem) {
    verdict.textContent = row.problem;
    verdict.className = "missing";
    number.textContent = "–";
    return;
  }
  verdict.textContent = labelOf(row);
  verdict.className = isPositive(row) ? "positive" : "";
  const band = bandOf(row);
  if (band) verdict.append(Object.assign(document.createElement("span"), { className: "interval", textContent: `band: ${band}` }));
  if (isStrange(row)) {
    const said = `unlike the photographs that it learned from (${row.distance.toFixed(1)} times the limit)`;
    verdict.append(Object.assign(document.createElement("span"), { className: "interval missing", textContent: said }));
  }
  number.textContent = row.probability.toFixed(3);
}

// The picture under its map, as `overlay` in Python draws it.
function overlay(picture, { values, height, width }) {
  const small = document.createElement("canvas");
  [small.width, small.height] = [width, height];
  const heat = new ImageData(width, height);
  values.forEach((value, i) => heat.data.set([...colourOf(value), Math.round(255 * 0.65 * value)], 4 * i));
  small.getContext("2d").putImageData(heat, 0, 0);
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [picture.width, picture.height];
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  canvas.className = "map";
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Grad-CAM map of ${picture.getAttribute("aria-label")}`);
  return canvas;
}

// Between the colours of the scale, each [red, green, blue].
function colourOf(value) {
  const { heat } = ASSETS.settings;
  const at = value * (heat.length - 1), first = Math.min(Math.floor(at), heat.length - 2);
  return heat[first].map((from, i) => from + (heat[first + 1][i] - from) * (at - first));
}

function summarise() {
  const good = rows.filter((row) => !row.problem);
  const positive = good.filter(isPositive).length;
  const { positive: first, negative: second } = ASSETS.settings;
  const unread = rows.length - good.length;
  say(
    rows.length === 0
      ? "Ready."
      : `${rows.length} photograph${rows.length === 1 ? "" : "s"}: ${positive} ${first}, ${good.length - positive} ` +
          `${second}${unread ? `, ${unread} not classified` : ""}.`,
  );
  byId("results").hidden = rows.length === 0;
}

// Time and position of each row if the user asked for them, else neither.
async function withTimeAndPlace() {
  const wanted = byId("places").checked, isExact = !byId("rounded").checked;
  const round = (value) => (isExact ? value : Math.round(value * 100) / 100);
  const found = [];
  for (const row of rows) {
    const read = wanted ? await readTimeAndPlace(row.file) : { time: null, position: null };
    found.push({ ...row, time: read.time, position: read.position && read.position.map(round) });
  }
  return found;
}

// A spreadsheet runs a text that begins like a formula; an apostrophe prevents that.
function cell(value) {
  if (value === null) return "";
  let text = String(value);
  if (typeof value === "string" && /^[\s']*[=+\-@＝＋－＠]|^[\t\r\n]/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function properties(row) {
  const { threshold, positive, checkpoint } = ASSETS.settings;
  const known = row.problem === "";
  return {
    path: row.name,
    label: known ? labelOf(row) : null,
    probability: row.probability,
    band: bandOf(row),
    distance: row.distance,
    familiar: row.distance === null ? null : isStrange(row) ? "no" : "yes",
    positive_class: positive,
    threshold,
    time: row.time,
    problem: row.problem || null,
    model: checkpoint,
  };
}

function toCsv(found) {
  const lines = found.map((row) => {
    const [longitude, latitude] = row.position ?? [null, null];
    return { ...properties(row), longitude, latitude };
  });
  const columns = Object.keys(lines[0]);
  return [columns, ...lines.map(Object.values)].map((line) => line.map(cell).join(",") + "\n").join("");
}

// RFC 7946: WGS 84, longitude first; a photograph without a position has the geometry null.
function toGeoJson(found) {
  const features = found.map((row) => ({
    type: "Feature",
    geometry: row.position && { type: "Point", coordinates: row.position },
    properties: properties(row),
  }));
  return JSON.stringify({ type: "FeatureCollection", features }, null, 1) + "\n";
}

async function download(name, type, write) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([write(await withTimeAndPlace())], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function clear() {
  cleared += 1;
  rows.length = 0;
  byId("rows").replaceChildren();
  summarise();
}

function listen() {
  for (const id of ["files", "camera"]) {
    byId(id).addEventListener("change", (event) => {
      add(event.target.files);
      work = work.then(() => { byId(id).value = ""; }); // the same photograph may be chosen again
    });
    byId(id).disabled = false;
  }
  addEventListener("paste", (event) => add(event.clipboardData.files));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    add(event.dataTransfer.files);
  });
  byId("csv").addEventListener("click", () => download("verdicts.csv", "text/csv", toCsv));
  byId("geojson").addEventListener("click", () => download("verdicts.geojson", "application/geo+json", toGeoJson));
  byId("clear").addEventListener("click", clear);
  byId("maps").addEventListener("change", (event) => byId("rows").classList.toggle("mapped", event.target.checked));
  byId("places").addEventListener("change", (event) => { byId("rounded").disabled = !event.target.checked; });
}

async function showNotices(event) {
  if (event.target.open) byId("notices").textContent = new TextDecoder().decode(await unpacked(ASSETS.notices));
}

// Let the browser keep a page that came from a server, so that it opens without a network and can be installed.
function keepOffline() {
  document.head.append(Object.assign(document.createElement("link"), { rel: "manifest", href: "manifest.webmanifest" }));
  // Browsers offer this over HTTPS alone.
  navigator.serviceWorker?.register("sw.js").catch((error) => console.info(`Not kept for offline use: ${error.message}`));
}

async function main() {
  try {
    await start();
  } catch (error) {
    say(error.message, true);
    return;
  }
  byId("licences").addEventListener("toggle", showNotices);
  listen();
  summarise();
  if ("folder" in document.documentElement.dataset && location.protocol.startsWith("http")) keepOffline();
}

main();
