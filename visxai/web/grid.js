// The grid of pictures: justified rows, of which only the cards near the window exist.

const GAP = 14, CAPTION = 48;
const grid = $("grid");

const wall = {
  items: [], // what is shown, in order
  rows: [], // { top, height, first, last }, pixels and positions in items
  boxes: [], // [left, top, width, picture's height] by position
  nodes: new Map(), // position -> element
  members: new Map(), // item -> the items on its card
  active: 0, // the position that the keyboard is at
  opened: () => {},

  show(items, members, active = 0) {
    this.items = items;
    this.members = members;
    this.active = Math.max(0, Math.min(active, items.length - 1));
    this.layout();
  },

  /** Return the intended height of pictures, in pixels. */
  wanted() { return grid.clientWidth < 520 ? Math.min(state.size, 150) : state.size; },

  /** Fill rows from left to right, each scaled so that it ends at the right edge. */
  layout() {
    const width = grid.clientWidth, wanted = this.wanted();
    this.rows = [];
    this.boxes = new Array(this.items.length);
    let top = 0, first = 0, sum = 0;
    const close = (last, height) => {
      let left = 0;
      for (let at = first; at <= last; at++) {
        const wide = aspect(this.items[at]) * height;
        this.boxes[at] = [left, top, wide, height];
        left += wide + GAP;
      }
      this.rows.push({ top, height: height + CAPTION, first, last });
      top += height + CAPTION + GAP;
      first = last + 1;
      sum = 0;
    };
    for (let at = 0; at < this.items.length; at++) {
      sum += aspect(this.items[at]);
      const room = width - (at - first) * GAP;
      if (sum * wanted >= room) close(at, room / sum);
    }
    if (first < this.items.length) {
      const last = this.items.length - 1;
      close(last, Math.min(wanted, (width - (last - first) * GAP) / sum));
    }
    grid.style.height = `${top}px`;
    for (const node of this.nodes.values()) node.remove();
    this.nodes.clear();
    this.draw();
  },

  /** Create the cards near the window and remove those far from it. */
  draw() {
    if (!grid.offsetParent) return;
    const from = -grid.getBoundingClientRect().top, tall = window.innerHeight;
    const start = this.rowAt(from - tall * 0.6), end = this.rowAt(from + tall * 1.6);
    const low = this.rows[start]?.first ?? 0, high = this.rows[end]?.last ?? -1;
    for (const [at, node] of this.nodes)
      if ((at < low || at > high) && !node.contains(document.activeElement)) { node.remove(); this.nodes.delete(at); }
    const made = document.createDocumentFragment();
    for (let at = low; at <= high; at++) {
      if (this.nodes.has(at)) continue;
      const node = this.cell(at);
      this.nodes.set(at, node);
      made.append(node);
    }
    grid.append(made);
    if (!this.nodes.has(this.active)) this.tab(low);
  },

  /** Find the row at a vertical position by binary search. */
  rowAt(y) {
    let low = 0, high = this.rows.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.rows[middle].top <= y) low = middle; else high = middle - 1;
    }
    return low;
  },

  cell(at) {
    const item = this.items[at], [left, top, width, height] = this.boxes[at], several = membersOf(item);
    const told = failed(item) ? `Failed: ${nameOf(item)}` : several.length > 1 ? `${nameOf(item)}, ${several.length} maps` : `${labelOf(item)}, ${scored(rows.score[item])}, ${nameOf(item)}`;
    const frame = several.length > 1 ? strip(several) : picture(item, false);
    frame.style.height = `${height}px`;
    if (several.length === 1) {
      const marks = marksOf(item, false);
      if (marks.childElementCount) frame.append(marks);
    }
    const card = el("button", { class: failed(item) ? "card failed" : "card", type: "button", "aria-label": told, tabindex: at === this.active ? 0 : -1 },
      frame,
      el("span", { class: "caption" }, el("b", { dir: "auto", title: labelOf(item) }, several.length > 1 ? [...new Set(several.map(labelOf))].join(", ") : labelOf(item)), failed(item) ? null : el("span", {}, scored(rows.score[item]))),
      el("span", { class: "file", dir: "auto", title: pathOf(item) }, several.length > 1 ? `${several.length} maps · ${nameOf(item)}` : failed(item) || methods.length < 2 ? nameOf(item) : `${brief(methods[rows.method[item]])} · ${nameOf(item)}`));
    card.addEventListener("click", () => { this.tab(at); this.opened(at); });
    card.addEventListener("focus", () => this.tab(at));
    const node = el("div", { class: "cell", role: "listitem", "aria-posinset": at + 1, "aria-setsize": this.items.length }, card, pickOf(item));
    node.style.width = `${width}px`;
    node.style.height = `${height + CAPTION}px`;
    node.style.transform = `translate(${left}px, ${top}px)`;
    node.dataset.item = item;
    return node;
  },

  /** Make a single card reachable with Tab. */
  tab(at) {
    this.nodes.get(this.active)?.firstChild.setAttribute("tabindex", -1);
    this.active = at;
    this.nodes.get(at)?.firstChild.setAttribute("tabindex", 0);
  },

  /** Scroll to a position and focus its card. */
  focus(at) {
    const box = this.boxes[at];
    if (!box) return;
    const above = grid.getBoundingClientRect().top + box[1], below = above + box[3] + CAPTION;
    const bar = document.querySelector(".bar").offsetHeight + 14;
    if (above < bar) window.scrollBy(0, above - bar);
    else if (below > window.innerHeight - 14) window.scrollBy(0, below - window.innerHeight + 14);
    this.draw();
    this.tab(at);
    this.nodes.get(at)?.firstChild.focus({ preventScroll: true });
  },

  /** Return the position that a key leads to, null for other keys. */
  towards(key) {
    const last = this.items.length - 1, at = this.active;
    if (key === "ArrowLeft") return Math.max(0, at - 1);
    if (key === "ArrowRight") return Math.min(last, at + 1);
    if (key === "Home") return 0;
    if (key === "End") return last;
    if (key !== "ArrowUp" && key !== "ArrowDown") return null;
    const [left, top, width] = this.boxes[at];
    const row = this.rows[this.rowAt(top) + (key === "ArrowUp" ? -1 : 1)];
    if (!row) return at;
    let best = row.first;
    const away = (position) => Math.abs(this.boxes[position][0] + this.boxes[position][2] / 2 - left - width / 2);
    for (let position = row.first; position <= row.last; position++) if (away(position) < away(best)) best = position;
    return best;
  },
};

function aspect(item) {
  if (failed(item)) {
    // A long reason gets a larger card: a character takes about 160 square pixels.
    const tall = wall.wanted();
    return Math.max(1.3, Math.min(2.6, ((160 * failures[item - ROWS].reason.length) / Math.max(40, tall - 44) + 24) / tall));
  }
  const image = rows.image[item];
  return Math.min(beside(), membersOf(item).length) * Math.max(0.62, Math.min(2.4, images.width[image] / images.height[image]));
}

const membersOf = (item) => wall.members.get(item) ?? [item];
const beside = () => (grid.clientWidth < 520 ? 2 : 4); // pictures on a card

/** Put the pictures of one image side by side, each with what tells it from the others. */
function strip(items) {
  const frame = el("span", { class: "strip" }), most = beside();
  items.slice(0, most).forEach((item, i) => {
    const part = picture(item, false), more = i === most - 1 && items.length > most ? ` +${items.length - most}` : "";
    const marks = marksOf(item, false);
    if (marks.childElementCount) part.append(marks);
    part.append(el("span", { class: "named", dir: "auto" }, distinct(item, items) + more));
    frame.append(part);
  });
  return frame;
}

/** Name what tells an explanation from the others of its image: its method, its class, or both. */
function distinct(item, items) {
  const differ = (column) => items.some((other) => rows[column][other] !== rows[column][item]);
  const method = brief(methods[rows.method[item]]);
  if (!differ("label")) return method;
  return differ("method") ? `${method} · ${labelOf(item)}` : labelOf(item);
}

/** Make the box that selects an image; the key x does the same. */
function pickOf(item) {
  const on = kept.picked.has(keyOf(item));
  return el("button", { class: "pick-box", type: "button", tabindex: -1, "aria-pressed": on, "aria-label": `Select ${nameOf(item)}`, title: "Select (x)", onclick: () => pick(item) });
}

/** Stack photograph, overlay and map; --mix sets the visibility of each. */
function picture(item, large) {
  if (failed(item)) {
    const why = el("span", { class: "why", dir: "auto" }, failures[item - ROWS].reason);
    return el(large ? "div" : "span", { class: "frame failed" }, why);
  }
  const frame = el(large ? "div" : "span", { class: "frame" }), image = rows.image[item];
  const layers = [["photo", images.photo[image]], ["over", rows.overlay[item]], ["map", rows.map[item]]];
  const base = layers.findIndex(([, name]) => source(name));
  layers.forEach(([layer, name], i) => {
    const src = source(name);
    if (!src) return;
    const alt = !large ? "" : layer === "photo" ? `Photograph ${nameOf(item)}` : layer === "over" ? `Evidence for ${labelOf(item)} over the photograph` : `Map of the evidence for ${labelOf(item)}`;
    // Without a photograph the lowest existing picture stays visible.
    frame.append(el("img", { class: i === base ? "base" : layer, src, alt, decoding: "async", loading: large ? "eager" : "lazy", draggable: "false" }));
  });
  if (base < 0) frame.append(el("span", { class: "why plain-why" }, images.note[image] ?? "There is no picture of this one."));
  return frame;
}

/** Make the quality flags of an item; on a card only the warnings. */
function marksOf(item, all) {
  const marks = el("span", { class: all ? "tags" : "marks" });
  const add = (text, kind, title) => marks.append(el("span", { class: `tag ${kind}`, title }, text));
  if (failed(item)) add("Failed", "bad", failures[item - ROWS].kind);
  else for (const flag of [...ANSWERS, ...FLAGS])
    if (flag.has(item) && (all || flag.kind !== "good")) {
      const gone = flag.key === "gone" && /changed/.test(images.note[rows.image[item]] ?? "");
      add(gone ? "Original changed" : flag.name, flag.kind, flag.about);
    }
  return marks;
}

/** Make the key of these items' colours: a bar for each scale, between words for its ends. */
function keysOf(items) {
  const used = new Set(items.filter((item) => !failed(item)).map((item) => rows.scale[item]));
  const unseen = items.some((item) => !failed(item) && rows.unseen[item]);
  const grey = el("span", { class: "key unseen", title: "The model’s view is a part of the photograph: it never saw the grey part." }, el("i"), "grey: not seen by the model");
  return [...used].sort().map((index) => {
    const { colours, ends } = data.scales[index], bar = el("i");
    bar.style.background = `linear-gradient(90deg, ${colours.join(", ")})`;
    return el("span", { class: "key", role: "img", "aria-label": `Colours: from ${ends[0]} to ${ends[1]}` }, ends[0], bar, ends[1]);
  }).concat(unseen ? [grey] : []);
}
