"""Tables of runs and points."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create both tables."""
    time = sa.DateTime(timezone=True)
    op.create_table(
        "runs",
        sa.Column("id", sa.Text, primary_key=True),
        *(
            sa.Column(name, sa.Text, nullable=False)
            for name in ("series", "source", "status", "fingerprint")
        ),
        *(
            sa.Column(name, sa.Text, nullable=False)
            for name in ("engine", "engine_version", "engine_commit", "image")
        ),
        *(
            sa.Column(name, sa.Text, nullable=False)
            for name in ("model", "precision", "hardware", "harness_version")
        ),
        *(sa.Column(name, sa.Text) for name in ("change", "note", "process")),
        sa.Column("started_at", time, nullable=False),
        sa.Column("ended_at", time),
        *(
            sa.Column(name, sa.JSON, nullable=False)
            for name in ("recipe", "host", "devices", "software")
        ),
    )
    op.create_index("ix_runs_series", "runs", ["series"])
    op.create_table(
        "points",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
        *(
            sa.Column(name, sa.Integer, nullable=False)
            for name in ("isl", "osl", "tp", "gpus", "concurrency", "repeat")
        ),
        sa.Column("measured_at", time, nullable=False),
        *(sa.Column(name, sa.Double, nullable=False) for name in ("tput_per_gpu", "interactivity")),
        *(
            sa.Column(name, sa.Double)
            for name in ("input_tput_per_gpu", "output_tput_per_gpu", "tpot_ms", "ttft_ms")
        ),
        *(sa.Column(name, sa.Integer) for name in ("requests", "failed")),
        sa.Column("result", sa.JSON, nullable=False),
        sa.Column("accuracy", sa.JSON),
        sa.Column("trace", sa.Text),
        sa.UniqueConstraint(
            "run_id", "isl", "osl", "tp", "gpus", "concurrency", "repeat", name="one_point"
        ),
    )
