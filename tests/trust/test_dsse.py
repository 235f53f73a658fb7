"""DSSE envelopes: the specification's vector, another implementation, and mutated bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from securesystemslib.signer import Key

from nwmctl.domain.keys import KeyRole
from nwmctl.errors import EnvelopeError, NwmError, PayloadTypeError, UntrustedSignatureError
from nwmctl.trust.dsse import POLICY_TYPE, pre_authentication, sign_dsse, verify_dsse
from nwmctl.trust.keys import KeyRing


def test_the_specifications_own_vector() -> None:
    assert (
        pre_authentication(b"hello world", "http://example.com/HelloWorld")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_an_envelope_returns_what_was_signed(keyring: KeyRing) -> None:
    safety = keyring.signer(KeyRole.SAFETY)
    envelope = sign_dsse(b"rules", POLICY_TYPE, safety)
    assert envelope == sign_dsse(b"rules", POLICY_TYPE, safety)
    found = verify_dsse(envelope, POLICY_TYPE, [keyring.public(KeyRole.MODEL), safety.public])
    assert (found.payload, found.key, found.keys) == (b"rules", safety.public, (safety.public,))


def test_two_signers_are_both_found(keyring: KeyRing) -> None:
    one, two = keyring.signer(KeyRole.SAFETY), keyring.signer(KeyRole.ROOT)
    envelope = sign_dsse(b"rules", POLICY_TYPE, one, two)
    assert verify_dsse(envelope, POLICY_TYPE, [two.public, one.public, one.public]).keys == (two.public, one.public)


def test_securesystemslib_verifies_ours_and_we_verify_its(keyring: KeyRing) -> None:
    safety = keyring.signer(KeyRole.SAFETY)
    public = {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": safety.public.partition(":")[2]}}
    key = Key.from_dict(safety.public, public)
    theirs = Envelope.from_dict(json.loads(sign_dsse(b"rules", POLICY_TYPE, safety)))
    assert list(theirs.verify([key], 1)) == [safety.public]
    back = json.dumps(theirs.to_dict(), indent=1).encode()
    assert verify_dsse(back, POLICY_TYPE, [safety.public]).payload == b"rules"


def test_another_type_another_key_and_no_key_are_refused(keyring: KeyRing) -> None:
    safety = keyring.signer(KeyRole.SAFETY)
    envelope = sign_dsse(b"rules", POLICY_TYPE, safety)
    with pytest.raises(PayloadTypeError):
        verify_dsse(envelope, "application/other", [safety.public])
    for trusted in ([], [keyring.public(KeyRole.MODEL)]):
        with pytest.raises(UntrustedSignatureError):
            verify_dsse(envelope, POLICY_TYPE, trusted)


def test_a_changed_payload_or_type_is_refused(keyring: KeyRing) -> None:
    safety = keyring.signer(KeyRole.SAFETY)
    table = json.loads(sign_dsse(b"rules", POLICY_TYPE, safety))
    for change in ({"payload": "cnVsZXo="}, {"payloadType": POLICY_TYPE + "x"}):
        with pytest.raises((UntrustedSignatureError, PayloadTypeError)):
            verify_dsse(json.dumps({**table, **change}).encode(), POLICY_TYPE, [safety.public])
    moved = json.dumps({**table, "payloadType": POLICY_TYPE + "x"}).encode()
    with pytest.raises(UntrustedSignatureError):
        verify_dsse(moved, POLICY_TYPE + "x", [safety.public])


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"payload":"","payloadType":"t","signatures":[]}',
        b'{"payload":"","payloadType":"t","signatures":[{}]}',
        b'{"payload":"","payloadType":"t","signatures":[{"sig":1}]}',
        b'{"payload":"!","payloadType":"t","signatures":[{"sig":""}]}',
        b'{"payload":"","payloadType":"t","signatures":[{"sig":""}],"more":1}',
        b"[" * 100_000,
    ],
)
def test_damage_has_its_own_error(damage: bytes, keyring: KeyRing) -> None:
    with pytest.raises(EnvelopeError):
        verify_dsse(damage, "t", [keyring.public(KeyRole.SAFETY)])


@settings(max_examples=200, deadline=None)
@given(position=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_no_single_changed_byte_changes_the_payload(keyring: KeyRing, position: float, value: int) -> None:
    safety = keyring.signer(KeyRole.SAFETY)
    envelope = bytearray(sign_dsse(b"the rules of the fleet", POLICY_TYPE, safety))
    envelope[int(position * len(envelope))] = value
    try:
        found = verify_dsse(bytes(envelope), POLICY_TYPE, [safety.public])
    except NwmError:
        return
    assert found.payload == b"the rules of the fleet"
