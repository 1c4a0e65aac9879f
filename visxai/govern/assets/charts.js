// Line charts: hover tells the numbers, dragging zooms, the legend filters, a button gives the data.

const COLOURS = ["var(--s0)", "var(--s1)", "var(--s2)", "var(--s3)", "var(--s4)", "var(--s5)"];
function figure(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1e6 || (size > 0 && size < 0.001)) return value.toExponential(2);
  return size >= 1000 ? Math.round(value).toLocaleString("en-US") : String(+value.toPrecision(3));
}


/** Offer rows of values as a CSV file; cells that a spreadsheet would compute are shown instead. */
function csv(name, columns, rows) {
  const cell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    const safe = typeof value === "string" && /^[=+\-@\t\r\n]/.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return el("button", { class: "plain csv", type: "button", "aria-label": `${name} as CSV`, onclick: () => {
    const text = [columns, ...rows()].map((row) => row.map(cell).join(",")).join("\n");
    const link = el("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: `${name.replace(/[^A-Za-z0-9]+/g, "-").toLowerCase()}.csv` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  } }, "CSV");
}

/**
 * Draw series over positions in `x` (labels in order).
 * A series has a name and points { at, mean, low, high, n }; low and high make its band, which is drawn for up to three series.
 */
function chart(title, x, series, { ends = null, rule = null, log = false } = {}) {
  const host = el("div", { class: "chart" }), tip = el("div", { class: "tip", hidden: true });
  const hidden = new Set();
  let range = [0, Math.max(1, x.length - 1)], width = 400, drag = null, place = null;
  const HEIGHT = 220, LEFT = 44, BOTTOM = 24, TOP = 8, RIGHT = 8;
  const across = (at) => LEFT + ((at - range[0]) / (range[1] - range[0] || 1)) * (width - LEFT - RIGHT);
  const scale = (v) => (log ? Math.log10(Math.max(v, 0.0005)) : v);

  function draw() {
    width = Math.max(240, host.clientWidth || 400);
    const shown = series.filter((one) => !hidden.has(one.name));
    const inside = (point) => point.at >= range[0] && point.at <= range[1];
    const values = shown.flatMap((one) => one.points.filter(inside).flatMap((p) => [p.low ?? p.mean, p.high ?? p.mean])).filter((v) => v !== null).map(scale);
    let [low, high] = ends && log ? ends.map(scale) : [Math.min(...values), Math.max(...values)];
    if (!values.length) [low, high] = [0, 1];
    if (high - low < 1e-9) { low -= 0.5 * Math.abs(low) || 0.5; high += 0.5 * Math.abs(high) || 0.5; }
    if (!log) { const pad = (high - low) * 0.06; low -= pad; high += pad; if (ends) { low = Math.max(low, ends[0]); high = Math.min(high, ends[1]); } }
    const up = (v) => TOP + (1 - (scale(v) - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
    place = up;
    const nodes = [];
    for (let i = 0; i <= 3; i++) {
      const value = low + ((high - low) * i) / 3, y = TOP + (1 - i / 3) * (HEIGHT - TOP - BOTTOM);
      nodes.push(svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y, y2: y }));
      const label = svg("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" });
      label.textContent = figure(log ? 10 ** value : value);
      nodes.push(label);
    }
    if (rule !== null) nodes.push(svg("line", { class: "rule", x1: LEFT, x2: width - RIGHT, y1: up(rule), y2: up(rule) }));
    const most = Math.max(1, Math.floor((width - LEFT) / 90)), first = Math.ceil(range[0]), last = Math.floor(range[1]);
    const step = Math.max(1, Math.ceil((last - first) / most));
    for (let at = first; at <= last; at += step) {
      const anchor = at === first ? "start" : at > last - step / 3 ? "end" : "middle";
      const label = svg("text", { x: across(at), y: HEIGHT - 6, "text-anchor": anchor });
      label.textContent = x[at] ?? "";
      nodes.push(label);
    }
    for (const one of shown) {
      const colour = COLOURS[series.indexOf(one) % COLOURS.length], points = one.points.filter((p) => inside(p) && p.mean !== null);
      const banded = points.filter((p) => p.low !== undefined && p.low !== null);
      if (banded.length > 1 && shown.length <= 3) nodes.push(svg("path", { d: `M${banded.map((p) => `${across(p.at)},${up(p.high)}`).join("L")}L${banded.toReversed().map((p) => `${across(p.at)},${up(p.low)}`).join("L")}Z`, fill: colour, opacity: 0.16 }));
      if (points.length > 1) nodes.push(svg("path", { d: `M${points.map((p) => `${across(p.at)},${up(p.mean)}`).join("L")}`, stroke: colour, "stroke-width": 2, "stroke-linejoin": "round", "stroke-dasharray": series.indexOf(one) < COLOURS.length ? "none" : "5 4" }));
      for (const p of points) if (points.length < 60 || p.marked) nodes.push(svg("circle", { cx: across(p.at), cy: up(p.mean), r: p.marked ? 5 : 2.6, fill: p.marked ? "var(--bad)" : colour }));
    }
    if (drag) nodes.push(svg("rect", { class: "zoom", x: Math.min(...drag), y: TOP, width: Math.abs(drag[1] - drag[0]), height: HEIGHT - TOP - BOTTOM }));
    plot.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    plot.replaceChildren(...nodes);
    reset.hidden = range[0] === 0 && range[1] === Math.max(1, x.length - 1);
  }

  const plot = svg("svg", { role: "img", "aria-label": `${title}: ${series.map((one) => `${one.name}, ${one.points.length} points`).join("; ")}` });
  const reset = el("button", { class: "plain", type: "button", hidden: true, onclick: () => { range = [0, Math.max(1, x.length - 1)]; draw(); } }, "Show all");
  const pixel = (event) => { const box = plot.getBoundingClientRect(); return ((event.clientX - box.left) / box.width) * width; };
  const position = (at) => range[0] + ((at - LEFT) / (width - LEFT - RIGHT)) * (range[1] - range[0]);
  plot.addEventListener("pointerdown", (event) => { if (event.button === 0) { drag = [pixel(event), pixel(event)]; plot.setPointerCapture(event.pointerId); } });
  plot.addEventListener("pointermove", (event) => {
    if (drag) { drag[1] = pixel(event); draw(); }
    const at = Math.max(0, Math.min(x.length - 1, Math.round(position(pixel(event)))));
    const told = series.filter((one) => !hidden.has(one.name)).map((one) => [one, one.points.find((p) => p.at === at)]).filter(([, p]) => p && p.mean !== null);
    tip.hidden = !told.length;
    tip.replaceChildren(el("div", {}, x[at] ?? ""), ...told.map(([one, p]) => el("div", {}, `${one.name}: ${figure(p.mean)}${p.low !== undefined && p.low !== null ? ` (${figure(p.low)} to ${figure(p.high)})` : ""}${p.n === undefined ? "" : `, n = ${p.n}`}`)));
    const left = (across(at) / width) * host.clientWidth;
    tip.style.left = `${Math.max(0, Math.min(host.clientWidth - tip.offsetWidth, left + 12))}px`;
    tip.style.top = "10px";
  });
  plot.addEventListener("pointerup", () => {
    if (drag && Math.abs(drag[1] - drag[0]) > 12) {
      const [a, b] = drag.map(position).sort((p, q) => p - q);
      range = [Math.max(0, Math.floor(a)), Math.min(Math.max(1, x.length - 1), Math.max(Math.floor(a) + 1, Math.ceil(b)))];
    }
    drag = null;
    draw();
  });
  plot.addEventListener("pointerleave", () => { tip.hidden = true; });
  plot.addEventListener("dblclick", () => { range = [0, Math.max(1, x.length - 1)]; draw(); });
  host.append(plot, tip);
  const legend = el("div", { class: "legend" }, ...series.map((one, i) => {
    const mark = el("i");
    mark.style.background = COLOURS[i % COLOURS.length];
    const button = el("button", { type: "button", "aria-pressed": "true", title: one.name }, mark, one.name);
    button.addEventListener("click", () => {
      if (hidden.has(one.name)) hidden.delete(one.name); else hidden.add(one.name);
      button.setAttribute("aria-pressed", String(!hidden.has(one.name)));
      draw();
    });
    return button;
  }));
  new ResizeObserver(draw).observe(host);
  const rows = () => series.flatMap((one) => one.points.map((p) => [one.name, x[p.at], p.mean, p.low, p.high, p.n]));
  return el("div", { class: "panel" },
    el("div", { class: "panel-head" }, el("h3", {}, title), reset, csv(title, ["series", "at", "value", "low", "high", "n"], rows)),
    host, legend);
}
