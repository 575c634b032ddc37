// What costs and limits are made of: specifications by the vendors, dated prices, what-if.
import type { Hardware, PriceRow } from "../../generated/contract";
import { useAnswer } from "../answers";
import { Input, Scroll, Waiting, type ViewProps } from "../parts";
import { Go } from "../links";
import { Prices } from "../prices";
import { isStatic } from "../site";
import { short, usd } from "../text";
import { go, useQuery } from "../url";

export function HardwareView({ meta }: ViewProps) {
  const query = useQuery();
  const answered = useAnswer<Hardware>("hardware", { on: query.get("on") });
  return (
    <Waiting on={answered}>
      {(hardware) => (
        <>
          {!isStatic() && <Prices meta={meta} />}
          <div class="head">
            <h2>Prices on {hardware.on}, USD per GPU-hour</h2>
            {!isStatic() && <Input label="On" name="on" type="date" value={query.get("on") ?? ""} />}
          </div>
          <PriceTable prices={hardware.prices} />
          <h2>Specifications, per GPU, dense rates</h2>
          <Scroll label="Specifications">
            <table>
              <thead>
                <tr>
                  <th>Hardware</th>
                  <th>Vendor</th>
                  <th>Architecture</th>
                  <th class="n">HBM (GB)</th>
                  <th class="n">HBM (TB/s)</th>
                  <th class="n">bf16 (TFLOP/s)</th>
                  <th class="n">FP8 (TFLOP/s)</th>
                  <th class="n">FP4 (TFLOP/s)</th>
                  <th class="n">TDP (W)</th>
                  <th class="n">All in (kW)</th>
                  <th class="n">Scale-up GPUs</th>
                  <th class="n">Link, one way (GB/s)</th>
                </tr>
              </thead>
              <tbody>
                {hardware.specifications.map((each) => (
                  <tr>
                    <th scope="row">{each.hardware}</th>
                    <td>{each.vendor}</td>
                    <td>{each.architecture}</td>
                    <td class="n">{short(each.hbm_gb)}</td>
                    <td class="n">{short(each.hbm_tb_per_s)}</td>
                    <td class="n">{short(each.bf16_dense_tflops)}</td>
                    <td class="n">{short(each.fp8_dense_tflops)}</td>
                    <td class="n">{each.fp4_dense_tflops === null ? "—" : short(each.fp4_dense_tflops)}</td>
                    <td class="n">{short(each.tdp_w)}</td>
                    <td class="n">
                      {Object.entries(each.all_in_kw).map(([date, kw]) => (
                        <div title={`as estimated ${date}`}>
                          {short(kw)} <small>({date.slice(0, 7)})</small>
                        </div>
                      ))}
                    </td>
                    <td class="n">{each.scale_up_gpus}</td>
                    <td class="n">{short(each.scale_up_gb_per_s_one_way)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </Scroll>
          <ul class="notes">
            {hardware.sources.map((each) => (
              <li>{each}</li>
            ))}
          </ul>
        </>
      )}
    </Waiting>
  );
}

/** Prices by hardware and kind of provider; a price typed here is the what-if of every view. */
function PriceTable({ prices }: { prices: PriceRow[] }) {
  const query = useQuery();
  const kinds = [...new Set(prices.map((each) => each.hardware))];
  const tiers = [...new Set(prices.map((each) => each.tier))];
  const given = new Map(
    query.getAll("price").map((each) => [each.slice(0, each.lastIndexOf("=")), each.slice(each.lastIndexOf("=") + 1)]),
  );
  const give = (hardware: string, text: string) => {
    if (Number(text) > 0) given.set(hardware, text);
    else given.delete(hardware);
    go({ price: [...given].map(([name, price]) => `${name}=${price}`) });
  };
  return (
    <>
      <Scroll label="Prices">
        <table class="prices">
          <thead>
            <tr>
              <th>Hardware</th>
              {tiers.map((tier) => (
                <th class="n">{tier}</th>
              ))}
              {!isStatic() && <th>What if</th>}
            </tr>
          </thead>
          <tbody>
            {kinds.map((kind) => (
              <tr>
                <th scope="row">{kind}</th>
                {tiers.map((tier) => {
                  const of = prices.filter((each) => each.hardware === kind && each.tier === tier);
                  return (
                    <td class="n">
                      {of.map((each) => (
                        <div class={each.holds ? "" : "muted"}>
                          {usd(each.usd_per_gpu_hour)} <small>from {each.valid_from}</small>
                        </div>
                      ))}
                      {!of.length && "—"}
                    </td>
                  );
                })}
                {!isStatic() && (
                  <td>
                    <input
                      key={given.get(kind) ?? ""}
                      aria-label={`USD per GPU-hour of ${kind}`}
                      size={6}
                      inputMode="decimal"
                      defaultValue={given.get(kind) ?? ""}
                      onKeyDown={(event) => event.key === "Enter" && event.currentTarget.blur()}
                      onChange={(event) => give(kind, event.currentTarget.value.trim())}
                    />
                  </td>
                )}
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      {given.size > 0 && (
        <p>
          With these prices: <Go to={{ view: "compare" }}>compare series</Go>. Prices of hardware that no compared
          series ran on are refused there.
        </p>
      )}
    </>
  );
}
