"use strict";
// The demo's page. Labels and messages are inserted as text, never as markup.
(() => {
  const $ = (id) => document.getElementById(id);
  const el = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null));
    return node;
  };
  const percent = (value) => (value === null ? "–" : `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`);
  const meter = (value) => { const bar = el("span", { class: "meter" }, el("i")); bar.style.setProperty("--part", Math.max(0, Math.min(1, value ?? 0))); return bar; };

  let image = null; // { id, photo, width, height }
  let example = null; // its name, which an address may hold
  let choices = { methods: [], labels: [], layers: [] };
  let strokes = []; // { radius, points }, in shares of the photograph's sides
  let running = 0;

  /** Call the service; what goes wrong is told above the page. */
  async function call(path, body, form = false) {
    $("trouble").hidden = true;
    const options = body === undefined ? {} : form ? { method: "POST", body } : { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
    let answer, told;
    try { answer = await fetch(path, options); told = await answer.json(); } catch { told = { error: { message: "the demo doesn’t answer: is it still running?" } }; }
    if (answer?.ok) return told;
    const said = told.error?.message ?? "that didn’t work";
    $("trouble").textContent = said[0].toUpperCase() + said.slice(1) + (/[.?]$/.test(said) ? "" : ".");
    $("trouble").hidden = false;
    throw new Error("told");
  }
  const quietly = (task) => async (...given) => { try { await task(...given); } catch (error) { if (error.message !== "told") throw error; } };

  // ---- the photograph ----

  function show(made, name = null) {
    image = made;
    example = name;
    $("photo").src = made.photo;
    $("pad").hidden = false;
    $("drop").hidden = true;
    $("results").hidden = true;
    stopCamera();
    wipe();
  }
  const send = quietly(async (blob) => {
    const form = new FormData();
    form.append("image", blob, "photograph");
    show(await call("/api/images", form, true));
    await run();
  });
  const take = quietly(async (name) => { show(await call(`/api/examples/${encodeURIComponent(name)}`, {}), name); await run(); });

  $("file").addEventListener("change", (event) => { const [file] = event.target.files; if (file) send(file); event.target.value = ""; });
  document.querySelectorAll("[data-example]").forEach((button) => button.addEventListener("click", () => take(button.dataset.example)));
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (file) { event.preventDefault(); send(file); }
  });
  for (const kind of ["dragenter", "dragover"]) $("stage").addEventListener(kind, (event) => { event.preventDefault(); $("stage").classList.add("over"); });
  for (const kind of ["dragleave", "drop"]) $("stage").addEventListener(kind, (event) => { event.preventDefault(); $("stage").classList.remove("over"); });
  $("stage").addEventListener("drop", (event) => { const [file] = event.dataTransfer.files; if (file) send(file); });

  let stream = null;
  function stopCamera() {
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    $("webcam").hidden = $("shoot").hidden = true;
    $("pad").hidden = !image;
    $("drop").hidden = Boolean(image);
  }
  $("camera").addEventListener("click", async () => {
    if (stream) { stopCamera(); return; }
    try { stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } } }); } catch {
      $("trouble").textContent = "The browser gives no webcam to this page.";
      $("trouble").hidden = false;
      return;
    }
    $("webcam").srcObject = stream;
    await $("webcam").play();
    $("webcam").hidden = $("shoot").hidden = false;
    $("pad").hidden = $("drop").hidden = true;
  });
  $("shoot").addEventListener("click", () => {
    const video = $("webcam"), canvas = el("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => send(blob), "image/jpeg", 0.92);
  });

  // ---- settings, which the address keeps ----

  const chosen = () => [...document.querySelectorAll("#methods input:checked")].map((box) => box.value);
  const target = () => ($("target").value === "class" ? `class=${$("class").value.trim()}` : $("target").value);
  function keep() {
    const told = new URLSearchParams();
    if (example) told.append("image", example);
    told.append("model", $("model").value);
    for (const spec of chosen()) told.append("method", spec);
    told.append("target", target());
    if ($("layer").value) told.append("layer", $("layer").value);
    if ($("check").checked) told.append("check", "1");
    history.replaceState(null, "", `#${told}`);
  }
  async function choose(model, specs = null) {
    choices = await call(`/api/choices${model ? `?model=${encodeURIComponent(model)}` : ""}`);
    $("model").replaceChildren(...choices.models.map((name) => el("option", { value: name }, name)));
    $("model").value = choices.model;
    const known = choices.methods.map((one) => one.spec), wanted = (specs ?? chosen()).filter((spec) => known.includes(spec));
    const on = wanted.length ? wanted : known.slice(0, 1);
    $("methods").replaceChildren(...choices.methods.map((one) => el("label", {}, el("input", { type: "checkbox", value: one.spec, checked: on.includes(one.spec) }), one.spec.split("(")[0])));
    $("labels").replaceChildren(...choices.labels.map((label) => el("option", { value: label })));
    $("layers").replaceChildren(...choices.layers.map((name) => el("option", { value: name })));
  }
  const pick = () => { $("class-row").hidden = $("target").value !== "class"; };
  $("target").addEventListener("change", pick);
  $("model").addEventListener("change", quietly(async () => { $("layer").value = ""; await choose($("model").value); await run(); }));
  $("settings").addEventListener("submit", (event) => { event.preventDefault(); run(); });

  const run = quietly(async () => {
    keep();
    if (!image || !chosen().length) return;
    const own = ++running;
    $("busy").textContent = "computing …";
    try {
      const made = await call("/api/explain", { image: image.id, model: $("model").value, methods: chosen(), target: target(), layer: $("layer").value || null, check: $("check").checked });
      if (own === running) draw(made);
    } finally { if (own === running) $("busy").textContent = ""; }
  });

  function draw({ maps, top }) {
    $("maps").replaceChildren(...maps.map((one) => el("figure", { class: "card" },
      el("div", { class: "stack" }, el("img", { src: image.photo, alt: "" }), el("img", { class: "map", src: one.overlay, alt: `Map of ${one.label} by ${one.method}` })),
      el("figcaption", {}, el("strong", {}, el("bdi", {}, one.label)), ` ${percent(one.score)}`,
        el("p", { class: "hint" }, el("bdi", {}, one.method), one.layer ? ` at ${one.layer}` : "", ` · ${Math.round(1000 * one.seconds)} ms · `, el("a", { href: one.record, target: "_blank", rel: "noopener" }, "record")),
        ...one.sentences.map((line) => el("p", { class: "hint" }, line))))));
    $("top").replaceChildren(...top.map((one) => el("li", {}, el("bdi", {}, one.label), el("span", {}, percent(one.score)),
      el("button", { type: "button", onclick: () => { $("target").value = "class"; $("class").value = one.class_index; pick(); run(); } }, "map"), meter(one.score))));
    $("results").hidden = false;
    $("maps").dataset.made = Number($("maps").dataset.made ?? 0) + 1;
  }
  $("strength").addEventListener("input", () => $("maps").style.setProperty("--strength", $("strength").value / 100));

  // ---- the brush ----

  const brush = $("brush"), pen = brush.getContext("2d");
  function paint() {
    brush.width = $("photo").clientWidth || 1;
    brush.height = $("photo").clientHeight || 1;
    pen.strokeStyle = pen.fillStyle = "rgb(128 128 128 / .92)";
    pen.lineCap = pen.lineJoin = "round";
    for (const { radius, points } of strokes) {
      pen.lineWidth = 2 * radius * brush.width;
      pen.beginPath();
      points.forEach(([x, y], i) => (i ? pen.lineTo : pen.moveTo).call(pen, x * brush.width, y * brush.height));
      if (points.length === 1) pen.lineTo(points[0][0] * brush.width + 0.01, points[0][1] * brush.height);
      pen.stroke();
    }
    $("hide").disabled = $("wipe").disabled = !strokes.length;
  }
  function wipe() { strokes = []; $("hidden").replaceChildren(); paint(); }
  const point = (event) => { const box = brush.getBoundingClientRect(), share = (at, start, length) => +Math.max(-1, Math.min(2, (at - start) / length)).toFixed(4); return [share(event.clientX, box.left, box.width), share(event.clientY, box.top, box.height)]; };
  brush.addEventListener("pointerdown", (event) => {
    if (strokes.length >= 200) return;
    brush.setPointerCapture(event.pointerId);
    strokes.push({ radius: $("radius").value / 100, points: [point(event)] });
    paint();
  });
  brush.addEventListener("pointermove", (event) => {
    const last = strokes[strokes.length - 1];
    if (!brush.hasPointerCapture(event.pointerId) || last.points.length >= 2000) return;
    last.points.push(point(event));
    paint();
  });
  new ResizeObserver(paint).observe($("photo"));
  $("wipe").addEventListener("click", wipe);
  $("hide").addEventListener("click", quietly(async () => {
    const made = await call("/api/hide", { image: image.id, model: $("model").value, strokes, how: $("how").value });
    const line = (one) => el("li", {}, el("bdi", {}, one.label), el("span", {}, `${percent(one.before)} → ${percent(one.after)}`), el("span"), meter(one.after));
    const [first] = made.before, [then] = made.after;
    const said = then.label === first.label ? "It stays the strongest class." : `The strongest class becomes ${then.label}.`;
    $("hidden").replaceChildren(
      el("p", {}, `With ${percent(made.area)} of the model’s view hidden, `, el("strong", {}, el("bdi", {}, first.label)), ` goes from ${percent(first.before)} to ${percent(first.after)}. `, said),
      el("ol", { class: "ranking" }, ...made.after.map(line)));
  }));

  // ---- comments ----

  $("text-form").addEventListener("submit", quietly(async (event) => {
    event.preventDefault();
    const made = await call("/api/text", { text: $("text").value, method: $("text-method").value });
    const most = Math.max(...made.values.map(Math.abs), 1e-9), parts = [];
    // Places are counted in code points, as Python counts them.
    const text = [...made.text];
    let at = 0;
    made.spans.forEach(([start, end], i) => {
      parts.push(text.slice(at, start).join(""));
      const word = el("span", { title: made.values[i].toPrecision(3) }, text.slice(start, end).join("")), part = made.values[i] / most;
      word.style.backgroundColor = `rgb(${part > 0 ? "214 40 40" : "50 110 230"} / ${(0.55 * Math.abs(part)).toFixed(3)})`;
      parts.push(word);
      at = end;
    });
    $("words").replaceChildren(...parts, text.slice(at).join(""));
    $("text-label").textContent = `${made.label}: ${percent(made.score)}`;
    $("text-top").replaceChildren(...made.top.map((one) => el("li", {}, el("bdi", {}, one.label), el("span", {}, percent(one.score)), el("span"), meter(one.score))));
    $("text-made").hidden = false;
  }));

  // ---- loans ----

  let columns = null;
  const fill = quietly(async () => {
    if (columns) return;
    columns = await call("/api/columns");
    $("columns").replaceChildren(...columns.map((one) => {
      const field = one.levels.length ? el("select", {}, ...one.levels.map((level) => el("option", { value: level, selected: level === one.value }, level))) : el("input", { type: "number", min: "0", value: one.value });
      field.dataset.name = one.name;
      return el("label", {}, one.name.replaceAll("_", " "), field);
    }));
  });
  $("row-form")?.addEventListener("submit", quietly(async (event) => {
    event.preventDefault();
    const row = Object.fromEntries([...$("columns").querySelectorAll("[data-name]")].map((field) => [field.dataset.name, field.type === "number" ? Math.round(+field.value) : field.value]));
    const made = await call("/api/row", { row });
    $("row-label").textContent = `${made.favourable ? "Granted" : "Refused"}: repaid with ${percent(made.score)}, 70 % are asked for`;
    $("reasons").replaceChildren(...(made.reasons.length ? made.reasons : ["No reasons are given for what is granted."]).map((line) => el("li", {}, line)));
    const most = Math.max(...made.contributions.map((one) => Math.abs(one.value)), 1e-9);
    $("bars").replaceChildren(...made.contributions.map((one) => {
      const bar = el("i");
      bar.style.setProperty("--part", Math.abs(one.value) / most);
      return el("li", { class: one.value < 0 ? "down" : "up" }, el("span", {}, `${one.feature.replaceAll("_", " ")}: ${one.cell}`), el("span", { title: one.value.toFixed(3) }, bar));
    }));
    $("row-made").hidden = false;
  }));

  // ---- tabs and start ----

  const tabs = [...document.querySelectorAll("[role=tab]")];
  function tab(name) {
    for (const one of tabs) {
      const on = one.id === `tab-${name}`;
      one.setAttribute("aria-selected", on);
      $(one.getAttribute("aria-controls")).hidden = !on;
    }
    if (name === "row") fill();
  }
  tabs.forEach((one) => one.addEventListener("click", () => tab(one.id.slice(4))));

  quietly(async () => {
    const told = new URLSearchParams(location.hash.slice(1));
    try { await choose(told.get("model"), told.getAll("method")); } catch { await choose(null); }
    const wanted = told.get("target") ?? "top1";
    if (wanted.startsWith("class=")) { $("target").value = "class"; $("class").value = wanted.slice(6); } else if (["top1", "top5"].includes(wanted)) $("target").value = wanted;
    pick();
    $("layer").value = told.get("layer") ?? "";
    $("check").checked = told.get("check") === "1";
    document.body.dataset.ready = "yes";
    if ([...document.querySelectorAll("[data-example]")].some((button) => button.dataset.example === told.get("image"))) await take(told.get("image"));
  })();
})();
