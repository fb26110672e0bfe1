"use strict";
// From the file of a photograph to the image that the network sees.
//
// A canvas would resize differently in each browser, so the canvas only decodes, and the resizing is that of Python's
// Pillow to the last bit: a triangle filter as wide as the reduction, first along rows, then along columns, with results
// rounded to 8 bits in between.

const PRECISION = 22; // bits after the point of a weight, as in Pillow's Resample.c
const BAND = 256; // rows that are read from the canvas at a time: a photograph of 200 megapixels needs no gigabytes

// For each pixel of the result: the first pixel that it is made of, and their weights as integers.
function triangleWeights(from, to) {
  const scale = from / to;
  const support = Math.max(scale, 1);
  const found = [];
  for (let i = 0; i < to; i++) {
    const centre = (i + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const end = Math.min(Math.trunc(centre + support + 0.5), from);
    const weights = [];
    let sum = 0;
    for (let j = first; j < end; j++) {
      const weight = Math.max(1 - Math.abs((j - centre + 0.5) * (1 / support)), 0);
      weights.push(weight);
      sum += weight;
    }
    const whole = weights.map((weight) => Math.trunc(0.5 + (sum === 0 ? weight : weight / sum) * (1 << PRECISION)));
    found.push({ first, weights: Int32Array.from(whole) });
  }
  return found;
}

// Reduce rows of RGBA pixels to rows of RGB pixels, `side` of them in each.
function shrinkRows(pixels, width, rows, columns, result, top) {
  const half = 1 << (PRECISION - 1);
  for (let y = 0; y < rows; y++) {
    let at = (top + y) * columns.length * 3;
    for (const { first, weights } of columns) {
      let red = half, green = half, blue = half;
      let from = (y * width + first) * 4;
      for (const weight of weights) {
        red += pixels[from] * weight;
        green += pixels[from + 1] * weight;
        blue += pixels[from + 2] * weight;
        from += 4;
      }
      result[at++] = red >> PRECISION;
      result[at++] = green >> PRECISION;
      result[at++] = blue >> PRECISION;
    }
  }
}

// Reduce the number of rows of RGB pixels, of which each has `side`.
function shrinkColumns(pixels, side, rows) {
  const length = side * 3;
  const result = new Uint8Array(rows.length * length);
  rows.forEach(({ first, weights }, y) => {
    for (let x = 0; x < length; x++) {
      let sum = 1 << (PRECISION - 1);
      for (let j = 0; j < weights.length; j++) sum += pixels[(first + j) * length + x] * weights[j];
      result[y * length + x] = sum >> PRECISION;
    }
  });
  return result;
}

// Resize a whole image to a square. `readRows(top, count)` returns rows of it as RGBA.
function toSquare(readRows, width, height, side) {
  const columns = triangleWeights(width, side);
  const narrow = new Uint8Array(height * side * 3);
  for (let top = 0; top < height; top += BAND) {
    const count = Math.min(BAND, height - top);
    shrinkRows(readRows(top, count), width, count, columns, narrow, top);
  }
  return shrinkColumns(narrow, side, triangleWeights(height, side));
}

// Decode a photograph, upright and in sRGB, transparent parts on white. Returns the network's image, uint8
// (side, side, 3), and a small picture for the table. Throws if the browser cannot decode it.
async function readPhotograph(file, side) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  try {
    const { width, height } = bitmap;
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = Math.min(BAND, height);
    const context = canvas.getContext("2d", { colorSpace: "srgb", willReadFrequently: true });
    context.imageSmoothingEnabled = false;
    context.fillStyle = "white";
    const readRows = (top, count) => {
      context.fillRect(0, 0, width, count);
      context.drawImage(bitmap, 0, top, width, count, 0, 0, width, count);
      return context.getImageData(0, 0, width, count).data;
    };
    return { image: toSquare(readRows, width, height, side), picture: thumbnail(bitmap) };
  } finally {
    bitmap.close();
  }
}

function thumbnail(bitmap) {
  const scale = Math.min(1, 144 / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas;
}

// The drawn image by which the page checks itself before it is used: Python knows its probability.
function checkImage({ width, height }, side) {
  const readRows = (top, count) => {
    const pixels = new Uint8Array(width * count * 4);
    for (let y = 0; y < count; y++) {
      for (let x = 0; x < width; x++) {
        for (let c = 0; c < 3; c++) {
          pixels[(y * width + x) * 4 + c] = (x * (c + 1) + (top + y) * 2 + ((x * (top + y)) >> 6)) & 255;
        }
      }
    }
    return pixels;
  };
  return toSquare(readRows, width, height, side);
}
