// Makes elements and small plots. Text is inserted as text, never as markup.

const $ = (id) => document.getElementById(id);

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.startsWith("aria-")) node.setAttribute(name, value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Draw bars from 0 to 1 as a single path: a plot has two elements whatever it shows. */
function bars(bins, peak, gap) {
  let path = "";
  bins.forEach((count, i) => {
    const height = count ? Math.max(0.03, count / peak) : 0;
    if (height) path += `M${i + gap},1V${1 - height}H${i + 1 - gap}V1Z`;
  });
  return path;
}

const rounded = new Intl.NumberFormat("en-US", { notation: "compact" });

function histogram(count, name, gap = 0.08) {
  const all = svg("path", { class: "all" }), now = svg("path", { class: "now" });
  const most = el("span"), axis = el("span", { class: "axis", "aria-hidden": "true" }, most, el("span", {}, "0"));
  const plot = svg("svg", { class: "plot", viewBox: `0 0 ${count} 1`, preserveAspectRatio: "none", role: "img" }, all, now);
  return {
    plot: el("span", { class: "counts" }, axis, plot),
    /** Draw the bins of the filtered items over the bins of all items. */
    draw(bins, whole = bins) {
      const peak = Math.max(1, ...whole);
      most.textContent = rounded.format(peak);
      all.setAttribute("d", whole === bins ? "" : bars(whole, peak, gap));
      now.setAttribute("d", bars(bins, peak, gap));
      const sum = bins.reduce((a, b) => a + b, 0), top = bins.indexOf(Math.max(...bins));
      plot.setAttribute("aria-label", sum ? `${name}: ${counted(sum, "explanation")}, most in bin ${top + 1} of ${bins.length}` : `${name}: none`);
    },
  };
}

/** Make a histogram with two thumbs that select a range. */
function rangeFilter(host, name, ends, values, told, changed) {
  const BINS = 32, shape = histogram(BINS, name), whole = binned(values, ends, BINS);
  const step = (ends[1] - ends[0]) / 200 || 0.01;
  const thumb = (which, value) => el("input", { type: "range", min: ends[0], max: ends[1], step: "any", value, "aria-label": `${which} ${name}` });
  const low = thumb("Lowest", ends[0]), high = thumb("Highest", ends[1]);
  const span = el("div", { class: "span" }, low, high);
  const left = el("span"), right = el("span");
  let range = [...ends];
  function show() {
    const at = (value) => `${(100 * (value - ends[0])) / (ends[1] - ends[0] || 1)}%`;
    span.style.setProperty("--lo", at(range[0]));
    span.style.setProperty("--hi", at(range[1]));
    left.textContent = told(range[0]);
    right.textContent = told(range[1]);
    low.setAttribute("aria-valuetext", told(range[0]));
    high.setAttribute("aria-valuetext", told(range[1]));
    // With both thumbs at the right end, the lower thumb must be on top to be draggable.
    low.style.zIndex = range[0] > (ends[0] + ends[1]) / 2 ? 2 : 1;
  }
  function move(event) {
    if (event.target === low && +low.value > +high.value) low.value = high.value;
    if (event.target === high && +high.value < +low.value) high.value = low.value;
    range = [+low.value, +high.value];
    if (range[0] - ends[0] < step / 2) range[0] = ends[0];
    if (ends[1] - range[1] < step / 2) range[1] = ends[1];
    show();
    changed(range);
  }
  // With step="any" an arrow key would move by a whole unit.
  function press(event) {
    const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
    if (!by) return;
    event.preventDefault();
    event.target.value = +event.target.value + by * step;
    move(event);
  }
  for (const input of [low, high]) { input.addEventListener("input", move); input.addEventListener("keydown", press); }
  host.append(shape.plot, span, el("div", { class: "ends" }, left, right));
  show();
  return {
    draw: (now) => shape.draw(binned(now, ends, BINS), whole),
    set(to) { range = [...to]; low.value = to[0]; high.value = to[1]; show(); },
  };
}

