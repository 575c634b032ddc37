"""How what prefill workers computed gets into the caches of decode workers.

A decode rank has a `Receiver`, a prefill rank a `Sender`. The two engines agree on their
`Description`s, the decode worker sends the `offer` of each of its ranks, and every prefill rank
connects to them under the name of a session. A step of the prefill engine then says which `Part`s
of it are sent, and its forward pass calls `after` behind each layer; `finished` is called once for
each transfer on each prefill rank. When a session ends, the decode ranks `expel` it.
"""
