"""From a prefill rank's caches into a decode rank's: how fast, and what of it a prompt hides.

    python benchmarks/transfer.py                       two GPUs; on one, two processes share it
    python benchmarks/transfer.py --tokens 1024,8192,32768
    python benchmarks/transfer.py --device cpu --tokens 1024 --ways copy,tcp,nixl

The caches are those of the 35B model on one rank, in bfloat16: 10 layers of keys and values, 30 of
states. Sender and receiver are two processes, pages of the target lie in random order. "plain copy"
is one contiguous copy of as many bytes from device to device, into memory that was mapped the same
way. "whole" sends all layers at once. "layer by layer" sends each behind a matrix product that
stands for the layer: "tail" is from the end of the last product to the report that all is written,
and "slower" what the transfer costs the products, against the same without. Every transfer is
compared byte by byte. A cell is the median [lowest, highest] over the rounds.
"""

import argparse
import hashlib
import multiprocessing
import queue
import random
import statistics
import time
from pathlib import Path

MODEL = Path(__file__).parent.parent / "models" / "qwen35-35b-a3b"
PAGE_SIZE, HOST = 16, "127.0.0.1"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--tokens", default="8192", help="lengths of the prompt")
    parser.add_argument("--ways", default="copy,tcp", help="transports")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    lengths = [int(each) for each in arguments.tokens.split(",")]
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    # Before this process chooses its GPU, which its children would inherit.
    target = context.Process(target=receive, args=(theirs, arguments.device, max(lengths)))
    target.start()
    try:
        source = Source(arguments.device, max(lengths), ours)
        print(f"{source.name}; {arguments.rounds} rounds")
        print(
            f"{'tokens':>7s} {'MB':>6s} {'way':>10s} {'whole ms':>22s} {'GB/s':>6s} "
            f"{'of plain':>8s} {'tail ms':>22s} {'slower ms':>22s}"
        )
        for tokens in lengths:
            plain = source.plain(tokens, arguments.rounds)
            size = source.bytes_of(tokens)
            line(tokens, size, "plain copy", plain, statistics.median(plain))
            for way in arguments.ways.split(","):
                found = source.measure(way, tokens, arguments.rounds)
                line(tokens, size, way, found[0], statistics.median(plain), *found[1:])
        source.close()
    finally:
        target.kill()
        target.join()


def line(tokens, size, way, whole, plain, tail=None, slower=None):
    middle = statistics.median(whole)
    print(
        f"{tokens:7d} {size / 1e6:6.0f} {way:>10s} {spread(whole):>22s} {size / middle / 1e9:6.2f} "
        f"{plain / middle:8.0%} {spread(tail):>22s} {spread(slower):>22s}",
        flush=True,
    )


def spread(seconds):
    if seconds is None:
        return "-"
    low, middle, high = (f(seconds) * 1e3 for f in (min, statistics.median, max))
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def prepare(device, tokens, gpu):
    """Return caches and description of a rank with one of the GPUs, and how these are shared."""
    import torch

    from upcurve.engine.memory.caches import Caches, CacheTypes
    from upcurve.engine.model.shapes import ModelShapes
    from upcurve.engine.platform import take_gpu
    from upcurve.engine.transfer.description import Description

    seen = take_gpu(gpu) if device == "cuda" else 0
    if device == "cuda" and not seen:
        raise SystemExit("torch sees no GPU: give --device cpu")
    torch.set_num_threads(1)
    shapes = ModelShapes.from_folder(MODEL)
    types = CacheTypes(torch.bfloat16, torch.bfloat16)
    pages = -(-tokens // PAGE_SIZE)
    caches = Caches(
        *(shapes, types),
        slots=2,
        pages=pages,
        page_size=PAGE_SIZE,
        pages_per_request=pages,
        device=torch.device(device, 0) if device == "cuda" else torch.device(device),
    )
    description = Description.of(shapes, types, page_size=PAGE_SIZE, tp=1, model={}, weights="none")
    return caches, description, "one GPU for both" if seen == 1 else "a GPU for each"


def receive(pipe, device, tokens):
    """Be the decode rank: offer, and tell what has arrived."""
    from upcurve.engine.transfer.receiver import Receiver

    caches, *_ = prepare(device, tokens, 1)
    receivers = {way: Receiver(caches, PAGE_SIZE, 0, HOST, way) for way in ("copy", "nixl")}
    while True:
        asked = pipe.recv()
        if isinstance(asked, str):
            pipe.send(receivers["nixl" if asked == "nixl" else "copy"].offer())
        else:
            found = digest(caches, *asked)
            for tensor in (caches.kv, caches.recurrent, caches.convolution):
                tensor.zero_()
            # On a GPU it waits for them.
            caches.convolution.cpu()
            pipe.send(found)


def digest(caches, slot, pages, tokens):
    """Return a hash of all bytes of a request."""
    import torch

    index = torch.tensor(pages, device=caches.kv.device)
    rows = caches.kv.index_select(2, index).flatten(2, 3)[:, :, :tokens]
    found = hashlib.sha256()
    for each in (rows, caches.recurrent[:, slot], caches.convolution[:, slot]):
        found.update(each.contiguous().view(torch.uint8).cpu().numpy().tobytes())
    return found.hexdigest()


class Source:
    """The prefill rank, in this process."""

    def __init__(self, device, tokens, pipe):
        import torch

        from upcurve.engine.transfer.sender import Sender

        self.caches, self.description, shared = prepare(device, tokens, 0)
        self.gpu = device == "cuda"
        self.name = f"{torch.cuda.get_device_name()}, {shared}" if self.gpu else "CPU"
        for tensor in (self.caches.kv, self.caches.recurrent, self.caches.convolution):
            tensor.normal_()
        self.pipe = pipe
        self.reports = queue.SimpleQueue()
        self.sender = Sender(self.caches, self.description, 0, self.report)
        size = 8192 if self.gpu else 512
        dtype = torch.bfloat16 if self.gpu else torch.float32
        self.matrix = torch.randn(size, size, dtype=dtype, device=device)
        self.number = 0

    def report(self, transfer, error):
        """Keep what is reported, and when."""
        self.reports.put((time.perf_counter(), transfer, error))

    def bytes_of(self, tokens):
        """Return the bytes of a request of so many tokens."""
        states = self.caches.recurrent[:, 0].nbytes + self.caches.convolution[:, 0].nbytes
        return self.caches.kv[:, :, 0, 0].nbytes * tokens + states

    def offer(self, way):
        """Ask the decode rank for one."""
        self.pipe.send(way)
        return self.pipe.recv()

    def plain(self, tokens, rounds):
        """Return the seconds of one copy of as many bytes."""
        import torch

        from upcurve.engine.transfer.offer import Offer

        there = Offer.decode(self.offer("copy")).exports.open()
        count = self.bytes_of(tokens)
        pairs = []
        for one, other in (
            (self.caches.kv, there.rows),
            (self.caches.recurrent, there.recurrent),
        ):
            part = min(count, one.nbytes)
            one, other = (each.view(-1).view(torch.uint8)[:part] for each in (one, other))
            pairs.append((one, other))
            count -= part
        found = []
        for _ in range(rounds + 1):
            self.wait()
            started = time.perf_counter()
            for one, other in pairs:
                other.copy_(one)
            self.wait()
            found.append(time.perf_counter() - started)
        return found[1:]

    def measure(self, way, tokens, rounds):
        """Return seconds of whole transfers, of tails, and what the products lost."""
        session = f"{way}-{tokens}"
        self.sender.connect(session, self.description, [self.offer(way)], way)
        whole, tail, slower = [], [], []
        for number in range(rounds + 1):
            part = self.part(session, tokens)
            started = time.perf_counter()
            self.compute(self.sender.step([part]), products=0)
            whole.append(self.arrived(part) - started)
            alone = self.compute(None)
            part = self.part(session, tokens)
            started = time.perf_counter()
            spent = self.compute(self.sender.step([part]))
            tail.append(self.arrived(part) - started - spent)
            slower.append(spent - alone)
            if number == 0:
                # The first of all compiles, connects and allocates.
                whole, tail, slower = [], [], []
        self.sender.disconnect(session)
        return whole, tail, slower

    def part(self, session, tokens):
        """Return a request, all of it in one step."""
        from upcurve.engine.transfer.sender import Part

        pages = list(range(1, -(-tokens // PAGE_SIZE) + 1))
        there = random.Random(self.number).sample(pages, len(pages))  # noqa: S311
        self.number += 1
        return Part(str(self.number), session, 0, pages, 1, there, 0, tokens, last=True)

    def compute(self, outgoing, products=1):
        """Compute a product for each layer and send behind it; return the seconds."""
        self.wait()
        started = time.perf_counter()
        for layer in range(40):
            for _ in range(products):
                self.matrix @ self.matrix
            if outgoing is not None:
                outgoing.after(layer)
        self.wait()
        return time.perf_counter() - started

    def wait(self):
        """Wait until what was launched is computed."""
        if self.gpu:
            import torch

            torch.cuda.current_stream().synchronize()

    def arrived(self, part):
        """Wait for the report and check every byte; return when it was."""
        when, transfer, error = self.reports.get(timeout=120)
        if (transfer, error) != (part.transfer, None):
            raise RuntimeError(f"{transfer}: {error}")
        self.pipe.send((part.remote_slot, part.remote_pages, part.count))
        mine = digest(self.caches, part.slot, part.pages, part.count)
        if self.pipe.recv() != mine:
            raise RuntimeError("what arrived is not what was sent")
        return when

    def close(self):
        """End all sessions."""
        self.sender.close()


if __name__ == "__main__":
    main()
