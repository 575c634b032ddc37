// One run: how it was launched, where, what it measured, what its server said.
import type { RunDetail } from "../../generated/contract";
import { useAnswer } from "../answers";
import { Go } from "../links";
import { ChangeLink, Facts, Scroll, Waiting, type ViewProps } from "../parts";
import { minute, ms, short, throughput } from "../text";
import { useQuery } from "../url";
import { TimelineOf } from "./timeline";

export function RunView({ meta }: ViewProps) {
  const query = useQuery();
  const id = query.get("run") ?? "";
  const answered = useAnswer<RunDetail>(id ? `runs/${encodeURIComponent(id)}` : null);
  if (!id)
    return (
      <p class="muted">
        No run is named. <Go to={{ view: "runs" }}>See all runs.</Go>
      </p>
    );
  return <Waiting on={answered}>{(detail) => <Detail of={detail} meta={meta} />}</Waiting>;
}

function Detail({ of, meta }: { of: RunDetail } & ViewProps) {
  const { run } = of;
  const asked = Number(useQuery().get("point"));
  const chosen =
    of.points.find((each) => each.id === asked && each.timeline) ?? of.points.find((each) => each.timeline);
  return (
    <>
      <p class="crumbs">
        <Go to={{ view: "runs" }}>Runs</Go> / {run.id}
      </p>
      <h1>
        {run.series} <span class={`status ${run.status}`}>{run.status}</span>
      </h1>
      {run.note && <p class={run.status === "failed" ? "warning" : "muted"}>{run.note}</p>}
      <Facts
        of={{
          model: run.model,
          hardware: `${run.hardware} ${run.precision}`,
          engine: [run.engine, run.engine_version, of.engine_commit].filter(Boolean).join(" "),
          image: of.image,
          started: minute(run.started_at),
          ended: run.ended_at ? minute(run.ended_at) : "",
          source: run.source,
          fingerprint: of.fingerprint.slice(0, 16),
          "measured by": of.harness_version && `upcurve ${of.harness_version}`,
        }}
      />
      {run.change && (
        <p>
          Measures <ChangeLink of={run.change} />
        </p>
      )}
      <h2>Points</h2>
      <Scroll label="Points of the run">
        <table>
          <thead>
            <tr>
              <th class="n">Concurrency</th>
              <th>Layout</th>
              <th class="n">GPUs</th>
              <th class="n">In / out</th>
              <th class="n">Repeat</th>
              <th class="n">tok/s/user</th>
              <th class="n">tok/s/GPU</th>
              <th class="n">TTFT</th>
              <th class="n">TPOT</th>
              <th class="n">End to end</th>
              <th class="n">W/GPU</th>
              <th class="n">Failed</th>
              <th>Requests</th>
            </tr>
          </thead>
          <tbody>
            {of.points.map((each) => (
              <tr class={each === chosen ? "chosen" : ""}>
                <th scope="row" class="n">
                  {each.concurrency}
                </th>
                <td>{each.layout}</td>
                <td class="n">{each.gpus}</td>
                <td class="n">
                  {each.isl.toLocaleString("en-US")} / {each.osl.toLocaleString("en-US")}
                </td>
                <td class="n">{each.repeat + 1}</td>
                <td class="n">{short(each.interactivity)}</td>
                <td class="n">{throughput(each.tput_per_gpu)}</td>
                <td class="n">{each.ttft_ms === null ? "—" : ms(each.ttft_ms)}</td>
                <td class="n">{each.tpot_ms === null ? "—" : ms(each.tpot_ms)}</td>
                <td class="n">{each.e2e_ms === null ? "—" : ms(each.e2e_ms)}</td>
                <td class="n">{each.watts_per_gpu === null ? "—" : short(each.watts_per_gpu, 3)}</td>
                <td class={`n ${each.failed ? "bad" : ""}`}>{each.failed ?? "—"}</td>
                <td>
                  {each.timeline ? (
                    <Go to={{ point: each.id, pin: null, offset: null }} current={each === chosen}>
                      {each.requests} in time
                    </Go>
                  ) : (
                    `${each.requests ?? "—"}`
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      {chosen && <TimelineOf point={chosen.id} meta={meta} />}
      <h2>Recipe</h2>
      {of.command && <pre tabIndex={0}>{of.command}</pre>}
      {Object.keys(of.recipe).length ? (
        <pre tabIndex={0}>{JSON.stringify(of.recipe, null, 2)}</pre>
      ) : (
        <p class="muted">Not recorded.</p>
      )}
      <h2>Environment</h2>
      <div class="columns">
        <section>
          <h3>Host</h3>
          <Facts of={of.host} />
        </section>
        <section>
          <h3>Software</h3>
          <Facts of={of.software} />
        </section>
        <section>
          <h3>Devices</h3>
          {of.gpus.length ? of.gpus.map((each) => <Facts of={each} />) : <p class="muted">Not recorded.</p>}
        </section>
      </div>
      <h2>Log</h2>
      {of.log ? (
        <>
          {of.log.shown < of.log.bytes && (
            <p class="muted">
              The last {of.log.shown.toLocaleString("en-US")} of {of.log.bytes.toLocaleString("en-US")} bytes.
            </p>
          )}
          <pre class="log" tabIndex={0}>
            {of.log.text}
          </pre>
        </>
      ) : (
        <p class="muted">Not recorded.</p>
      )}
    </>
  );
}
