// A model of `yoloseg export format=tfjs` in a web page: picture in, objects with masks out. Needs the global `tf` of TensorFlow.js.
// The steps are those of the Python package: letterbox, network, non-maximum suppression, masks at the picture's own resolution.

const MASKS = 32; // coefficients of each object, and prototypes that they weigh
const CELL = 4; // input pixels of one prototype cell

export class YoloSeg {
  // url: of the folder's model.json. Throws an Error with what is wrong.
  static async load(url) {
    await tf.ready();
    const model = await tf.loadGraphModel(url);
    const own = model.metadata && model.metadata.fiftyone_yoloseg;
    if (!own) throw new Error(`${url}: not exported by fiftyone-yoloseg, so its class names and input are unknown`);
    const { names, imgsz, batch, letterbox } = JSON.parse(own);
    if (batch !== 1) throw new Error(`${url}: takes ${batch} pictures at a time; export it with batch=1`);
    return new YoloSeg(model, names, imgsz, letterbox.pad_value);
  }

  constructor(model, names, [height, width], padValue) {
    Object.assign(this, { model, names, height, width, padValue });
  }

  // source: an image, video or canvas element, or ImageData. conf: least confidence. iou: boxes of one class that overlap more are one object.
  // Returns, by falling confidence, {classId, name, confidence, box, mask}: box is [x1, y1, x2, y2] in pixels of the source, mask is
  // {x, y, width, height, data}, its rectangle in the source and one byte a pixel, 1 where the object is.
  async predict(source, { conf = 0.25, iou = 0.7, maxDet = 300 } = {}) {
    const { image, fit } = this.letterbox(source);
    const [pred, protos] = tf.tidy(() => this.model.execute({ images: image }, ["output0", "output1"]));
    image.dispose();
    const [rows, channels, anchors] = [await pred.data(), pred.shape[1], pred.shape[2]];
    const [cells, [, height, width]] = [await protos.data(), protos.shape];
    pred.dispose();
    protos.dispose();

    const found = candidates(rows, channels, anchors, conf);
    return suppress(found, iou).slice(0, maxDet).map((object) => {
      const box = toSource(object.box, fit);
      const coefficients = Array.from({ length: MASKS }, (_, i) => rows[(channels - MASKS + i) * anchors + object.anchor]);
      const mask = drawMask(coefficients, cells, height, width, box, fit);
      return { classId: object.classId, name: this.names[object.classId], confidence: object.confidence, box, mask };
    });
  }

  // The source scaled into the middle of a grey input, (1, height, width, 3) in [0, 1], and how it was placed there.
  letterbox(source) {
    return tf.tidy(() => {
      const pixels = tf.browser.fromPixels(atFullSize(source));
      const [height, width] = pixels.shape;
      const ratio = Math.min(this.height / height, this.width / width);
      const [h, w] = [Math.max(roundEven(height * ratio), 1), Math.max(roundEven(width * ratio), 1)];
      const [top, left] = [Math.floor((this.height - h) / 2), Math.floor((this.width - w) / 2)];
      // half-pixel centres, rounded to whole grey values: what OpenCV does
      const resized = h === height && w === width ? pixels.toFloat() : tf.image.resizeBilinear(pixels, [h, w], false, true).round();
      const padded = resized.pad([[top, this.height - h - top], [left, this.width - w - left], [0, 0]], this.padValue);
      const fit = { height, width, left, top, sx: w / width, sy: h / height };
      return { image: tf.keep(padded.div(255).expandDims()), fit };
    });
  }
}

// Paint the objects over the source; canvas gets the source's size.
export function draw(canvas, source, objects) {
  const [width, height] = sizeOf(source);
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.drawImage(source, 0, 0, width, height);
  const pixels = context.getImageData(0, 0, width, height);
  for (const { classId, mask } of [...objects].reverse()) {
    const colour = colourOf(classId);
    for (let i = 0; i < mask.data.length; i++) {
      if (!mask.data[i]) continue;
      const at = 4 * ((mask.y + Math.floor(i / mask.width)) * width + mask.x + (i % mask.width));
      for (let c = 0; c < 3; c++) pixels.data[at + c] = 0.5 * pixels.data[at + c] + 0.5 * colour[c];
    }
  }
  context.putImageData(pixels, 0, 0);
  const size = Math.max(12, Math.round(Math.min(width, height) / 32));
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.lineWidth = Math.max(2, size / 8);
  context.textBaseline = "top";
  for (const { classId, name, confidence, box: [x1, y1, x2, y2] } of [...objects].reverse()) {
    context.strokeStyle = context.fillStyle = `rgb(${colourOf(classId)})`;
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    const text = `${name} ${confidence.toFixed(2)}`;
    const room = context.measureText(text).width + size / 2;
    const [x, y] = [Math.max(0, Math.min(x1, width - room)), Math.max(0, y1 - size * 1.3)];
    context.fillRect(x, y, room, size * 1.3);
    context.fillStyle = "white";
    context.fillText(text, x + size / 4, y + size * 0.15);
  }
}

export function colourOf(classId) {
  // steps of the golden angle: neighbours differ, and there is no end of colours
  const hue = (classId * 137.508 + 210) % 360;
  return [0, 8, 4].map((n) => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (0.45 - 0.36 * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  });
}

function sizeOf(source) {
  return [source.naturalWidth || source.videoWidth || source.width, source.naturalHeight || source.videoHeight || source.height];
}

// TensorFlow.js would read an <img> at the size that the page shows it in.
function atFullSize(source) {
  const [width, height] = sizeOf(source);
  if (!(source instanceof HTMLImageElement) || (source.width === width && source.height === height)) return source;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d").drawImage(source, 0, 0, width, height);
  return canvas;
}

// Anchors whose best class is confident enough, by falling confidence. rows: (channels, anchors).
function candidates(rows, channels, anchors, conf) {
  const found = [];
  for (let anchor = 0; anchor < anchors; anchor++) {
    let [classId, confidence] = [0, rows[4 * anchors + anchor]];
    for (let c = 5; c < channels - MASKS; c++) {
      if (rows[c * anchors + anchor] > confidence) [classId, confidence] = [c - 4, rows[c * anchors + anchor]];
    }
    if (!(confidence > conf)) continue;
    const [x, y, w, h] = [0, 1, 2, 3].map((i) => rows[i * anchors + anchor]);
    found.push({ anchor, classId, confidence, box: [x - w / 2, y - h / 2, x + w / 2, y + h / 2] });
  }
  return found.sort((a, b) => b.confidence - a.confidence);
}

// Greedy non-maximum suppression within each class.
function suppress(found, iou) {
  const kept = [];
  for (const object of found) {
    if (kept.every((k) => k.classId !== object.classId || overlap(k.box, object.box) <= iou)) kept.push(object);
  }
  return kept;
}

function overlap(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (width <= 0 || height <= 0) return 0;
  const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
  return (width * height) / (area(a) + area(b) - width * height);
}

function toSource([x1, y1, x2, y2], { width, height, left, top, sx, sy }) {
  const clip = (value, end) => Math.max(0, Math.min(value, end));
  return [clip((x1 - left) / sx, width), clip((y1 - top) / sy, height), clip((x2 - left) / sx, width), clip((y2 - top) / sy, height)];
}

// The mask of one object: prototypes weighed by its coefficients, bilinear at the centre of each pixel of its box, positive is inside.
// protos: (rows, columns, 32).
function drawMask(coefficients, protos, rows, columns, box, { left, top, sx, sy }) {
  const [x, y, right, bottom] = box.map(Math.ceil);
  const mask = { x, y, width: Math.max(right - x, 0), height: Math.max(bottom - y, 0) };
  mask.data = new Uint8Array(mask.width * mask.height);
  if (!mask.data.length) return mask;
  const column = (i) => ((i + 0.5) * sx + left) / CELL - 0.5;
  const row = (j) => ((j + 0.5) * sy + top) / CELL - 0.5;
  const clip = (value, end) => Math.max(0, Math.min(value, end - 1));
  const [u0, u1] = [clip(Math.floor(column(x)), columns), clip(Math.floor(column(right - 1)) + 1, columns)];
  const [v0, v1] = [clip(Math.floor(row(y)), rows), clip(Math.floor(row(bottom - 1)) + 1, rows)];
  const wide = u1 - u0 + 1;
  const logits = new Float32Array(wide * (v1 - v0 + 1)); // only of the cells under the box
  for (let v = v0; v <= v1; v++) {
    for (let u = u0; u <= u1; u++) {
      let sum = 0;
      for (let k = 0; k < MASKS; k++) sum += coefficients[k] * protos[(v * columns + u) * MASKS + k];
      logits[(v - v0) * wide + u - u0] = sum;
    }
  }
  const at = (u, v) => logits[(Math.max(v0, Math.min(v, v1)) - v0) * wide + Math.max(u0, Math.min(u, u1)) - u0];
  for (let j = 0; j < mask.height; j++) {
    const v = row(y + j);
    const [vi, vf] = [Math.floor(v), v - Math.floor(v)];
    for (let i = 0; i < mask.width; i++) {
      const u = column(x + i);
      const [ui, uf] = [Math.floor(u), u - Math.floor(u)];
      const upper = at(ui, vi) * (1 - uf) + at(ui + 1, vi) * uf;
      const lower = at(ui, vi + 1) * (1 - uf) + at(ui + 1, vi + 1) * uf;
      mask.data[j * mask.width + i] = upper * (1 - vf) + lower * vf > 0 ? 1 : 0;
    }
  }
  return mask;
}

function roundEven(value) {
  // halves to the even number, as Python does
  return value % 1 === 0.5 ? 2 * Math.round(value / 2) : Math.round(value);
}
