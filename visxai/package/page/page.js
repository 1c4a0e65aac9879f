// The page of a packed model: it explains a picture of the visitor's, on their machine.

import * as ort from "./runtime/ort.wasm.min.mjs";
import { prepare } from "./pixels.js";

const LARGEST = 1600; // pixels of the longer side that is drawn
const MOST = 40e6; // pixels of a picture that is read
const SHOWN = 5; // classes that are listed
const byId = (id) => document.getElementById(id);

let facts, session, shown;

function complain(error) {
  byId("wrong").textContent = error instanceof Error ? error.message : String(error);
  byId("wrong").hidden = false;
}

async function load() {
  byId("about").textContent = "Loading the model …";
  facts = await (await fetch("model.json")).json();
  ort.env.wasm.wasmPaths = new URL("./runtime/", import.meta.url).href;
  ort.env.wasm.numThreads = 1; // more need headers that a plain file server doesn't send
  const model = new Uint8Array(await (await fetch("model.onnx")).arrayBuffer());
  session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  byId("about").textContent = `${facts.model}, explained by ${facts.method}`;
  byId("low").textContent = facts.ends[0];
  byId("high").textContent = facts.ends[1];
  const scale = byId("colours").getContext("2d");
  const line = scale.createImageData(256, 1);
  facts.colours.forEach((colour, i) => line.data.set([...colour, 255], i * 4));
  scale.putImageData(line, 0, 0);
  byId("file").disabled = false;
}

async function explain(file) {
  byId("wrong").hidden = true;
  byId("stage").parentElement.setAttribute("aria-busy", "true");
  const start = performance.now();
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new Error("This file isn't a picture that your browser can read: choose another one.");
  }
  if (bitmap.width * bitmap.height > MOST) {
    throw new Error("This picture has more than 40 million pixels: choose a smaller one.");
  }
  const image = drawn(bitmap, bitmap.width, bitmap.height);
  const factor = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
  const base = drawn(bitmap, Math.max(1, Math.round(bitmap.width * factor)), Math.max(1, Math.round(bitmap.height * factor)));
  bitmap.close();
  shown = { ...prepare(image, facts.preprocess), base };
  await answer(-1);
  document.body.dataset.milliseconds = String(performance.now() - start);
}

function drawn(bitmap, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white"; // behind what is transparent
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

// Run the model for a class, -1 for the strongest, and show what it says.
async function answer(chosen) {
  const found = await session.run({
    images: new ort.Tensor("float32", shown.input, shown.shape),
    class: new ort.Tensor("int64", BigInt64Array.of(BigInt(chosen)), [1]),
  });
  const scores = reported(Array.from(found.scores.data));
  const order = scores.map((_, i) => i).sort((a, b) => scores[b] - scores[a]);
  const at = chosen < 0 ? order[0] : chosen;
  shown.map = { values: found.maps.data, height: found.maps.dims[1], width: found.maps.dims[2] };
  Object.assign(document.body.dataset, { scores: JSON.stringify(scores), map: JSON.stringify(Array.from(found.maps.data)) });
  list(scores, order.slice(0, SHOWN), at);
  draw();
  byId("drop").hidden = true;
  for (const id of ["picture", "tools", "answers"]) byId(id).hidden = false;
}

function reported(scores) {
  if (facts.activation === "none") return scores;
  if (facts.activation === "sigmoid" || scores.length === 1) return scores.map((s) => 1 / (1 + Math.exp(-s)));
  const largest = Math.max(...scores);
  const raised = scores.map((s) => Math.exp(s - largest));
  const sum = raised.reduce((a, b) => a + b, 0);
  return raised.map((s) => s / sum);
}

const nameOf = (index) => facts.labels?.[index] ?? `class ${index}`;

function list(scores, best, at) {
  byId("classes").replaceChildren(...best.map((index) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    const name = document.createElement("span"), score = document.createElement("span");
    name.textContent = nameOf(index);
    button.append(name, score);
    if (facts.activation === "none") {
      score.textContent = scores[index].toFixed(2);
    } else {
      score.textContent = `${(100 * scores[index]).toFixed(1)} %`;
      const meter = document.createElement("meter");
      meter.value = scores[index];
      meter.setAttribute("aria-hidden", "true");
      button.append(meter);
    }
    button.setAttribute("aria-pressed", String(index === at));
    button.addEventListener("click", () => answer(index).catch(complain));
    item.append(button);
    return item;
  }));
  const peak = largest();
  byId("told").textContent = peak > 0
    ? `The colours show where the model found evidence for “${nameOf(at)}”.`
    : `The model found no evidence for “${nameOf(at)}” at its last layer, so there is nothing to show.`;
  if (shown.view.width < 1 || shown.view.height < 1) {
    byId("told").textContent += " It was not shown the grey margin.";
  }
}

const largest = () => shown.map.values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

// The map between its cells, at shares x and y of the model's view.
function sampled(x, y) {
  const { values, width, height } = shown.map;
  const across = Math.min(Math.max(x * width - 0.5, 0), width - 1), down = Math.min(Math.max(y * height - 0.5, 0), height - 1);
  const left = Math.floor(across), top = Math.floor(down);
  const right = Math.min(left + 1, width - 1), bottom = Math.min(top + 1, height - 1);
  const fx = across - left, fy = down - top;
  const upper = values[top * width + left] * (1 - fx) + values[top * width + right] * fx;
  const lower = values[bottom * width + left] * (1 - fx) + values[bottom * width + right] * fx;
  return upper * (1 - fy) + lower * fy;
}

function draw() {
  const { base, view } = shown;
  const strength = Number(byId("strength").value) / 100;
  const canvas = byId("picture");
  canvas.width = base.width;
  canvas.height = base.height;
  byId("stage").style.setProperty("--wide", `${72 * base.width / base.height}vh`);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", byId("told").textContent);
  const out = new ImageData(new Uint8ClampedArray(base.data), base.width, base.height);
  const peak = largest() || 1;
  for (let y = 0; y < base.height; y++) {
    const v = ((y + 0.5) / base.height - view.top) / view.height;
    for (let x = 0; x < base.width; x++) {
      const u = ((x + 0.5) / base.width - view.left) / view.width;
      const at = (y * base.width + x) * 4;
      if (u < 0 || u > 1 || v < 0 || v > 1) { // the model never saw this
        const grey = 0.3 * base.data[at] + 0.59 * base.data[at + 1] + 0.11 * base.data[at + 2];
        out.data.fill(0.5 * grey + 50, at, at + 3);
        continue;
      }
      const value = sampled(u, v) / peak;
      const share = facts.two_sided ? (value + 1) / 2 : Math.max(0, value);
      const colour = facts.colours[Math.round(share * 255)];
      const opacity = strength * Math.abs(value);
      for (let c = 0; c < 3; c++) out.data[at + c] = base.data[at + c] * (1 - opacity) + colour[c] * opacity;
    }
  }
  canvas.getContext("2d").putImageData(out, 0, 0);
}

function take(file) {
  if (!session || !file) return;
  explain(file).catch(complain).finally(() => byId("stage").parentElement.setAttribute("aria-busy", "false"));
}

byId("file").addEventListener("change", (event) => {
  take(event.target.files[0]);
  event.target.value = ""; // so that the same picture can be chosen again
});
byId("strength").addEventListener("input", () => shown && draw());
addEventListener("paste", (event) => take([...event.clipboardData.files][0]));
for (const kind of ["dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files[0]);
  });
}
load().catch((error) => {
  byId("about").textContent = "";
  complain(`The model couldn't be loaded: ${error.message ?? error}`);
});
