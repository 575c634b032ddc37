"""One engine whose model changes its switches between steps; weights, caches and requests stay."""

from upcurve.engine.execute.graphs import DecodeGraphs
from upcurve.engine.model.model import Model
from upcurve.engine.switches import Switches


class Switched:
    """Turns an engine, which was built with all switches on, to others."""

    def __init__(self, engine, model, largest):
        """Take the engine, its model, and the batch of its largest graph."""
        self._engine, self._model, self._largest = engine, model, largest
        self._turns = {"": (model, engine.device.graphs)}

    def turn_to(self, off):
        """Let the next steps have these switches off; captures graphs once, where it can."""
        runner = self._engine.device
        if off not in self._turns:
            old = self._model
            model = Model(old.shapes, old.weights, Switches.without(off), old.dtype)
            graphs = None
            if runner.asynchronous and model.capturable:
                graphs = DecodeGraphs(model, runner.caches, runner._last_tokens, self._largest)
            self._turns[off] = model, graphs
        runner.model, runner.graphs = self._turns[off]
        self._engine._overlap = runner.model.switches.host_overlap

    def has_graphs(self, off):
        """Whether steps with these switches off, once turned to, are graphs."""
        return self._turns[off][1] is not None
