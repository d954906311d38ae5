"""a CA for mobility operators that have none, and the contracts that it issued"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "cps_hosted_contracts"
down_revision = "cps_64_bits"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "authorities",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("key_reference", sa.String(length=128), nullable=False),
        sa.Column("certificate", sa.LargeBinary(), nullable=False),
        sa.Column("issuers", sa.Text(), nullable=False),
        sa.Column(
            "crl_number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("to_publish", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_authorities")),
        sa.UniqueConstraint("key_reference", name=op.f("uq_authorities_key_reference")),
    )
    op.create_index(op.f("ix_authorities_role"), "authorities", ["role"])
    op.create_table(
        "certificates",
        sa.Column(
            "authority",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("serial", sa.String(length=40), nullable=False),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.String(length=512), nullable=False),
        sa.Column("common_name", sa.String(length=128), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("not_after", sa.DateTime(timezone=True), nullable=False),
        sa.Column("request_key", sa.String(length=200), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.String(length=32), nullable=True),
        sa.PrimaryKeyConstraint("authority", "serial", name=op.f("pk_certificates")),
        sa.UniqueConstraint("fingerprint", name=op.f("uq_certificates_fingerprint")),
        sa.UniqueConstraint("request_key", name=op.f("uq_certificates_request_key")),
    )
    op.create_index(op.f("ix_certificates_common_name"), "certificates", ["common_name"])
    op.create_index(op.f("ix_certificates_role"), "certificates", ["role"])
    op.create_table(
        "hosted_contracts",
        sa.Column("emaid", sa.String(length=14), nullable=False),
        sa.Column("wire", sa.String(length=15), nullable=False),
        sa.Column("pcid", sa.String(length=64), nullable=False),
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("encrypted_key", sa.LargeBinary(), nullable=False),
        sa.Column("dh_public_key", sa.LargeBinary(), nullable=False),
        sa.Column("recipient", sa.String(length=64), nullable=False),
        sa.Column("begins", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ends", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked", sa.Boolean(), nullable=False),
        sa.Column("ordered_by", sa.String(length=64), nullable=False),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("emaid", name=op.f("pk_hosted_contracts")),
    )
    op.create_index(op.f("ix_hosted_contracts_fingerprint"), "hosted_contracts", ["fingerprint"])
    op.create_index(op.f("ix_hosted_contracts_pcid"), "hosted_contracts", ["pcid"])


def downgrade() -> None:
    op.drop_table("hosted_contracts")
    op.drop_table("certificates")
    op.drop_table("authorities")
