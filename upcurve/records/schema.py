"""Tables of the store: `runs`, `points` and the view `measurements` that joins them flat."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa

SCHEMA = 4
"""Number of the newest migration in `migrations/versions`."""


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """An aware datetime, kept in UTC: SQLite has no time zones."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        """Convert to UTC; a naive datetime is a defect of the caller."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"datetime {value} has no time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        """Return an aware datetime in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = sa.MetaData()

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("series", sa.Text, nullable=False, index=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("note", sa.Text),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("engine", sa.Text, nullable=False),
    sa.Column("engine_version", sa.Text, nullable=False),
    sa.Column("engine_commit", sa.Text, nullable=False),
    sa.Column("image", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("precision", sa.Text, nullable=False),
    sa.Column("hardware", sa.Text, nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime),
    sa.Column("change", sa.Text),
    sa.Column("harness_version", sa.Text, nullable=False),
    sa.Column("process", sa.Text),
    sa.Column("recipe", sa.JSON, nullable=False),
    sa.Column("host", sa.JSON, nullable=False),
    sa.Column("devices", sa.JSON, nullable=False),
    sa.Column("software", sa.JSON, nullable=False),
)

points = sa.Table(
    "points",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("isl", sa.Integer, nullable=False),
    sa.Column("osl", sa.Integer, nullable=False),
    sa.Column("tp", sa.Integer, nullable=False),
    sa.Column("gpus", sa.Integer, nullable=False),
    sa.Column("concurrency", sa.Integer, nullable=False),
    sa.Column("repeat", sa.Integer, nullable=False),
    sa.Column("measured_at", UtcDateTime, nullable=False),
    sa.Column("tput_per_gpu", sa.Double, nullable=False),
    sa.Column("interactivity", sa.Double, nullable=False),
    sa.Column("input_tput_per_gpu", sa.Double),
    sa.Column("output_tput_per_gpu", sa.Double),
    sa.Column("tpot_ms", sa.Double),
    sa.Column("ttft_ms", sa.Double),
    sa.Column("requests", sa.Integer),
    sa.Column("failed", sa.Integer),
    sa.Column("result", sa.JSON, nullable=False),
    sa.Column("accuracy", sa.JSON(none_as_null=True)),
    sa.Column("trace", sa.Text),
    sa.Column("ep", sa.Integer, nullable=False, server_default="1"),
    sa.Column("dp", sa.Integer, nullable=False, server_default="1"),
    sa.Column("prefill_gpus", sa.Integer),
    sa.Column("decode_gpus", sa.Integer),
    sa.UniqueConstraint(
        *("run_id", "isl", "osl", "tp", "gpus", "concurrency", "repeat", "ep", "dp"),
        name="one_point",
    ),
)
