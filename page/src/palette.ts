// Okabe and Ito's colours, told apart under every common colour-vision deficiency; shapes and
// dashes tell the same once more.
import { useEffect, useState } from "preact/hooks";
import { useQuery } from "./url";

export interface Theme {
  name: "light" | "dark";
  text: string;
  muted: string;
  line: string;
  background: string;
  series: string[];
  good: string;
  bad: string;
}

const OKABE_ITO = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];

export const LIGHT: Theme = {
  name: "light",
  text: "#1b2128",
  muted: "#59636e",
  line: "#d5dae0",
  background: "#ffffff",
  series: [...OKABE_ITO, "#000000"],
  good: "#0072B2",
  bad: "#B84F00",
};

export const DARK: Theme = {
  name: "dark",
  text: "#e4e8ed",
  muted: "#9aa5b1",
  line: "#333b45",
  background: "#14181d",
  // The same hues, the darkest two lifted: blue on near-black would be lost.
  series: ["#3D9BDC", "#F0803C", "#1FBE90", "#DE93BC", "#E69F00", "#7CCBF5", "#ffffff"],
  good: "#56B4E9",
  bad: "#F0803C",
};

const SYMBOLS = ["circle", "square2", "triangle", "diamond2", "star", "cross", "hexagon"] as const;
export const FONT = "-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif";

export type SymbolName = (typeof SYMBOLS)[number];

/** Outlines of the symbols about 0,0, for the legend. */
export const OUTLINES: Record<SymbolName, string> = {
  circle: "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0",
  square2: "M-3.8,-3.8h7.6v7.6h-7.6z",
  triangle: "M0,-5L4.8,3.6H-4.8z",
  diamond2: "M0,-5.2L5.2,0L0,5.2L-5.2,0z",
  star: "M0.0,-5.4L1.2,-1.7L5.1,-1.7L2.0,0.6L3.2,4.4L0.0,2.1L-3.2,4.4L-2.0,0.6L-5.1,-1.7L-1.2,-1.7z",
  cross: "M-4.5,-1.5h3v-3h3v3h3v3h-3v3h-3v-3h-3z",
  hexagon: "M4.6,0L2.3,4L-2.3,4L-4.6,0L-2.3,-4L2.3,-4z",
};

export interface Look {
  colour: string;
  symbol: SymbolName;
  dash: string;
}

export function look(index: number, theme: Theme): Look {
  const turn = Math.floor(index / theme.series.length);
  return {
    colour: theme.series[index % theme.series.length]!,
    symbol: SYMBOLS[index % SYMBOLS.length]!,
    dash: ["none", "7 3", "2 3"][turn % 3]!,
  };
}

const dark = matchMedia("(prefers-color-scheme: dark)");

export function useTheme(): Theme {
  const asked = useQuery().get("theme");
  const [system, setSystem] = useState(dark.matches);
  useEffect(() => {
    const listener = () => setSystem(dark.matches);
    dark.addEventListener("change", listener);
    return () => dark.removeEventListener("change", listener);
  }, []);
  return (asked === "dark" || asked === "light" ? asked === "dark" : system) ? DARK : LIGHT;
}
