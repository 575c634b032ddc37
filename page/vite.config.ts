// One classic script, one stylesheet, no hashes in their names: the same files serve HTTP and file://.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { defineConfig, type Plugin } from "vite";

const OUT = "../upcurve/dashboard/static";
const SOURCES = [
  "src",
  "public",
  "contract.json",
  "package.json",
  "package-lock.json",
  "tsconfig.json",
  "vite.config.ts",
];

function files(path: string): string[] {
  if (!statSync(path).isDirectory()) return [path];
  return readdirSync(path).flatMap((name) => files(join(path, name)));
}

function hashes(paths: string[], root: string): Record<string, string> {
  const digest = (path: string) => createHash("sha256").update(readFileSync(path)).digest("hex");
  const pairs = paths.map((path) => [relative(root, path), digest(path)] as const);
  return Object.fromEntries(pairs.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Writes which sources the bundle was built from: a test without node holds both against it. */
function manifest(): Plugin {
  return {
    name: "manifest",
    closeBundle() {
      const sources = hashes(SOURCES.flatMap(files), ".");
      const built = hashes(
        files(OUT).filter((path) => !path.endsWith("manifest.json")),
        OUT,
      );
      writeFileSync(join(OUT, "manifest.json"), JSON.stringify({ sources, built }, null, 1) + "\n");
    },
  };
}

export default defineConfig({
  base: "./",
  build: {
    outDir: OUT,
    emptyOutDir: true,
    target: "es2022",
    cssCodeSplit: false,
    license: { fileName: "licences.txt" },
    rollupOptions: {
      input: "src/main.tsx",
      output: { format: "iife", entryFileNames: "app.js", assetFileNames: "app[extname]" },
    },
  },
  plugins: [manifest()],
});
