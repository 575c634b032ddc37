// Charts as files: each says by itself what it shows, where it comes from and what it assumes.
import { draw, type Drawing } from "./drawing";
import { FONT, type Theme } from "./palette";

export type Cell = string | number | boolean | null | undefined;

export interface About {
  title: string;
  notes: string[];
}

const WIDTH = 960;
const MARGIN = 24;
const SVG = "http://www.w3.org/2000/svg";
const NOTE_CHARACTERS = 150;

// XML has no place for control characters, and a name from data may hold some.
const printable = (text: string): string => text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "");

function text(content: string, x: number, y: number, size: number, colour: string, weight = 400): SVGTextElement {
  const element = document.createElementNS(SVG, "text");
  const attributes = { x, y, "font-size": size, fill: colour, "font-weight": weight, "font-family": FONT };
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.textContent = printable(content);
  return element;
}

function wrapped(note: string): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of note.split(" ")) {
    if (line && line.length + word.length >= NOTE_CHARACTERS) {
      lines.push(line);
      line = "";
    }
    line += (line ? " " : "") + word;
  }
  return [...lines, line];
}

export function toSvg(about: About, drawing: Drawing, theme: Theme): string {
  const root = document.createElementNS(SVG, "svg");
  root.setAttribute("xmlns", SVG);
  const background = document.createElementNS(SVG, "rect");
  background.setAttribute("fill", theme.background);
  const heading = document.createElementNS(SVG, "title");
  heading.textContent = printable(about.title);
  root.append(heading, background, text(about.title, MARGIN, 34, 17, theme.text, 600));
  let y = 46;
  let x = MARGIN;
  const swatches = drawing.swatches?.(theme) ?? [];
  for (const each of swatches) {
    const wide = 30 + each.name.length * 7;
    if (x > MARGIN && x + wide > WIDTH - MARGIN) [x, y] = [MARGIN, y + 20];
    const mark = document.createElementNS(SVG, "rect");
    const attributes = { x, y: y + 6, width: 12, height: 12, rx: 2, fill: each.colour };
    for (const [name, value] of Object.entries(attributes)) mark.setAttribute(name, String(value));
    root.append(mark, text(each.name, x + 18, y + 16.5, 12.5, theme.text));
    x += wide;
  }
  y += swatches.length ? 34 : 14;
  const plot = draw(drawing, WIDTH - 2 * MARGIN, theme);
  const chart = plot instanceof SVGSVGElement ? plot : plot.querySelector("svg")!;
  chart.setAttribute("x", String(MARGIN));
  chart.setAttribute("y", String(y));
  chart.setAttribute("font-family", FONT);
  y += Number(chart.getAttribute("height")) + 22;
  root.append(chart);
  for (const line of about.notes.flatMap(wrapped)) {
    root.append(text(line, MARGIN, y, 11, theme.muted));
    y += 15;
  }
  const height = Math.ceil(y + 6);
  for (const element of [root, background]) {
    element.setAttribute("width", String(WIDTH));
    element.setAttribute("height", String(height));
  }
  root.setAttribute("viewBox", `0 0 ${WIDTH} ${height}`);
  // Names inside the drawing come from data too.
  return printable(new XMLSerializer().serializeToString(root));
}

export async function toPng(about: About, drawing: Drawing, theme: Theme): Promise<Blob> {
  const source = URL.createObjectURL(new Blob([toSvg(about, drawing, theme)], { type: "image/svg+xml" }));
  const image = new Image();
  image.src = source;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width * 2, image.height * 2];
  canvas.getContext("2d")!.drawImage(image, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(source);
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no PNG"))), "image/png"),
  );
}

/** A cell that no spreadsheet takes for a formula. */
function cell(value: Cell): string {
  if (value === null || value === undefined) return "";
  if (typeof value !== "string") return String(value);
  const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

export function toCsv(about: About, rows: Record<string, Cell>[]): string {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const comments = [about.title, ...about.notes].map((line) => `# ${line.replace(/\s+/g, " ")}`);
  const lines = rows.map((row) => columns.map((column) => cell(row[column])).join(","));
  return [...comments, columns.join(","), ...lines].join("\n") + "\n";
}

export function download(name: string, content: string | Blob, type = ""): void {
  const blob = typeof content === "string" ? new Blob([content], { type: `${type};charset=utf-8` }) : content;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name.replace(/[^\w.-]+/g, "-");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
