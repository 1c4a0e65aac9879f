// From a photograph to the model's input, with the arithmetic of Pillow, which the model was
// checked with: resize (both passes rounded to 8 bits), centre crop, normalise.

const cubic = (x) => {
  x = Math.abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
};
const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
const FILTERS = {
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  bicubic: [2, cubic],
  lanczos: [3, (x) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0)],
};

// For each of `to` places: the first of `from` values that it is made of, and their weights.
function taps(from, to, filter) {
  const scale = from / to;
  if (filter === "nearest") {
    return Array.from({ length: to }, (_, i) => [Math.min(from - 1, Math.floor((i + 0.5) * scale)), [1]]);
  }
  const [reach, weight] = FILTERS[filter];
  const wide = Math.max(scale, 1);
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach * wide + 0.5));
    const last = Math.min(from, Math.trunc(centre + reach * wide + 0.5));
    const weights = Array.from({ length: last - first }, (_, k) => weight((k + first - centre + 0.5) / wide));
    const sum = weights.reduce((a, b) => a + b, 0);
    return [first, weights.map((w) => w / sum)];
  });
}

const byte = (value) => Math.min(255, Math.max(0, Math.floor(value + 0.5)));

// Resize one axis of RGBA bytes: `lines` lines of `from` values, `step` and `jump` bytes apart.
function pass(source, lines, from, to, step, jump, outStep, outJump, filter) {
  const out = new Uint8ClampedArray(lines * to * 4);
  taps(from, to, filter).forEach(([first, weights], place) => {
    for (let line = 0; line < lines; line++) {
      let red = 0, green = 0, blue = 0;
      let at = line * jump + first * step;
      for (const weight of weights) {
        red += weight * source[at];
        green += weight * source[at + 1];
        blue += weight * source[at + 2];
        at += step;
      }
      const into = line * outJump + place * outStep;
      out[into] = byte(red);
      out[into + 1] = byte(green);
      out[into + 2] = byte(blue);
      out[into + 3] = 255;
    }
  });
  return out;
}

export function resized(pixels, width, height, toWidth, toHeight, filter) {
  let data = pixels;
  if (toWidth !== width) data = pass(data, height, width, toWidth, 4, width * 4, 4, toWidth * 4, filter);
  if (toHeight !== height) {
    data = pass(data, toWidth, height, toHeight, toWidth * 4, 4, toWidth * 4, 4, filter);
  }
  return data;
}

// The size after the resize, as [width, height].
export function target(steps, width, height) {
  if (steps.resize === null) return [width, height];
  if (Array.isArray(steps.resize)) return [steps.resize[1], steps.resize[0]];
  const short = Math.min(width, height), long = Math.max(width, height);
  const other = steps.side === "long"
    ? Math.max(1, Math.trunc(steps.resize * short / long))
    : Math.trunc(steps.resize * long / short);
  const shortFirst = width <= height;
  return shortFirst === (steps.side === "long") ? [other, steps.resize] : [steps.resize, other];
}

// Where a centred crop of `want` begins; negative where black surrounds the picture.
export function offset(steps, have, want) {
  if (want > have) return -Math.floor((want - have) / 2);
  const half = (have - want) / 2;
  if (steps.rounding !== "even") return Math.floor(half);
  const down = Math.floor(half);
  return half - down !== 0.5 ? Math.round(half) : down + (down % 2);
}

// The model's input, and the part of the photograph that it shows, in shares of its sides.
export function prepare(image, steps) {
  const { width, height } = image;
  const [high, wide] = steps.size;
  const source = steps.mean.length === 1 ? grey(image.data) : image.data;
  const [toWidth, toHeight] = target(steps, width, height);
  const data = resized(source, width, height, toWidth, toHeight, steps.interpolation);
  const left = offset(steps, toWidth, wide), top = offset(steps, toHeight, high);
  const channels = steps.mean.length;
  const input = new Float32Array(channels * high * wide);
  for (let channel = 0; channel < channels; channel++) {
    const from = steps.channels === "bgr" && channels === 3 ? 2 - channel : channel;
    for (let y = 0; y < high; y++) {
      for (let x = 0; x < wide; x++) {
        const inside = x + left >= 0 && x + left < toWidth && y + top >= 0 && y + top < toHeight;
        const value = inside ? data[((y + top) * toWidth + x + left) * 4 + from] : 0;
        input[(channel * high + y) * wide + x] = (value / 255 - steps.mean[channel]) / steps.std[channel];
      }
    }
  }
  const view = { left: left / toWidth, top: top / toHeight, width: wide / toWidth, height: high / toHeight };
  return { input, shape: [1, channels, high, wide], view };
}

function grey(data) {
  const out = new Uint8ClampedArray(data.length);
  for (let i = 0; i < data.length; i += 4) {
    const level = (data[i] * 19595 + data[i + 1] * 38470 + data[i + 2] * 7471 + 0x8000) >> 16;
    out[i] = out[i + 1] = out[i + 2] = level;
    out[i + 3] = 255;
  }
  return out;
}
