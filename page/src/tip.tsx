// What stands beside the point that is pointed at, and the ring around it.
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Hit } from "./drawing";
import { ReferenceLink } from "./links";

export function Ring({ at, colour }: { at: [number, number]; colour: string }) {
  return (
    <svg
      class="ring"
      style={{ left: `${at[0] - 9}px`, top: `${at[1] - 9}px` }}
      width="18"
      height="18"
      aria-hidden="true"
    >
      <circle cx="9" cy="9" r="7" fill="none" stroke={colour} stroke-width="2" />
    </svg>
  );
}

interface TipProps {
  hit: Hit;
  at: [number, number];
  width: number;
  pinned: boolean;
  close: () => void;
}

export function Tip({ hit, at, width, pinned, close }: TipProps) {
  const box = useRef<HTMLDivElement>(null);
  const [[left, top], place] = useState([0, 0]);
  useLayoutEffect(() => {
    const { offsetWidth: wide, offsetHeight: high, parentElement } = box.current!;
    const right = at[0] + 14;
    // Beside the point, and above it in the lower half: the rest of the curve stays in sight.
    place([
      right + wide <= width ? right : Math.max(0, at[0] - wide - 14),
      at[1] > parentElement!.offsetHeight / 2 ? at[1] - high - 10 : at[1] + 10,
    ]);
  }, [at[0], at[1], width, hit, pinned]);
  return (
    <div
      ref={box}
      class={pinned ? "tip pinned" : "tip"}
      style={{ left: `${left}px`, top: `${top}px` }}
      onClick={(event) => event.stopPropagation()}
    >
      <div class="tip-head">
        <span class="swatch" style={{ background: hit.colour }} aria-hidden="true" />
        <strong>{hit.title}</strong>
        {pinned && (
          <button type="button" class="quiet" aria-label="Unpin" onClick={close}>
            ×
          </button>
        )}
      </div>
      <dl>
        {hit.rows.map(([label, value]) => (
          <div>
            <dt>{label}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      {hit.links && hit.links.length > 0 && pinned && (
        <ul>
          {hit.links.map((each) => (
            <li>
              <ReferenceLink of={each} />
            </li>
          ))}
        </ul>
      )}
      {!pinned && <p class="hint">Click or Enter pins{hit.links?.length ? " and shows links" : ""}</p>}
    </div>
  );
}
