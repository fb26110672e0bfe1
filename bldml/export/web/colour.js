"use strict";
// Colours of a JPEG with an embedded profile of red, green and blue, such as Display P3 or Adobe RGB, as sRGB.
//
// Browsers convert them too, but up to two grey levels differently from each other and from Python. This is the
// arithmetic of LittleCMS, by which Pillow converts 8-bit images: a curve, a matrix and a curve in 14-bit fixed point.

const PROFILE_BYTES = 1 << 20; // profiles come before the pixels; those of phones and cameras have less than 4 KiB
const ONE = 1 << 14;
// From CIE XYZ (D50) to linear sRGB: the inverse of the matrix of LittleCMS's own sRGB profile.
const TO_SRGB = [
  [3.13418636, -1.61720896, -0.49069406],
  [-0.9787485, 1.9161301, 0.0334334],
  [0.07196393, -0.22899387, 1.40575373],
];
const toFixed = (value) => Math.floor(value * ONE + 0.5);

// The profile of a JPEG, or null.
async function readProfile(file) {
  const view = new DataView(await file.slice(0, PROFILE_BYTES).arrayBuffer());
  if (view.byteLength < 4 || view.getUint16(0) !== 0xffd8) return null;
  const parts = [];
  for (let at = 2; at + 18 < view.byteLength && view.getUint8(at) === 0xff; at += 2 + view.getUint16(at + 2)) {
    if (view.getUint8(at + 1) === 0xda) break; // pixels follow
    const bytes = new Uint8Array(view.buffer, at + 4, Math.min(view.getUint16(at + 2) - 2, view.byteLength - at - 4));
    const isProfile = view.getUint8(at + 1) === 0xe2 && String.fromCharCode(...bytes.slice(0, 12)) === "ICC_PROFILE\0";
    if (isProfile) parts[bytes[12]] = bytes.slice(14); // numbered from 1
  }
  const found = parts.filter(Boolean);
  return found.length ? new Uint8Array(await new Blob(found).arrayBuffer()) : null;
}

// A function that converts RGBA pixels to sRGB in place, or null for a profile of another kind. It does nothing for
// sRGB under another name: profiles that change no colour by more than two levels.
function conversionOf(profile) {
  try {
    const view = new DataView(profile.buffer);
    const tags = new Map();
    const name = (at) => String.fromCharCode(...profile.slice(at, at + 4));
    for (let i = 0; i < view.getUint32(128); i++) tags.set(name(132 + 12 * i), view.getUint32(136 + 12 * i));
    if (name(16) !== "RGB " || name(20) !== "XYZ " || tags.has("A2B0")) return null;
    const columns = ["rXYZ", "gXYZ", "bXYZ"].map((tag) => [8, 12, 16].map((at) => view.getInt32(tags.get(tag) + at) / 65536));
    const matrix = TO_SRGB.map((row) => columns.map((column) => toFixed(row.reduce((sum, x, i) => sum + x * column[i], 0))));
    const curves = ["rTRC", "gTRC", "bTRC"].map((tag) => linearised(view, tags.get(tag), name));
    const convert = converter(matrix, curves);
    return changes(convert) ? convert : () => {};
  } catch (error) {
    if (error instanceof RangeError || error instanceof TypeError) return null; // damaged
    throw error;
  }
}

// The light of each of the 256 levels, in fixed point.
function linearised(view, at, name) {
  const numbers = (start, count) => Array.from({ length: count }, (_, i) => view.getInt32(start + 4 * i) / 65536);
  let light;
  if (name(at) === "para") {
    const kind = view.getUint16(at + 8);
    const [g, a = 1, b = 0, c = 0, d = 0, e = 0, f = 0] = numbers(at + 12, [1, 3, 4, 5, 7][kind]);
    const from = kind === 1 || kind === 2 ? -b / a : d;
    const [above, below] = kind === 2 ? [c, c] : kind === 4 ? [e, f] : [0, 0];
    const slope = kind >= 3 ? c : 0;
    light = (level) => shape(level / 255);
    const shape = (x) => (kind === 0 || x >= from ? (a * x + b) ** g + above : slope * x + below);
  } else {
    const count = view.getUint32(at + 8);
    if (name(at) !== "curv") throw new TypeError("a curve of another kind");
    const value = (i) => view.getUint16(at + 12 + 2 * i);
    if (count === 0) light = (level) => level / 255;
    else if (count === 1) light = (level) => (level / 255) ** (value(0) / 256);
    else light = (level) => (level === 255 ? value(count - 1) : between(value, (count - 1) * level * 257)) / 65535;
  }
  return Int32Array.from({ length: 256 }, (_, level) => toFixed(light(level)));
}

// A value of a table between two entries, rounded to 16 bits; the place is (entries - 1) × (0 to 65535).
function between(value, place) {
  const fixed = place + Math.floor((place + 0x7fff) / 0xffff); // 16 bits after the point
  const first = Math.floor(fixed / 65536), rest = fixed % 65536;
  return value(first) + Math.floor(((value(first + 1) - value(first)) * rest + 0x8000) / 65536);
}

function converter(matrix, curves) {
  const encoded = Uint8Array.from({ length: ONE + 1 }, (_, i) => {
    const light = i / ONE;
    const signal = light <= 0.0031308 ? light * 12.92 : 1.055 * light ** (1 / 2.4) - 0.055;
    const word = Math.floor(Math.min(Math.max(signal * 65535, 0), 65535) + 0.5);
    return Math.floor((word * 65281 + 8388608) / 2 ** 24); // from 16 to 8 bits
  });
  const level = (row, red, green, blue) => {
    const light = (row[0] * red + row[1] * green + row[2] * blue + ONE / 2) >> 14;
    return encoded[Math.min(Math.max(light, 0), ONE)];
  };
  return (pixels) => {
    for (let at = 0; at < pixels.length; at += 4) {
      const red = curves[0][pixels[at]], green = curves[1][pixels[at + 1]], blue = curves[2][pixels[at + 2]];
      pixels[at] = level(matrix[0], red, green, blue);
      pixels[at + 1] = level(matrix[1], red, green, blue);
      pixels[at + 2] = level(matrix[2], red, green, blue);
    }
  };
}

// Whether a conversion changes any of 729 colours by more than two levels.
function changes(convert) {
  const levels = [0, 31, 63, 95, 127, 159, 191, 223, 255];
  const colours = levels.flatMap((r) => levels.flatMap((g) => levels.flatMap((b) => [r, g, b, 255])));
  const converted = Uint8Array.from(colours);
  convert(converted);
  return converted.some((value, i) => Math.abs(value - colours[i]) > 2);
}

// Whether this browser can leave out its own conversion, by a small JPEG whose profile exchanges red and blue.
async function keepsRawColours(jpeg) {
  const bitmap = await createImageBitmap(new Blob([jpeg]), { colorSpaceConversion: "none" });
  const context = document.createElement("canvas").getContext("2d", { colorSpace: "srgb" });
  context.drawImage(bitmap, 0, 0);
  const [red, , blue] = context.getImageData(1, 1, 1, 1).data;
  return red > blue;
}
