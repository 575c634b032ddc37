// What-if: dated prices, other prices, electricity. Kept in the URL, worked out by the API.
import type { Hardware, Meta } from "../generated/contract";
import { useAnswer } from "./answers";
import { Input, Select } from "./parts";
import { PRICE_NAMES } from "./selection";
import { isStatic } from "./site";
import { usd } from "./text";
import { go, useQuery } from "./url";

/** "MI355X=1.48, H200=2" as separate parameters, those that can be read. */
function assignments(text: string): string[] {
  return text.split(/[,;\s]+/).filter((each) => /^.+=.+$/.test(each));
}

export function Prices({ meta, weights }: { meta: Meta; weights?: boolean }) {
  const query = useQuery();
  const given = PRICE_NAMES.concat(weights ? ["output_weight"] : []).filter((name) => query.has(name));
  if (isStatic()) return null;
  return (
    <details class="what-if" open={given.length > 0}>
      <summary>
        Prices and what-if
        {given.length > 0 && <span class="muted">: {given.map((each) => each.replaceAll("_", " ")).join(", ")}</span>}
      </summary>
      <div class="bar">
        <Select
          label="Kind of provider"
          name="tier"
          value={query.get("tier") ?? "hyperscaler"}
          usual="hyperscaler"
          options={meta.tiers.map((each) => [each, each])}
        />
        <Input label="Prices of" name="on" type="date" value={query.get("on") ?? ""} />
        <Several label="USD per GPU-hour" name="price" placeholder="MI355X=2.10" />
        <Several label="Priced as other hardware" name="as_hardware" placeholder="may=H200" />
        <Several label="kW per GPU" name="kw" placeholder="MI355X=2.09" />
        <Input
          label="USD per kWh"
          name="usd_per_kwh"
          size={6}
          value={query.get("usd_per_kwh") ?? ""}
          placeholder="0.08"
        />
        <Input label="PUE" name="pue" size={5} value={query.get("pue") ?? ""} placeholder="1.2" />
        {weights && (
          <Input
            label="Output token costs as many inputs"
            name="output_weight"
            size={5}
            value={query.get("output_weight") ?? ""}
            placeholder="4"
          />
        )}
        <button
          type="button"
          disabled={!given.length}
          onClick={() => go(Object.fromEntries(given.map((name) => [name, null])))}
        >
          As dated
        </button>
        <PricesUsed />
      </div>
    </details>
  );
}

function Several({ label, name, placeholder }: { label: string; name: string; placeholder: string }) {
  const value = useQuery().getAll(name).join(", ");
  return (
    <label class="field">
      <span>{label}</span>
      <input
        key={value}
        defaultValue={value}
        placeholder={placeholder}
        size={16}
        spellcheck={false}
        autocomplete="off"
        onKeyDown={(event) => event.key === "Enter" && event.currentTarget.blur()}
        onChange={(event) => go({ [name]: assignments(event.currentTarget.value) })}
      />
    </label>
  );
}

/** The prices that hold on the date and tier chosen. */
function PricesUsed() {
  const query = useQuery();
  const tier = query.get("tier") ?? "hyperscaler";
  const { data } = useAnswer<Hardware>("hardware", { on: query.get("on") });
  const held = data?.prices.filter((each) => each.holds && each.tier === tier) ?? [];
  if (!held.length) return null;
  return (
    <p class="muted">
      On {data!.on}: {held.map((each) => `${each.hardware} ${usd(each.usd_per_gpu_hour)}`).join(", ")} per GPU-hour
    </p>
  );
}
