"""The view `measurements` shows the accuracy at a point, as JSON; null where there is none."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the view anew: no database adds a column to one."""
    op.execute("DROP VIEW measurements")
    op.execute(
        """
        CREATE VIEW measurements AS
        SELECT r.series, p.measured_at, r.hardware, r.engine, r.engine_version, r.image, r.model,
               r.precision, p.isl, p.osl, p.tp, p.gpus, p.concurrency, p.repeat, p.tput_per_gpu,
               p.interactivity, p.input_tput_per_gpu, p.output_tput_per_gpu, p.tpot_ms, p.ttft_ms,
               p.requests, p.failed, p.accuracy, p.id AS point_id, r.id AS run_id, r.source,
               r.status, r.fingerprint, r.engine_commit, r.change, r.harness_version
        FROM points AS p JOIN runs AS r ON r.id = p.run_id
        """
    )
