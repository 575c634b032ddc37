"""One request ahead of the load: does the server answer, and what does it understand?"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from upcurve.errors import InputError
from upcurve.load.connection import Exchange
from upcurve.load.pool import TLS_FAILURE, Pool
from upcurve.load.target import Target
from upcurve.load.workload import Workload

_LOOK_S = 0.005


async def probe(target: Target, workload: Workload, *, timeout_s: float = 600.0) -> Target:
    """Ask the server for one answer; return the target with what the server understands.

    The answer is left at its first content: it shows that the server takes such requests, and
    how its tokens can be counted.

    Raises:
        InputError: nothing answers there, or the server refuses the model, the key, the lengths.
    """
    workload.require(1)
    sent = await _first_content(target, workload, timeout_s)
    if _refused(sent) and target.return_token_ids:
        simpler = replace(target, return_token_ids=False)
        again = await _first_content(simpler, workload, timeout_s)
        if again.failure is None:
            target, sent = simpler, again
    if sent.failure is not None:
        raise refusal(target, f"{workload.isl} tokens in, {workload.osl} out", sent)
    if sent.answer.counted_tokens is not None:
        return target
    # Token ids that are not sent need not be asked for; running usage is the next best count.
    target = replace(target, return_token_ids=False)
    running = replace(target, running_usage=True)
    with_usage = await _first_content(running, workload, timeout_s)
    understood = with_usage.failure is None and with_usage.answer.output_tokens is not None
    return running if understood else target


async def _first_content(target: Target, workload: Workload, timeout_s: float) -> Exchange:
    """Send a request and read until it fails, ends or has content."""
    prompt = workload.prompt("probe", 0)
    payload = target.payload(target.head, prompt, exact=workload.exact_output)
    exchange = Exchange(time.perf_counter_ns(), eager=True)
    pool = Pool(target, timeout_s)
    work = asyncio.ensure_future(pool.exchange(exchange, payload))
    try:
        while not (await asyncio.wait({work}, timeout=_LOOK_S))[0]:
            if exchange.status == 200:
                exchange.decode()
            if exchange.answer.has_content or exchange.answer.failure:
                break
        else:
            await work
            exchange.settle()
    finally:
        work.cancel()
        await asyncio.wait({work})
        pool.close()
    if exchange.answer.failure is not None:
        exchange.fail(exchange.answer.failure, exchange.answer.detail or "")
    return exchange


def _refused(sent: Exchange) -> bool:
    return sent.failure is not None and sent.status is not None and 400 <= sent.status < 500


def refusal(
    target: Target,
    asked: str,
    sent: Exchange,
    *,
    field: str = "workload",
    mend: str = "correct isl, osl, the vocabulary or the model",
) -> InputError:
    """Return what is wrong with the target, in words.

    Args:
        target: the server.
        asked: what it was asked for, in words.
        sent: the request that failed.
        field: what is wrong where the server refuses the request itself.
        mend: what helps there.
    """
    said = sent.detail or ""
    if sent.failure == "connect" and said.startswith(TLS_FAILURE):
        mend = "correct the URL, or name the file of its authority in SSL_CERT_FILE"
        return InputError("base-url", f"no TLS connection ({said.removeprefix(TLS_FAILURE)})", mend)
    if sent.failure == "connect" and target.proxy is not None:
        problem = f"no way to {target.origin} through the proxy ({said})"
        return InputError("base-url", problem, "correct HTTP_PROXY, or name the host in NO_PROXY")
    if sent.failure == "connect":
        mend = "start the server or correct the URL"
        return InputError("base-url", f"no server answers at {target.origin}", mend)
    if sent.status in (401, 403):
        return InputError("api-key", f"the server refuses it ({said})", "give another --api-key")
    if sent.status == 404:
        problem = f"{target.model!r} is not served at {target.url} ({said})"
        return InputError("model", problem, "correct the model's name or the URL")
    if sent.status is not None and 400 <= sent.status < 500:
        problem = f"the server refuses {asked} ({said})"
        return InputError(field, problem, mend)
    problem = f"{target.url} gives no answer ({said})"
    return InputError("base-url", problem, "look at the server's log")
