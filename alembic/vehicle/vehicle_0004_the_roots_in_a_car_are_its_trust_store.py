"""the roots in a car are its trust store"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

revision = "vehicle_0004"
down_revision = "vehicle_0003"
branch_labels = None
depends_on = None

_cars = sa.table(
    "cars",
    sa.column("pcid", sa.String()),
    sa.column("v2g_roots", sa.Text()),
    sa.column("built_at", sa.DateTime(timezone=True)),
)
_stores = sa.table(
    "trust_stores",
    sa.column("holder", sa.String()),
    sa.column("version", sa.Integer()),
    sa.column("source", sa.String()),
    sa.column("renewed_at", sa.DateTime(timezone=True)),
)
_anchors = sa.table(
    "anchors",
    sa.column("holder", sa.String()),
    sa.column("fingerprint", sa.String()),
    sa.column("role", sa.String()),
    sa.column("certificate", sa.LargeBinary()),
    sa.column("source", sa.String()),
    sa.column("added_at", sa.DateTime(timezone=True)),
)


def upgrade() -> None:
    connection = op.get_bind()
    for pcid, roots, built_at in connection.execute(
        sa.select(_cars.c.pcid, _cars.c.v2g_roots, _cars.c.built_at)
    ).all():
        connection.execute(
            _stores.insert().values(holder=pcid, version=1, source="factory", renewed_at=built_at)
        )
        for root in dict.fromkeys(x509.load_pem_x509_certificates(roots.encode())):
            connection.execute(
                _anchors.insert().values(
                    holder=pcid,
                    fingerprint=root.fingerprint(hashes.SHA256()).hex(),
                    role="v2g-root",
                    certificate=root.public_bytes(Encoding.DER),
                    source="factory",
                    added_at=built_at,
                )
            )
    # Not in a batch: that would write the table anew, and other rows refer to this one's.
    op.drop_column("cars", "v2g_roots")


def downgrade() -> None:
    op.add_column("cars", sa.Column("v2g_roots", sa.Text(), nullable=False, server_default=""))
    connection = op.get_bind()
    for pcid in connection.execute(sa.select(_cars.c.pcid)).scalars().all():
        held = connection.execute(
            sa.select(_anchors.c.certificate).where(_anchors.c.holder == pcid)
        ).scalars()
        pem = "".join(
            x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode() for der in held
        )
        connection.execute(_cars.update().where(_cars.c.pcid == pcid).values(v2g_roots=pem))
