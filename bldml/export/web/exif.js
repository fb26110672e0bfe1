"use strict";
// Time and position of a photograph, from the EXIF of a JPEG. What is missing, damaged or impossible is null: a position
// without its hemisphere is never guessed, and 0, 0 is what a camera without a fix writes.

const EXIF_BYTES = 1 << 18; // a segment holds at most 64 KiB, and EXIF is one of the first

async function readTimeAndPlace(file) {
  try {
    const view = new DataView(await file.slice(0, EXIF_BYTES).arrayBuffer());
    const start = exifStart(view);
    return start === null ? { time: null, position: null } : parseExif(view, start);
  } catch (error) {
    if (error instanceof RangeError || error instanceof DOMException) return { time: null, position: null };
    throw error;
  }
}

// Where the TIFF header begins; null without EXIF.
function exifStart(view) {
  if (view.byteLength < 4 || view.getUint16(0) !== 0xffd8) return null;
  for (let at = 2; at + 10 < view.byteLength && view.getUint8(at) === 0xff; at += 2 + view.getUint16(at + 2)) {
    if (view.getUint8(at + 1) === 0xda) return null; // pixels follow
    if (view.getUint8(at + 1) === 0xe1 && view.getUint32(at + 4) === 0x45786966) return at + 10; // "Exif"
  }
  return null;
}

function parseExif(view, start) {
  const little = view.getUint16(start) === 0x4949;
  const u16 = (at) => view.getUint16(at, little);
  const u32 = (at) => view.getUint32(at, little);
  const sizes = { 1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1 };
  const directory = (at) => {
    const found = new Map();
    for (let i = 0; i < u16(at); i++) {
      const entry = at + 2 + 12 * i;
      const count = u32(entry + 4);
      const bytes = (sizes[u16(entry + 2)] ?? 0) * count;
      found.set(u16(entry), { count, at: bytes <= 4 ? entry + 8 : start + u32(entry + 8) });
    }
    return found;
  };
  const text = (entry) => {
    let result = "";
    for (let i = 0; entry && i < Math.min(entry.count, 64); i++) {
      const code = view.getUint8(entry.at + i);
      if (code === 0) break;
      result += String.fromCharCode(code);
    }
    return result.trim();
  };
  const degrees = (entry, reference, hemispheres, most) => {
    const sign = hemispheres[text(reference).toUpperCase()];
    if (!entry || !sign || entry.count < 1 || entry.count > 3) return null;
    let sum = 0;
    for (let i = 0; i < entry.count; i++) sum += u32(entry.at + 8 * i) / u32(entry.at + 8 * i + 4) / 60 ** i;
    return Number.isFinite(sum) && sum <= most ? sign * sum : null; // 0/0 is not finite
  };
  const main = directory(start + u32(start + 4));
  const part = (tag) => (main.has(tag) ? directory(start + u32(main.get(tag).at)) : new Map());
  const exif = part(0x8769), gps = part(0x8825);
  const latitude = degrees(gps.get(2), gps.get(1), { N: 1, S: -1 }, 90);
  const longitude = degrees(gps.get(4), gps.get(3), { E: 1, W: -1 }, 180);
  const known = latitude !== null && longitude !== null && (latitude !== 0 || longitude !== 0);
  return { time: isoTime(text(exif.get(0x9003)), text(exif.get(0x9011))), position: known ? [longitude, latitude] : null };
}

// "2026:11:29 09:30:00" as "2026-11-29T09:30:00", with the offset from UTC if the camera wrote it.
function isoTime(text, offset) {
  const found = /^(\d{4}):(\d\d):(\d\d) (\d\d:\d\d:\d\d)$/.exec(text);
  if (!found || found[1] === "0000") return null;
  return `${found[1]}-${found[2]}-${found[3]}T${found[4]}${/^[+-]\d\d:\d\d$/.test(offset) ? offset : ""}`;
}
