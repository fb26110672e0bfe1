"use strict";
// From the file of a photograph to the image that the network sees.
//
// A canvas would resize differently in each browser, so the canvas only decodes, and the resizing is that of Python's
// Pillow to the last bit: a triangle filter as wide as the reduction, along one side and then along the other, with
// results rounded to 8 bits in between.

const PRECISION = 22; // bits after the point of a weight, as in Pillow's Resample.c
const BAND = 256; // rows or columns that are read at a time: a photograph of 200 megapixels needs no gigabytes

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

// Reduce lines of pixels, red, green and blue: rows or columns, as the steps say. In an array, a line begins
// `step.line` after the one before it, and a pixel `step.pixel` after the one before it in its line.
function shrink(source, from, lines, filter, result, to, start) {
  const half = 1 << (PRECISION - 1);
  for (let line = 0; line < lines; line++) {
    let target = start + line * to.line;
    for (const { first, weights } of filter) {
      let red = half, green = half, blue = half;
      let at = line * from.line + first * from.pixel;
      for (const weight of weights) {
        red += source[at] * weight;
        green += source[at + 1] * weight;
        blue += source[at + 2] * weight;
        at += from.pixel;
      }
      result[target] = red >> PRECISION;
      result[target + 1] = green >> PRECISION;
      result[target + 2] = blue >> PRECISION;
      target += to.pixel;
    }
  }
}

// Resize a whole image to a square. `read(left, top, width, height)` returns a part of it as RGBA.
function toSquare(read, width, height, side) {
  const columns = triangleWeights(width, side), rows = triangleWeights(height, side);
  const square = new Uint8Array(side * side * 3);
  const inRows = (length) => ({ line: length * 3, pixel: 3 });
  const inColumns = (length) => ({ line: 3, pixel: length * 3 });
  // Pillow 13 begins with the columns of a portrait that is reduced more in height; results differ by a grey level.
  if (height > side && height - side > 2 * (width - side)) {
    const low = new Uint8Array(width * side * 3);
    for (let left = 0; left < width; left += BAND) {
      const count = Math.min(BAND, width - left);
      const part = read(left, 0, count, height);
      shrink(part, { line: 4, pixel: count * 4 }, count, rows, low, inColumns(width), left * 3);
    }
    shrink(low, inRows(width), side, columns, square, inRows(side), 0);
  } else {
    const narrow = new Uint8Array(side * height * 3);
    for (let top = 0; top < height; top += BAND) {
      const count = Math.min(BAND, height - top);
      const part = read(0, top, width, count);
      shrink(part, { line: width * 4, pixel: 4 }, count, columns, narrow, inRows(side), top * side * 3);
    }
    shrink(narrow, inColumns(side), side, rows, square, inColumns(side), 0);
  }
  return square;
}

// Decode a photograph, upright and in sRGB, transparent parts on white. Returns the network's image, uint8
// (side, side, 3), and a small picture for the table. Throws if the browser cannot decode it.
// `isRaw` says whether the browser can leave the conversion of colours to `conversionOf`.
async function readPhotograph(file, side, isRaw) {
  const profile = isRaw ? await readProfile(file) : null;
  const convert = profile && conversionOf(profile);
  const colorSpaceConversion = convert ? "none" : "default";
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion });
  try {
    const canvas = document.createElement("canvas");
    const context = canvas.getContext("2d", { colorSpace: "srgb", willReadFrequently: true });
    const read = (left, top, width, height) => {
      canvas.width = width;
      canvas.height = height;
      context.imageSmoothingEnabled = false;
      context.fillStyle = "white";
      context.fillRect(0, 0, width, height);
      context.drawImage(bitmap, left, top, width, height, 0, 0, width, height);
      const pixels = context.getImageData(0, 0, width, height).data;
      convert?.(pixels);
      return pixels;
    };
    return { image: toSquare(read, bitmap.width, bitmap.height, side), picture: thumbnail(bitmap) };
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
  const read = (left, top, columns, rows) => {
    const pixels = new Uint8Array(columns * rows * 4);
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const x = left + column, y = top + row;
        for (let c = 0; c < 3; c++) {
          pixels[(row * columns + column) * 4 + c] = (x * (c + 1) + y * 2 + ((x * y) >> 6)) & 255;
        }
      }
    }
    return pixels;
  };
  return toSquare(read, width, height, side);
}
