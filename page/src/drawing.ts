// What a chart is made of: marks for Observable Plot, and the places that can be pointed at.
import * as Plot from "@observablehq/plot";
import type { Reference } from "./links";
import { FONT, type Theme } from "./palette";

/** A place of a chart that can be pointed at: by mouse, finger or arrow keys. */
export interface Hit {
  id: string;
  x: number | string | Date;
  y: number | string;
  colour: string;
  title: string;
  rows: [string, string][];
  links?: Reference[];
}

export interface Swatch {
  name: string;
  colour: string;
}

export interface Drawing {
  /** The marks and scales at a width in pixels. */
  options: (width: number, theme: Theme) => Plot.PlotOptions;
  hits: (theme: Theme) => Hit[];
  swatches?: (theme: Theme) => Swatch[];
}

export function draw(drawing: Drawing, width: number, theme: Theme): (SVGSVGElement | HTMLElement) & Plot.Plot {
  return Plot.plot({
    width,
    className: "plot",
    style: { color: theme.text, background: "transparent", fontSize: "12px", fontFamily: FONT },
    ...drawing.options(width, theme),
  });
}

/** Pixels of a place, from the scales of the chart as drawn; bands by their middle. */
export function pixels(plot: Plot.Plot, hit: Hit): [number, number] {
  const of = (name: "x" | "y", value: Hit["x"]) => {
    const scale = plot.scale(name);
    return scale ? Number(scale.apply(value)) + (scale.bandwidth ?? 0) / 2 : NaN;
  };
  return [of("x", hit.x), of("y", hit.y)];
}
