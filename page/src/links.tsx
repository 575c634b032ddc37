// Links: to another state of the page, or away from it.
import type { ComponentChildren } from "preact";
import { embedded, go, href, type Changes } from "./url";

export interface Reference {
  text: string;
  /** A view of this page. */
  to?: Changes;
  /** A page elsewhere. */
  url?: string;
}

export function ReferenceLink({ of }: { of: Reference }) {
  if (of.url)
    return (
      <a href={of.url} target="_blank" rel="noopener noreferrer">
        {of.text}
      </a>
    );
  if (of.to) return <Go to={of.to}>{of.text}</Go>;
  return <>{of.text}</>;
}

interface GoProps {
  to: Changes;
  class?: string;
  current?: boolean;
  children: ComponentChildren;
}

/** A link to another state of the page. */
export function Go({ to, class: name, current, children }: GoProps) {
  return (
    <a
      href={href(to)}
      class={name}
      aria-current={current ? "page" : undefined}
      target={embedded() ? "_blank" : undefined}
      onClick={(event) => {
        if (event.button || event.metaKey || event.ctrlKey || event.shiftKey || embedded()) return;
        event.preventDefault();
        go(to);
        scrollTo(0, 0);
      }}
    >
      {children}
    </a>
  );
}
