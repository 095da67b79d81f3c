// Pictures over time. All share one scale: the width of a canvas is the length of the sound.

// Matplotlib's magma at nine even places.
const MAGMA = [[0, 0, 4], [29, 17, 71], [81, 18, 124], [131, 38, 129], [183, 55, 121], [231, 82, 99],
  [252, 137, 97], [254, 196, 136], [252, 253, 191]];
const ROW = 24; // pixels of a class

/** The spectrogram that the endpoint describes; `levels` are base64 of bytes. */
export function drawSpectrogram(canvas, labels, { begins, bands, ticks, levels }, seconds) {
  const cells = Uint8Array.from(atob(levels), (c) => c.charCodeAt(0));
  const image = new ImageData(begins.length, bands);
  cells.forEach((level, i) => {
    const column = Math.floor(i / bands);
    const row = bands - 1 - (i % bands);
    image.data.set([...magma(level / 255), 255], 4 * (row * begins.length + column));
  });
  const small = new OffscreenCanvas(begins.length, bands);
  small.getContext("2d").putImageData(image, 0, 0);
  const { context, width, height } = fresh(canvas);
  context.imageSmoothingEnabled = begins.length > width;
  begins.forEach((begin, i) => {
    const left = Math.floor((begin / seconds) * width);
    const right = Math.ceil(((begins[i + 1] ?? seconds) / seconds) * width);
    context.drawImage(small, i, 0, 1, bands, left, 0, Math.max(1, right - left), height);
  });
  labels.replaceChildren(...ticks.map(([hertz, band]) => {
    const text = hertz < 1000 ? `${hertz} Hz` : `${hertz / 1000} kHz`;
    return label(text, 100 * (1 - (band + 0.5) / bands));
  }));
}

/** A row for each class: the denser, the more probable. */
export function drawTimeline(canvas, labels, timeline, seconds) {
  canvas.style.height = `${ROW * timeline.labels.length}px`;
  const { context, width, scale } = fresh(canvas);
  context.fillStyle = colourOf(canvas, "--accent");
  const at = edges(timeline, seconds);
  timeline.probabilities.forEach((row, w) => {
    // On whole pixels of the screen: no seams between windows.
    const [left, right] = [at[w], at[w + 1]].map(
      (second) => Math.round((second / seconds) * width * scale) / scale,
    );
    row.forEach((p, c) => {
      context.globalAlpha = p;
      context.fillRect(left, c * ROW + 1, right - left, ROW - 2);
    });
  });
  labels.replaceChildren(...timeline.labels.map((name, c) => {
    const span = label(name, (100 * (c + 0.5)) / timeline.labels.length);
    span.title = name;
    return span;
  }));
}

/** Steps between 0 and 1. */
export function drawConflict(canvas, timeline, seconds) {
  const { context, width, height } = fresh(canvas);
  context.fillStyle = colourOf(canvas, "--warm");
  const at = edges(timeline, seconds);
  timeline.conflict.forEach((value, w) => {
    const [left, right] = [at[w], at[w + 1]].map((second) => (second / seconds) * width);
    context.fillRect(left, height * (1 - value), right - left + 0.5, height * value);
  });
}

/** Seconds below the pictures, at steps that can be read. */
export function drawSeconds(axis, seconds) {
  const wanted = seconds / Math.max(2, axis.clientWidth / 90);
  const step = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120].find((s) => s >= wanted) ?? 300;
  const marks = Array.from({ length: Math.floor(seconds / step + 1e-9) + 1 }, (_, i) => {
    const span = document.createElement("span");
    span.textContent = `${Number((i * step).toFixed(2))} s`;
    span.style.left = `${(100 * i * step) / seconds}%`;
    return span;
  });
  axis.replaceChildren(...marks);
}

/** The window that is drawn at a second. */
export function windowAt(timeline, seconds, second) {
  return Math.max(0, edges(timeline, seconds).findLastIndex((edge) => edge <= second));
}

// Windows overlap; each is drawn around its middle, half way to its neighbours.
function edges({ starts, stops }, seconds) {
  const middles = starts.map((start, w) => (start + stops[w]) / 2);
  return [0, ...middles.slice(1).map((middle, w) => (middles[w] + middle) / 2), seconds];
}

function fresh(canvas) {
  const scale = window.devicePixelRatio || 1;
  const { width, height } = canvas.getBoundingClientRect();
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  return { context, width, height, scale };
}

function colourOf(element, name) {
  const probe = element.parentElement.appendChild(document.createElement("i"));
  probe.style.color = `var(${name})`;
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

function magma(level) {
  const place = level * (MAGMA.length - 1);
  const low = Math.min(Math.floor(place), MAGMA.length - 2);
  return MAGMA[low].map((value, i) => value + (place - low) * (MAGMA[low + 1][i] - value));
}

function label(text, percent) {
  const span = document.createElement("span");
  span.textContent = text;
  span.style.top = `${percent}%`;
  return span;
}
