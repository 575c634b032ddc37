"""Points know their whole layout: expert and data parallelism, GPUs of prefill and of decode."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

PLACE = ("run_id", "isl", "osl", "tp", "gpus", "concurrency", "repeat", "ep", "dp")


def upgrade() -> None:
    """Add the columns, tell points apart by them, and show them in the view."""
    op.execute("DROP VIEW measurements")
    with op.batch_alter_table("points") as points:
        for name in ("ep", "dp"):
            points.add_column(sa.Column(name, sa.Integer, nullable=False, server_default="1"))
        for name in ("prefill_gpus", "decode_gpus"):
            points.add_column(sa.Column(name, sa.Integer))
        points.drop_constraint("one_point", type_="unique")
        points.create_unique_constraint("one_point", PLACE)
    op.execute(
        """
        CREATE VIEW measurements AS
        SELECT r.series, p.measured_at, r.hardware, r.engine, r.engine_version, r.image, r.model,
               r.precision, p.isl, p.osl, p.tp, p.ep, p.dp, p.gpus, p.prefill_gpus, p.decode_gpus,
               p.concurrency, p.repeat, p.tput_per_gpu, p.interactivity, p.input_tput_per_gpu,
               p.output_tput_per_gpu, p.tpot_ms, p.ttft_ms, p.requests, p.failed, p.accuracy,
               p.id AS point_id, r.id AS run_id, r.source, r.status, r.fingerprint,
               r.engine_commit, r.change, r.harness_version
        FROM points AS p JOIN runs AS r ON r.id = p.run_id
        """
    )
