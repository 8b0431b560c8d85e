"""Who signs in the differential tests: the people and nodes of a network, and those who only claim to belong to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from sovchain.network.material import Material, OrganizationMaterial
from sovchain.protocol.crypto import PrivateKey, load_private_key, sign
from sovchain.protocol.identity import serialize_identity

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True)
class Person:
    """Somebody with a key and an identity that fits it or not. `kind` says what is odd about them."""

    kind: str
    msp_id: str
    identity: bytes = field(repr=False)
    key: PrivateKey = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        """Sign as Fabric expects it."""
        return sign(self.key, message)

    def sign_high(self, message: bytes) -> bytes:
        """Sign with the other, equally good solution for s, which Fabric refuses."""
        if not isinstance(self.key, ec.EllipticCurvePrivateKey) or self.key.key_size != 256:
            return self.sign(message)
        r, s = utils.decode_dss_signature(self.sign(message))
        return utils.encode_dss_signature(r, P256_ORDER - s)


class Authority:
    """An organisation's enrolment authority, or one of its own making; issues whatever it is asked to."""

    def __init__(self, msp_id: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.msp_id = msp_id
        self.certificate = certificate
        self.key = key

    @classmethod
    def of(cls, part: OrganizationMaterial) -> Authority:
        """The authority in a network's material."""
        key = load_private_key((part.folder / "ca/priv_sk").read_bytes())
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return cls(part.msp_id, x509.load_pem_x509_certificate(part.root_pem), key)

    @classmethod
    def foreign(cls, msp_id: str, name: x509.Name) -> Authority:
        """An authority with the name of another one and a key of its own."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(name, name, key.public_key()).add_extension(x509.BasicConstraints(True, None), True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        return cls(msp_id, builder.sign(key, hashes.SHA256()), key)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def intermediate(self, name: str = "ica") -> Authority:
        """An authority below this one."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            _builder(subject, self.certificate.subject, key.public_key(), begins=self._begins)
            .add_extension(x509.BasicConstraints(True, None), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(self._authority_key_identifier(), False)
            .add_extension(_usage(signs_certificates=True), True)
        )
        return Authority(self.msp_id, builder.sign(self.key, hashes.SHA256()), key)

    def issue(
        self,
        kind: str,
        *units: str,
        expires: datetime | None = None,
        ca: bool = False,
        key: PrivateKey | None = None,
        msp_id: str = "",
        begins: datetime | None = None,
    ) -> Person:
        """A person with these organisational units."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        parts = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit) for unit in units]
        subject = x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, kind)])
        builder = (
            _builder(subject, self.certificate.subject, key.public_key(), expires, begins or self._begins)
            .add_extension(x509.BasicConstraints(ca, None), True)
            .add_extension(_usage(signs_certificates=ca), True)
            .add_extension(self._authority_key_identifier(), False)
        )
        if ca:
            builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        pem = builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        msp_id = msp_id or self.msp_id
        return Person(kind, msp_id, serialize_identity(msp_id, pem), key)

    def revocation_list(self, *serials: int) -> bytes:
        """A signed list of revoked serial numbers, as PEM."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - timedelta(hours=1))
            .next_update(now + timedelta(days=30))
            .add_extension(self._authority_key_identifier(), False)
            .add_extension(x509.CRLNumber(1), False)
        )
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    @property
    def _begins(self) -> datetime:
        """What is issued begins no earlier than its issuer, or nobody would take it."""
        return self.certificate.not_valid_before_utc

    def _authority_key_identifier(self) -> x509.AuthorityKeyIdentifier:
        found = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found)


class People:
    """Everybody of a network, by what they are: `user`, `admin` and `peer` of each organisation, and the odd ones."""

    def __init__(self, material: Material, names: list[str], ordering: str) -> None:
        self.user: dict[str, Person] = {}
        self.admin: dict[str, Person] = {}
        self.peer: dict[str, Person] = {}
        self.authority: dict[str, Authority] = {}
        self.odd: list[Person] = []
        for name in names:
            part = material.organization(name)
            self.authority[name] = Authority.of(part)
            for kind, found in (("user", "User1"), ("admin", "Admin")):
                credential = part.user(found)
                person = Person(
                    kind,
                    part.msp_id,
                    serialize_identity(part.msp_id, credential.certificate_pem),
                    load_private_key(credential.private_key_pem),
                )
                getattr(self, kind)[name] = person
            node = part.node()
            identity = serialize_identity(part.msp_id, node.certificate_pem)
            self.peer[name] = Person("peer", part.msp_id, identity, load_private_key(node.private_key_pem))
            self.odd.extend(_odd(self.authority[name], names))
        part = material.organization(ordering)
        credential = part.user("Admin")
        self.ordering_admin = Person(
            "ordering admin",
            part.msp_id,
            serialize_identity(part.msp_id, credential.certificate_pem),
            load_private_key(credential.private_key_pem),
        )

    @property
    def good(self) -> list[Person]:
        """All who may write."""
        return [*self.user.values(), *self.admin.values()]


def _odd(authority: Authority, names: list[str]) -> list[Person]:
    now = datetime.now(UTC)
    foreign = Authority.foreign(authority.msp_id, authority.certificate.subject)
    below = authority.intermediate()
    good = authority.issue("stranger", "client")
    garbage = serialize_identity(authority.msp_id, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    return [
        authority.issue("expired", "client", expires=now - timedelta(seconds=5)),
        authority.issue("expired peer", "peer", expires=now - timedelta(seconds=5)),
        authority.issue("not yet valid", "client", begins=now + timedelta(days=2)),
        authority.issue("older than its issuer", "client", begins=now - timedelta(days=2)),
        authority.issue("second peer", "peer"),
        authority.issue("orderer", "orderer"),
        authority.issue("no unit"),
        authority.issue("two units", "client", "peer"),
        authority.issue("other unit", "client", "department"),
        authority.issue("only other unit", "department"),
        authority.issue("authority", "client", ca=True),
        authority.issue("p384", "client", key=ec.generate_private_key(ec.SECP384R1())),
        authority.issue("ed25519", "client", key=Ed25519PrivateKey.generate()),
        authority.issue("unknown organisation", "client", msp_id="NobodyMSP"),
        foreign.issue("foreign", "client"),
        foreign.issue("foreign peer", "peer"),
        below.issue("of an unknown intermediate", "client"),
        Person("root", authority.msp_id, serialize_identity(authority.msp_id, authority.pem), authority.key),
        Person("garbage", authority.msp_id, garbage, good.key),
        Person("no identity", authority.msp_id, b"\x0a\x05", good.key),
        Person("empty certificate", authority.msp_id, serialize_identity(authority.msp_id, b""), good.key),
        Person("wrong key", authority.msp_id, good.identity, ec.generate_private_key(ec.SECP256R1())),
    ]


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: object,
    expires: datetime | None = None,
    begins: datetime | None = None,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key,  # type: ignore[arg-type]  # any public key
        serial_number=x509.random_serial_number(),
        not_valid_before=begins or now - timedelta(days=1),
        not_valid_after=expires or now + timedelta(days=30),
    )


def _usage(*, signs_certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
