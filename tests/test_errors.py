from __future__ import annotations

import pickle

from upcurve.errors import InputError


def test_it_travels_between_processes_with_its_parts():
    error = InputError("isl", "0 is no length", "give 1 or more")
    again = pickle.loads(pickle.dumps(error))
    assert (again.field, again.problem, again.mend) == ("isl", "0 is no length", "give 1 or more")
    assert str(again) == str(error) == "isl: 0 is no length; give 1 or more"
