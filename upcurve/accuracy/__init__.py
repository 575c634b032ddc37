"""Whether an engine still answers right: problems, tasks, scores and the gate."""
