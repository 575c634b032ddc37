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

const SYMBOLS = ["circle", "square2", "triangle", "diamond2", "star", "wye", "cross"] as const;
export type SymbolName = (typeof SYMBOLS)[number];

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
