/** Makes visible what untrusted text could hide: control characters, direction overrides, lone surrogates. */
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\p{Cs}]/gu;

function visible(text) {
  return text.replace(HIDDEN, (character) => {
    const code = character.codePointAt(0);
    if (code < 0x20) return String.fromCodePoint(0x2400 + code);
    return `\u27e8U+${code.toString(16).toUpperCase().padStart(4, "0")}\u27e9`;
  });
}

/** The longest beginning of a text up to a length that cuts no character in two: some take two code units. */
function beginning(text, length) {
  const isCut = length > 0 && length < text.length && /[\ud800-\udbff]/.test(text[length - 1]);
  return text.slice(0, isCut ? length - 1 : length);
}

/** A number as people read it. */
function shown(value, digits = 4) {
  if (value === null || value === undefined) return "\u2013";
  if (typeof value === "string") return value;
  if (value === 0 || Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  return (size >= 1e5 || size < 1e-4 ? value.toExponential(digits - 1) : Number(value.toPrecision(digits)).toString()).replace("-", "\u2212");
}

function signed(value, digits = 3) {
  const text = shown(Number(value.toFixed(digits)));
  return value > 0 ? `+${text}` : text;
}
